//! `cargo xtask nvrtc`: compiles every embedded kernel source with NVRTC, as a program without fatbins does at first
//! use.
//!
//! Needs no driver. NVRTC is that of `CUDA_HOME` or of the loader's path, else the pinned one from pip.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::pip;

/// pip packages of NVRTC, in the version of the pinned nvcc.
const PACKAGES: pip::Set = pip::Set {
    folder: "nvrtc-13.0",
    purpose: "the pinned NVRTC (13.0.88)",
    instead: "Or install a CUDA toolkit (12.0 or later) and set CUDA_HOME to its folder.",
    packages: &["nvidia-cuda-nvrtc==13.0.88"],
};

/// Arguments of `cargo xtask nvrtc`.
#[derive(Debug, clap::Args)]
pub struct NvrtcArgs {}

/// Runs the tests that compile the embedded sources, and insists on a compiler.
///
/// # Errors
/// NVRTC cannot be had, or a source does not compile.
pub fn run(_arguments: &NvrtcArgs) -> Result<()> {
    let root = crate::workspace_root();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&root).env("AURORA_NVRTC", "required");
    // The whole workspace, so that nothing is compiled again with other features.
    command.args(["test", "--workspace", "--test", "it", "nvrtc::"]);
    if !in_cuda_home() {
        let home = pip::installed(&PACKAGES, &root.join("target/cuda"))?;
        command.env("CUDA_HOME", home.join("nvidia/cu13"));
    }
    let status = command.status().context("cannot start cargo test")?;
    ensure!(status.success(), "NVRTC does not compile what it should; the tests above say why");
    Ok(())
}

/// True if `CUDA_HOME` has NVRTC.
fn in_cuda_home() -> bool {
    let Some(home) = std::env::var_os("CUDA_HOME") else { return false };
    ["lib64", "lib"].iter().any(|folder| {
        let entries = Path::new(&home).join(folder).read_dir();
        entries.is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc.so"))
        })
    })
}
