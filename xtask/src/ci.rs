//! `cargo xtask ci`: the list of every check that has to hold before a change lands.
//!
//! `.ci/run` installs the few things that cargo cannot and calls this; nothing else holds a list of
//! checks. Steps are data ([`STEPS`]), and each is one command line that can be run alone.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tidy::shell_words;

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub struct CiArgs {
    /// Run only the checks for between two edits: fmt, tidy, clippy and the unit tests. Left out are the integration
    /// and doc tests, the optional readers, the documentation, the kernels by nvcc and NVRTC, the quickstart and the
    /// golden numbers without wide instructions.
    #[arg(long)]
    pub quick: bool,
    /// Print the steps with their exact commands, and run none.
    #[arg(long)]
    pub list: bool,
}

/// Step of the list: one check.
#[derive(Debug)]
pub struct Step {
    /// Name in the output.
    pub name: &'static str,
    /// Purpose of the check, or the reason for its position; `--list` prints it.
    pub why: &'static str,
    /// Environment variables, with their values.
    pub environment: &'static [(&'static str, &'static str)],
    /// Command line.
    pub command: Line,
    /// Part in `--quick`.
    pub quick: Quick,
    /// Files that it has to produce, none of them empty.
    pub output: Option<Output>,
}

/// Source of a step's command line.
#[derive(Debug)]
pub enum Line {
    /// Fixed here.
    Fixed(&'static str),
    /// Taken from a code block of README.md: the line that begins with `cargo test`.
    Readme,
}

/// A step's part in `cargo xtask ci --quick`.
#[derive(Debug, PartialEq, Eq)]
pub enum Quick {
    /// Left out of `--quick`.
    Left,
    /// Unchanged.
    Same,
    /// Run with these additional arguments, which select a part of what it runs.
    Part(&'static str),
}

/// Output folder, removed before its step; it must hold `files` after it.
#[derive(Debug)]
pub struct Output {
    /// Folder, from the root.
    pub folder: &'static str,
    /// Paths in it.
    pub files: &'static [&'static str],
}

/// Every check, in the order they run: what reads sources alone speaks first.
///
/// Three builds of the dependencies are needed: metadata for clippy and rustdoc, the dev profile for every test, and
/// the release profile for the quickstart. A step must not add a fourth, so each that tests selects the whole workspace
/// and filters by name: one package alone gives its dependencies other features.
pub const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        why: "formatting",
        environment: &[],
        command: Line::Fixed("cargo fmt --all --check"),
        quick: Quick::Same,
        output: None,
    },
    Step {
        name: "tidy",
        why: "rules of our own; licenses, bans and sources of the dependencies (deny.toml)",
        environment: &[],
        command: Line::Fixed("cargo xtask tidy"),
        quick: Quick::Same,
        output: None,
    },
    Step {
        name: "clippy",
        why: "lints of all targets; compiles to metadata only, so it speaks before the tests",
        environment: &[],
        command: Line::Fixed("cargo clippy --workspace --all-targets -- -D warnings"),
        quick: Quick::Same,
        output: None,
    },
    Step {
        name: "docs",
        why: "links and code of the documentation; shares clippy's metadata of the dependencies",
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        command: Line::Fixed("cargo doc --workspace --no-deps"),
        quick: Quick::Left,
        output: None,
    },
    Step {
        name: "tests",
        why: "the README's command; without a C++ compiler the kernels' tests fail instead of being skipped",
        environment: &[("AURORA_EMULATOR", "required"), ("INSTA_UPDATE", "no")],
        command: Line::Readme,
        quick: Quick::Part("--lib --bins"),
        output: None,
    },
    Step {
        name: "h264",
        why: "the reader of H.264, which needs a C++ compiler to build and is left out of an ordinary test run",
        environment: &[],
        command: Line::Fixed(
            "cargo test --workspace --features aurora-data/video-h264 --test it videos::",
        ),
        quick: Quick::Left,
        output: None,
    },
    Step {
        name: "golden",
        why: "the reference's numbers as on a processor without wide instructions; `tests` has them with",
        environment: &[("AURORA_ISA", "plain")],
        command: Line::Fixed("cargo test --workspace --test it golden::"),
        quick: Quick::Left,
        output: None,
    },
    Step {
        name: "kernels",
        why: "every kernel for sm_80 and sm_90a, its registers, and the generated parameters",
        environment: &[],
        command: Line::Fixed("cargo xtask build-kernels --check"),
        quick: Quick::Left,
        output: None,
    },
    Step {
        name: "nvrtc",
        why: "the same sources by the compiler that a program without fatbins uses",
        environment: &[],
        command: Line::Fixed("cargo xtask nvrtc"),
        quick: Quick::Left,
        output: None,
    },
    Step {
        name: "quickstart",
        why: "the program as a user builds it: a few steps of tuning, and the files that it promises",
        environment: &[],
        command: Line::Fixed(
            "cargo run --release -- quickstart --out target/ci/quickstart --set schedule.steps=6 \
             --set schedule.warmup_steps=1 --set schedule.eval_every=6 --set data.batch_size=32",
        ),
        quick: Quick::Left,
        output: Some(Output {
            folder: "target/ci/quickstart",
            files: &[
                "config.toml",
                "metrics.jsonl",
                "summary.json",
                "report.html",
                "adapter/adapter_model.safetensors",
            ],
        }),
    },
];

