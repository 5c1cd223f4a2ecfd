//! `cargo xtask ci`: the list of checks against this repository.

use std::path::Path;

use xtask::ci::{STEPS, readme_test_command, steps};

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn the_readme_s_test_command_is_run_as_it_stands() {
    let readme = read("README.md");
    let command = readme_test_command(&readme).unwrap();
    assert!(readme.contains(&format!("\n{command}\n")));
    let steps = steps(&readme, false).unwrap();
    assert!(steps.iter().any(|ready| ready.line == command), "{command} is in no step");
}

#[test]
fn ci_run_calls_the_list_and_checks_nothing_itself() {
    let script = read(".ci/run");
    let code = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    let cargo: Vec<&str> =
        code.filter(|line| line.split_whitespace().any(|word| word == "cargo")).collect();
    assert_eq!(cargo, ["exec cargo xtask ci"]);
}

#[test]
fn a_file_that_a_step_demands_is_where_the_step_writes() {
    for step in STEPS.iter().filter(|step| step.output.is_some()) {
        let folder = step.output.as_ref().unwrap().folder;
        let ready = steps(&read("README.md"), false).unwrap();
        let line = &ready.iter().find(|ready| ready.step.name == step.name).unwrap().line;
        assert!(line.contains(&format!("--out {folder} ")), "{line}");
    }
}

/// A filter that matches no test passes in silence.
#[test]
fn the_golden_step_finds_its_tests() {
    let main = read("crates/aurora-train/tests/it/main.rs");
    assert!(main.contains("mod golden;"), "no module `golden` in {main}");
}
