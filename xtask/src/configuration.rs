//! `cargo xtask configuration`: generates the tables of keys in docs/configuration.md from the schema.
//!
//! The schema is code of aurora-train, whose test prints and compares the tables; here it is told to write them.

use std::process::Command;

use crate::teachers::call;

/// Test of aurora-train that writes or compares the tables.
const TEST: &str = "configuration_page";

/// Arguments of `cargo xtask configuration`.
#[derive(Debug, clap::Args)]
pub struct ConfigurationArgs {
    /// Compare the committed page instead of writing it.
    #[arg(long)]
    check: bool,
}

/// Rewrites the tables, or compares them.
///
/// # Errors
/// A test that cannot be built, a page that differs or has no place for the tables.
pub fn run(arguments: &ConfigurationArgs) -> anyhow::Result<()> {
    call(&mut command(arguments))
}

fn command(arguments: &ConfigurationArgs) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::workspace_root());
    // The whole workspace, so that nothing is compiled again with other features.
    cargo.args(["test", "--quiet", "--workspace", "--lib", TEST]);
    match arguments.check {
        true => cargo.env_remove("UPDATE_DOCS"),
        false => cargo.env("UPDATE_DOCS", "1"),
    };
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_it_calls_is_there() {
        let tests = crate::workspace_root().join("crates/aurora-train/src/config_page_tests.rs");
        let text = std::fs::read_to_string(tests).unwrap();
        assert!(text.contains(&format!("fn {TEST}_")), "{text}");
    }

    #[test]
    fn only_writing_sets_the_variable() {
        let set = |check| {
            let command = command(&ConfigurationArgs { check });
            command.get_envs().any(|(name, value)| name == "UPDATE_DOCS" && value.is_some())
        };
        assert!(set(false) && !set(true));
    }
}