/// Step with its command line resolved, ready to run.
#[derive(Debug)]
pub struct Ready<'a> {
    /// The step.
    pub step: &'a Step,
    /// The command line, without variables.
    pub line: String,
}

impl Ready<'_> {
    /// Command line as one would type it.
    pub fn shown(&self) -> String {
        let clear = self.step.output.as_ref().map(|output| format!("rm -rf {} && ", output.folder));
        let variables = self.step.environment.iter().map(|(name, value)| {
            let quote = if value.contains(' ') { "\"" } else { "" };
            format!("{name}={quote}{value}{quote} ")
        });
        format!("{}{}{}", clear.unwrap_or_default(), variables.collect::<String>(), self.line)
    }

    fn run(&self, root: &Path) -> Result<()> {
        let again = || format!("{} failed; run it alone with: {}", self.step.name, self.shown());
        if let Some(output) = &self.step.output {
            crate::empty_folder(&root.join(output.folder))?;
            std::fs::remove_dir(root.join(output.folder)).context("clear the output")?;
        }
        let words = shell_words(&self.line);
        let (program, arguments) = words.split_first().context("a step without a command")?;
        // The cargo that started this program, so that a toolchain chosen on the command line holds for every step.
        let cargo = std::env::var_os("CARGO").filter(|_| program == "cargo");
        let mut command = Command::new(cargo.unwrap_or_else(|| program.into()));
        command.current_dir(root).args(arguments).envs(self.step.environment.iter().copied());
        let status = command.status().with_context(again)?;
        ensure!(status.success(), "{status}: {}", again());
        let Some(output) = &self.step.output else { return Ok(()) };
        for file in output.files {
            let path = root.join(output.folder).join(file);
            let bytes = path.metadata().map_or(0, |metadata| metadata.len());
            ensure!(bytes > 0, "{}/{file} is missing or empty: {}", output.folder, again());
        }
        Ok(())
    }
}

/// Steps of the whole list, or of `--quick`, with the README's command in its place.
pub fn steps(readme: &str, quick: bool) -> Result<Vec<Ready<'static>>> {
    let chosen = STEPS.iter().filter(|step| !quick || step.quick != Quick::Left);
    chosen
        .map(|step| {
            let mut line = match step.command {
                Line::Fixed(line) => line.to_owned(),
                Line::Readme => readme_test_command(readme)?,
            };
            if let Quick::Part(arguments) = step.quick
                && quick
            {
                line = format!("{line} {arguments}");
            }
            Ok(Ready { step, line })
        })
        .collect()
}

