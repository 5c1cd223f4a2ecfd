//! Python environment of the chores that compare with PyTorch: one virtual environment, pinned packages.
//!
//! It stands in cargo's target folder, takes a while and several gigabytes the first time, and serves every such
//! chore. Nothing of it is committed, and CI does not make it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::teachers::call;

/// Packages with their versions.
const REQUIREMENTS: &str = include_str!("python/requirements.txt");

/// Virtual environment with every package of the requirements.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Opens the environment in cargo's target folder; packages are installed only if the requirements have changed.
    ///
    /// # Errors
    /// No python3, a package that cannot be installed.
    pub(crate) fn installed() -> anyhow::Result<Self> {
        Self::installed_in(&target().join("python"), REQUIREMENTS)
    }

    fn installed_in(home: &Path, requirements: &str) -> anyhow::Result<Self> {
        let found = Self { program: home.join("venv/bin/python") };
        let stamp = home.join("installed.txt");
        let whole = fs::read_to_string(&stamp).is_ok_and(|text| text == requirements);
        if whole && found.program.exists() {
            return Ok(found);
        }
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        if !found.program.exists() {
            eprintln!("making a Python environment in {}", home.display());
            call(Command::new("python3").args(["-m", "venv"]).arg(home.join("venv")))?;
        }
        let wanted = home.join("requirements.txt");
        fs::write(&wanted, requirements)?;
        call(found.pip().arg("-r").arg(&wanted))?;
        // Written last, so that what it vouches for is there.
        fs::write(&stamp, requirements)?;
        Ok(found)
    }

    /// `pip install`, without packages yet.
    pub(crate) fn pip(&self) -> Command {
        let mut pip = Command::new(&self.program);
        pip.args(["-m", "pip", "install", "--quiet"]);
        pip.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        pip
    }

    /// Python script, without arguments yet.
    pub(crate) fn script(&self, path: &Path) -> Command {
        let mut script = Command::new(&self.program);
        script.arg("-W").arg("ignore").arg(path);
        script.env("TRANSFORMERS_VERBOSITY", "error").env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
        script
    }
}

/// Cargo's target folder of this workspace.
pub(crate) fn target() -> PathBuf {
    let root = crate::workspace_root();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_installed_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("venv/bin/python");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "no program").unwrap();
        fs::write(home.path().join("installed.txt"), "torch==1\n").unwrap();
        let found = Python::installed_in(home.path(), "torch==1\n").unwrap();
        assert_eq!(found.program, program);
        // Other versions have to be installed, which a file that is no program cannot.
        assert!(Python::installed_in(home.path(), "torch==2\n").is_err());
        assert_eq!(fs::read_to_string(home.path().join("installed.txt")).unwrap(), "torch==1\n");
    }
}
