//! Chores of this workspace, run as `cargo xtask COMMAND`.
//!
//! One module per command; `main.rs` only parses the command line and dispatches. The chores live
//! in a library so that `tests/` can run them on small trees of their own.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to whoever started it"
)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub mod bench_loader;
pub mod bench_peers;
pub mod bindings;
pub mod build_kernels;
pub mod ci;
pub mod configuration;
pub mod derivations;
pub mod gpu_check;
pub mod interop;
pub mod mutate;
pub mod nvrtc;
pub mod pack;
pub mod package;
mod pip;
mod python;
pub mod results;
mod results_csv;
mod statistics;
pub mod stubs;
#[path = "../../crates/aurora-kernels/src/cuda/symbols.rs"]
mod symbols;
mod table;
pub mod teachers;
pub mod tidy;
mod worker;

/// Root of the workspace: the parent of this package's folder.
///
/// Under `cargo xtask` cargo names that folder anew on every run, so a checkout that was moved or
/// copied after it was built finds itself.
pub fn workspace_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Creates an empty folder, removing what an earlier run left in it.
fn empty_folder(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot clear {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