/// Single line in the README's code blocks that begins with `cargo test`, verbatim.
pub fn readme_test_command(readme: &str) -> Result<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.starts_with("cargo test") {
            found.push(line);
        }
    }
    match found.as_slice() {
        [line] => Ok((*line).to_owned()),
        _ => bail!(
            "README.md has {} lines `cargo test ...` in its code blocks, and CI runs the one that \
             tells a reader how to test; leave exactly one",
            found.len()
        ),
    }
}

/// Runs or lists the steps on this workspace.
pub fn run(arguments: &CiArgs) -> Result<()> {
    let root = crate::workspace_root();
    let readme = std::fs::read_to_string(root.join("README.md")).context("README.md")?;
    let steps = steps(&readme, arguments.quick)?;
    let begun = Instant::now();
    for ready in &steps {
        println!("== {}: {}", ready.step.name, ready.shown());
        if arguments.list {
            println!("   {}", ready.step.why);
            continue;
        }
        let started = Instant::now();
        ready.run(&root)?;
        let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
        println!(
            "== {}: fine after {}, {} in all",
            ready.step.name,
            seconds(started.elapsed()),
            seconds(begun.elapsed())
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "Run\n```sh\ncargo run\n```\n```sh\ncargo test --workspace\n```\n";

    fn lines(quick: bool) -> Vec<(&'static str, String)> {
        let steps = steps(README, quick).unwrap();
        steps.iter().map(|ready| (ready.step.name, ready.line.clone())).collect()
    }

    #[test]
    fn quick_is_a_part_of_the_whole() {
        let whole = lines(false);
        assert_eq!(whole.len(), STEPS.len());
        let quick = lines(true);
        assert!(quick.len() < whole.len());
        for (name, line) in quick {
            let (_, full) = whole.iter().find(|(other, _)| *other == name).unwrap();
            assert!(line.starts_with(full.as_str()), "{name}: {line}, {full}");
        }
    }

    #[test]
    fn names_are_distinct_and_the_cheapest_step_comes_first() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names[..3], ["fmt", "tidy", "clippy"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }

    #[test]
    fn the_readme_is_read_and_has_one_command() {
        assert_eq!(readme_test_command(README).unwrap(), "cargo test --workspace");
        let none = readme_test_command("cargo test\n").unwrap_err().to_string();
        assert!(none.starts_with("README.md has 0 lines"), "{none}");
        let two = readme_test_command(&README.repeat(2)).unwrap_err().to_string();
        assert!(two.starts_with("README.md has 2 lines"), "{two}");
    }

    #[test]
    fn a_step_is_shown_as_one_would_type_it() {
        let shown: Vec<_> = steps(README, false).unwrap().iter().map(Ready::shown).collect();
        for line in [
            "cargo clippy --workspace --all-targets -- -D warnings",
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps",
            "AURORA_EMULATOR=required INSTA_UPDATE=no cargo test --workspace",
        ] {
            assert!(shown.iter().any(|other| other == line), "{line} is not in {shown:?}");
        }
        let quickstart = shown.last().unwrap();
        assert!(
            quickstart.starts_with("rm -rf target/ci/quickstart && cargo run --release -- "),
            "{quickstart}"
        );
    }

    fn nonsense(output: Option<Output>, line: &'static str) -> String {
        let step = Step {
            name: "nonsense",
            why: "",
            environment: &[],
            command: Line::Fixed(line),
            quick: Quick::Left,
            output,
        };
        let folder = tempfile::tempdir().unwrap();
        let ready = Ready { step: &step, line: line.to_owned() };
        format!("{:#}", ready.run(folder.path()).unwrap_err())
    }

    #[test]
    fn a_failing_step_names_itself_and_the_command() {
        let error = nonsense(None, "cargo no-such-command");
        assert!(error.contains("nonsense failed; run it alone with: cargo no-such"), "{error}");
        let error = nonsense(None, "no-such-program");
        assert!(error.contains("run it alone with: no-such-program"), "{error}");
    }

    #[test]
    fn a_file_that_is_promised_and_missing_fails_its_step() {
        let output = Output { folder: "out", files: &["report.html"] };
        let error = nonsense(Some(output), "cargo --version");
        assert!(error.starts_with("out/report.html is missing or empty"), "{error}");
    }
}
