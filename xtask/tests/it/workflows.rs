//! Workflow for the world outside, which nothing here can run: planted slips, and no contradiction to the tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use xtask::ci::readme_test_command;

use crate::workspace::found_after;

const PATH: &str = ".github/workflows/ci.yml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn a_slip_in_a_workflow_is_found() {
    let good = "permissions:\n  contents: read\nconcurrency: x\njobs:\n  a:\n    steps:\n\
        \x20     - uses: actions/checkout@v4\n      - run: cargo xtask tidy\n";
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        let text = good.replacen(old, new, 1);
        found_after(|files| drop(files.insert(PATH.into(), text.into_bytes())))
    };
    assert_eq!(with("", ""), [""; 0]);
    for version in ["", "@main", "@v4.1.2", "@4"] {
        assert_eq!(with("@v4", version), [format!("workflow {PATH}:7")], "{version}");
    }
    assert_eq!(with("permissions", "others"), [format!("workflow {PATH}:0")]);
    assert_eq!(with("concurrency", "others"), [format!("workflow {PATH}:0")]);
    assert_eq!(with("  a:", "  a"), [format!("workflow {PATH}:5")]);
    for command in
        ["xtask dream", "test -p aurora-dream", "dream", "check --workspace --exclude dream"]
    {
        assert_eq!(with("xtask tidy", command), [format!("command {PATH}:8")], "{command}");
    }
    assert_eq!(
        with("cargo xtask tidy", "|\n          true\n          cargo dream"),
        [format!("command {PATH}:10")]
    );
}

#[test]
fn linux_runs_the_list_and_the_others_the_readme_s_tests() {
    let workflow = read(PATH);
    assert!(workflow.contains("run: .ci/run\n"));
    let command = readme_test_command(&read("README.md")).unwrap();
    assert!(workflow.contains(&format!("run: {command} --locked\n")), "{command}");
}

#[test]
fn the_oldest_rust_stands_in_the_root_manifest_alone() {
    let manifest = read("Cargo.toml");
    let stated: toml::Table = manifest.parse().unwrap();
    let version = stated["workspace"]["package"]["rust-version"].as_str().unwrap();
    // The line that the workflow's sed takes it from.
    let lines: Vec<_> =
        manifest.lines().filter(|line| line.starts_with("rust-version = ")).collect();
    assert_eq!(lines, [format!("rust-version = \"{version}\"")]);
    let workflow = read(PATH);
    assert!(workflow.contains(r#"sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml"#));
    assert!(!workflow.contains(version), "{version} stands in {PATH} too");
}

#[test]
fn every_fuzz_target_is_run_without_being_named() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let targets = names("fuzz/fuzz_targets");
    assert!(!targets.is_empty());
    assert_eq!(targets, names("fuzz/seeds"), "a target without seeds, or seeds without a target");
    let manifest: toml::Table = read("fuzz/Cargo.toml").parse().unwrap();
    let declared = manifest["bin"].as_array().unwrap().iter();
    let declared: BTreeSet<_> =
        declared.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(targets, declared);

    let workflow = read(PATH);
    assert!(workflow.contains("ls fuzz/fuzz_targets |"));
    assert!(workflow.contains("target: ${{ fromJSON(needs.fuzz-targets.outputs.targets) }}"));
    let commands: String = workflow.lines().filter(|line| line.contains("cargo ")).collect();
    for target in targets {
        assert!(!commands.contains(&format!(" {target} ")), "{target} is named in {PATH}");
    }
}
