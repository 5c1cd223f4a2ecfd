//! `cargo xtask package`: packs the publishable crates as a registry would receive them and prints
//! the size of each.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Upload limit of the public registry for a packed crate in bytes, without an exception being asked for.
const UPLOAD_LIMIT: u64 = 10 * 1024 * 1024;

/// Arguments of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub struct PackageArgs {}

/// Publishing order of the crates: each after those it depends on.
pub const PUBLISH_ORDER: [&str; 5] =
    ["aurora-kernels", "aurora-layers", "aurora-data", "aurora-train", "aurora-cli"];

/// Packs [`PUBLISH_ORDER`] from the committed files only, without building, and prints one line per
/// crate.
pub fn run(_arguments: &PackageArgs) -> Result<()> {
    let root = crate::workspace_root();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&root).args(["package", "--no-verify"]);
    for name in PUBLISH_ORDER {
        command.args(["--package", name]);
    }
    let status = command.status().context("cannot start cargo package")?;
    if !status.success() {
        bail!("cargo package refused ({status}); what it printed above says why");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    for name in PUBLISH_ORDER {
        let bytes = packed_size(&target.join("package"), name)?;
        println!("{}", size_line(name, bytes));
    }
    Ok(())
}

/// Size in bytes of the newest `NAME-VERSION.crate` in `folder`.
fn packed_size(folder: &Path, name: &str) -> Result<u64> {
    let mut found = None;
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let version = file.strip_suffix(".crate").and_then(|stem| stem.strip_prefix(name));
        // A digit after the dash tells the version of `aurora` from the name of `aurora-cli`.
        if version
            .and_then(|v| v.strip_prefix('-'))
            .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        {
            let metadata = entry.metadata()?;
            let candidate = (metadata.modified()?, metadata.len());
            found = found.max(Some(candidate));
        }
    }
    match found {
        Some((_, bytes)) => Ok(bytes),
        None => bail!("cargo package left no {name}-VERSION.crate in {}", folder.display()),
    }
}

fn size_line(name: &str, bytes: u64) -> String {
    let mebibytes = bytes as f64 / (1024.0 * 1024.0);
    let verdict = if bytes > UPLOAD_LIMIT { "  over the registry's 10 MiB" } else { "" };
    format!("{name:<16} {mebibytes:>7.2} MiB{verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_crate_of_this_very_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("aurora-0.1.0.crate"), [0; 7]).unwrap();
        std::fs::write(folder.path().join("aurora-cli-0.1.0.crate"), [0; 90]).unwrap();
        assert_eq!(packed_size(folder.path(), "aurora").unwrap(), 7);
        let error = packed_size(folder.path(), "aurora-data").unwrap_err().to_string();
        assert!(error.contains("left no aurora-data-VERSION.crate"), "{error}");
    }

    #[test]
    fn a_crate_over_the_upload_limit_is_marked() {
        assert_eq!(size_line("aurora-cli", UPLOAD_LIMIT), "aurora-cli         10.00 MiB");
        assert!(size_line("aurora-cli", UPLOAD_LIMIT + 1).ends_with("over the registry's 10 MiB"));
    }
}
