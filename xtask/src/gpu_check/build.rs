//! Builds of the folder's programs by cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::portable::Program;
use crate::build_kernels::compiler;

/// Builds the tests of the kernels and every bench.
pub(super) fn programs(root: &Path) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let tests = ["test", "--release", "-p", "aurora-kernels", "--test", "it", "--no-run"];
    for (_, built) in executables(&mut cargo(root, &tests))? {
        programs.push(Program { built, place: "bin/kernels".into() });
    }
    for (name, built) in
        executables(&mut cargo(root, &["bench", "-p", "aurora-benches", "--no-run"]))?
    {
        programs.push(Program { built, place: Path::new("bench").join(name) });
    }
    ensure!(programs.len() > 1, "cargo built no tests or no benches");
    Ok(programs)
}

/// Builds the program `aurora` with the feature `cuda`, linked to stubs, so that it starts on every machine and needs
/// no CUDA library here.
pub(super) fn aurora(root: &Path) -> Result<Program> {
    let nvcc = compiler::find(&root.join("target/cuda"))?.nvcc;
    let bin = nvcc.parent().context("nvcc is in no folder")?;
    let home = bin.parent().context("nvcc is in no folder of a toolkit")?;
    let stubs = root.join("target/cuda-stubs");
    let chore = std::env::current_exe().context("where this chore is")?;
    let mut make = Command::new(chore);
    make.current_dir(root).arg("cuda-stubs").env("CUDA_HOME", home);
    let status = make.status().context("cannot start cargo xtask cuda-stubs")?;
    ensure!(status.success(), "cargo xtask cuda-stubs: {status}");

    let mut path = vec![bin.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(format!(" -L native={}", stubs.display()));
    // Other flags and features than every other build has: in a target folder of its own, it replaces nothing and is
    // kept.
    let target = root.join("target/gpu-check-build");
    let mut build = cargo(root, &["build", "--release", "-p", "aurora-cli", "--features", "cuda"]);
    build.env("PATH", std::env::join_paths(path)?).env("CUDA_HOME", home);
    build.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target);
    if std::env::var_os("CUDA_COMPUTE_CAP").is_none() {
        build.env("CUDA_COMPUTE_CAP", "90");
    }
    let built = executables(&mut build)?.into_iter().find(|(name, _)| name == "aurora");
    let (_, built) = built.context("cargo built no program aurora")?;
    Ok(Program { built, place: "bin/aurora".into() })
}

/// Commit hash, with a `+` if files differ from it.
pub(super) fn commit(root: &Path) -> String {
    let commit = said(root, "git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = said(root, "git", &["status", "--porcelain"]);
    if matches!(changed.as_str(), "" | "unknown") { commit } else { commit + "+" }
}

/// Output of a program, or `unknown`.
pub(super) fn said(root: &Path, program: &str, arguments: &[&str]) -> String {
    let said = Command::new(program).current_dir(root).args(arguments).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map_or("unknown".to_owned(), |said| {
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    })
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root).args(arguments);
    command
}

/// Runs a build and returns the executables it names.
fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let said = command.output().context("cannot start cargo")?;
    ensure!(said.status.success(), "{command:?}: {}", said.status);
    Ok(executables_in(&String::from_utf8_lossy(&said.stdout)))
}

/// Name and path of every executable in cargo's messages.
fn executables_in(messages: &str) -> Vec<(String, PathBuf)> {
    let message = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    };
    messages.lines().filter_map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"a\"},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"linear\"},\"executable\":\"/t/linear-1\"}\n\
            running 3 tests\n{\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executables_in(messages), [("linear".to_owned(), PathBuf::from("/t/linear-1"))]);
    }
}
