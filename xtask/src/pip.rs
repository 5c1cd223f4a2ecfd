//! Pinned pip packages for chores where the machine lacks a tool, each set in a folder of its own below `target/cuda`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Set of packages that are installed together.
#[derive(Debug)]
pub struct Set {
    /// Name of the folder.
    pub folder: &'static str,
    /// Purpose of the folder, for messages.
    pub purpose: &'static str,
    /// Advice for a machine without python3 or pip.
    pub instead: &'static str,
    /// Packages with their versions, installed without their dependencies.
    pub packages: &'static [&'static str],
}

/// Stamp file with names and versions, written last, so that a folder with it is whole.
const STAMP: &str = "installed.txt";

/// Folder of `set` below `folder`, installed first if these very versions are not there.
///
/// # Errors
/// python3 or pip is missing, or pip cannot install the packages.
pub fn installed(set: &Set, folder: &Path) -> Result<PathBuf> {
    let home = folder.join(set.folder);
    let wanted = set.packages.join("\n") + "\n";
    if is_whole(&home, &wanted) {
        return Ok(home);
    }
    let python = python(set)?;
    eprintln!("installing {} with pip into {}", set.purpose, home.display());
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Installed aside and renamed: an interrupted installation leaves no folder that looks whole.
    let aside = tempfile::tempdir_in(folder)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]);
    // Nothing of the machine's own is touched, whoever runs this.
    pip.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    let status = pip.arg(aside.path()).args(set.packages).status().context("cannot start pip")?;
    if !status.success() {
        bail!(
            "pip could not install {} ({status}); what it printed above says why. {}",
            set.packages.join(" "),
            set.instead
        );
    }
    fs::write(aside.path().join(STAMP), &wanted)?;
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot clear {}", home.display()))?;
    }
    let renamed = fs::rename(aside.path(), &home);
    // Another process may have installed the same in the meantime.
    if !is_whole(&home, &wanted) {
        renamed.with_context(|| format!("cannot put {} in place", home.display()))?;
    }
    Ok(home)
}

fn is_whole(home: &Path, wanted: &str) -> bool {
    fs::read_to_string(home.join(STAMP)).is_ok_and(|found| found == wanted)
}

/// Name of a Python 3 that has pip.
fn python(set: &Set) -> Result<&'static str> {
    let runs = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(name);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "python"].into_iter().find(|name| runs(name, &["--version"]))
    else {
        bail!(
            "{} is missing and so is python3, which would install it. Install python3 with pip \
            (Debian, Ubuntu: apt-get install python3 python3-pip). {}",
            set.purpose,
            set.instead
        );
    };
    if !runs(python, &["-m", "pip", "--version"]) {
        bail!(
            "{} is missing, and {python} has no pip to install it. Install pip (Debian, Ubuntu: \
            apt-get install python3-pip; elsewhere: {python} -m ensurepip). {}",
            set.purpose,
            set.instead
        );
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Set =
        Set { folder: "set", purpose: "a tool", instead: "Or do without.", packages: &["a==1"] };

    #[test]
    fn what_is_there_in_the_pinned_version_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(SET.folder);
        fs::create_dir(&home).unwrap();
        fs::write(home.join(STAMP), "a==1\n").unwrap();
        assert_eq!(installed(&SET, folder.path()).unwrap(), home);
    }

    #[test]
    fn another_version_or_half_an_installation_is_not_enough() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_whole(folder.path(), "a==1\n"));
        fs::write(folder.path().join(STAMP), "a==0\n").unwrap();
        assert!(!is_whole(folder.path(), "a==1\n"));
    }
}
