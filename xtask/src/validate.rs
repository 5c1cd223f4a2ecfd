//! `cargo xtask validate`: every check of this repository, cheapest first, stopping at the first
//! that fails.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Arguments of `cargo xtask validate`.
#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// Print the commands in their order and run none.
    #[arg(long)]
    pub list: bool,
}

/// One check: what it is called, cargo's arguments, and the environment it needs.
#[derive(Debug)]
pub struct Step {
    /// What the check is called in the output.
    pub name: &'static str,
    /// Arguments for cargo.
    pub cargo: &'static [&'static str],
    /// A variable to set, with its value.
    pub environment: Option<(&'static str, &'static str)>,
}

/// The checks in the order they run. Formatting reads no dependency, tidy and the kernels build only
/// this package, clippy stops before code generation; only then do the tests link, and the
/// documentation reuses what clippy has checked.
pub const STEPS: &[Step] = &[
    Step { name: "format", cargo: &["fmt", "--all", "--check"], environment: None },
    Step { name: "tidy", cargo: &["xtask", "tidy"], environment: None },
    Step { name: "kernels", cargo: &["xtask", "build-kernels", "--check"], environment: None },
    Step {
        name: "clippy",
        cargo: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: None,
    },
    Step {
        name: "tests",
        cargo: &["test", "--workspace"],
        // Without a C++ compiler the tests of the kernels would pass with a word.
        environment: Some(("AURORA_EMULATOR", "required")),
    },
    Step {
        name: "documentation",
        cargo: &["doc", "--workspace", "--no-deps"],
        environment: Some(("RUSTDOCFLAGS", "-D warnings")),
    },
];

/// Runs [`STEPS`] on this workspace.
pub fn run(arguments: &ValidateArgs) -> Result<()> {
    let root = crate::workspace_root();
    for step in STEPS {
        println!("== {}: {}", step.name, shown(step));
        if !arguments.list {
            run_step(&root, step)?;
        }
    }
    Ok(())
}

fn run_step(root: &Path, step: &Step) -> Result<()> {
    let started = Instant::now();
    // The cargo that started this program, so that a toolchain chosen on the command line holds for
    // every step.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(step.cargo).envs(step.environment);
    let status = command.status().with_context(|| format!("cannot start {}", shown(step)))?;
    if !status.success() {
        bail!("{} failed ({status}); run it alone with: {}", step.name, shown(step));
    }
    println!("== {}: fine after {:.0} s", step.name, started.elapsed().as_secs_f64());
    Ok(())
}

/// The step as one would type it.
fn shown(step: &Step) -> String {
    let variable =
        step.environment.map(|(name, value)| format!("{name}=\"{value}\" ")).unwrap_or_default();
    format!("{variable}cargo {}", step.cargo.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_check_comes_first() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names, ["format", "tidy", "kernels", "clippy", "tests", "documentation"]);
    }

    #[test]
    fn warnings_of_clippy_and_rustdoc_are_errors() {
        assert_eq!(shown(&STEPS[3]), "cargo clippy --workspace --all-targets -- -D warnings");
        assert_eq!(
            shown(&STEPS[5]),
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps"
        );
    }

    #[test]
    fn a_failing_step_names_itself_and_the_command() {
        let step = Step { name: "nonsense", cargo: &["no-such-command"], environment: None };
        let error = run_step(Path::new("."), &step).unwrap_err().to_string();
        assert!(error.starts_with("nonsense failed"), "{error}");
        assert!(error.ends_with("cargo no-such-command"), "{error}");
    }
}
