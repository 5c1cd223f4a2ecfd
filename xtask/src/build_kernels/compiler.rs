//! nvcc selection: the machine's own, else the pinned one from pip.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::pip;

/// Version that is installed where the machine has no nvcc. 13.0, because a driver of the 580 line takes the PTX of no
/// later one.
pub const PINNED: &str = "13.0.88";

/// pip packages of nvcc: the compiler, the programs it calls, and the headers that it puts before every source.
const PACKAGES: pip::Set = pip::Set {
    folder: "nvcc-13.0",
    purpose: "the pinned CUDA compiler (nvcc 13.0.88)",
    instead: "Or install a CUDA toolkit (12.0 or later) and set CUDA_HOME to its folder, or NVCC \
        to its nvcc.",
    packages: &[
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia-cuda-crt==13.0.88",
        "nvidia-nvvm==13.0.88",
        "nvidia-cuda-runtime==13.0.96",
    ],
};

/// nvcc with a known version.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Path of the program.
    pub nvcc: PathBuf,
    /// Version, as in `13.0.88`.
    pub version: String,
    /// Where it was found.
    pub origin: &'static str,
}

/// Finds nvcc by `NVCC`, `CUDA_HOME` and `PATH`, in this order, else installs the pinned one into
/// `folder`.
///
/// # Errors
/// `NVCC` is set to something that is no nvcc, the version is below 12.0, or there is none and it
/// cannot be installed.
pub fn find(folder: &Path) -> Result<Compiler> {
    if let Some((nvcc, origin)) = on_this_machine(|name| std::env::var_os(name)) {
        return ask(nvcc, origin);
    }
    let home = pip::installed(&PACKAGES, folder)?;
    let compiler = ask(home.join("nvidia/cu13/bin/nvcc"), "pip")?;
    ensure!(
        compiler.version == PINNED,
        "{} says that it is {}, not the pinned {PINNED}; delete {} and run this again",
        compiler.nvcc.display(),
        compiler.version,
        home.display()
    );
    Ok(compiler)
}

/// nvcc named by the environment, with the variable that names it.
fn on_this_machine(variable: impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, &'static str)> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(nvcc) = set("NVCC") {
        return Some((nvcc.into(), "NVCC"));
    }
    let name = format!("nvcc{}", std::env::consts::EXE_SUFFIX);
    if let Some(home) = set("CUDA_HOME") {
        let nvcc = Path::new(&home).join("bin").join(&name);
        if nvcc.is_file() {
            return Some((nvcc, "CUDA_HOME"));
        }
        // Machines that only run CUDA set it too.
        eprintln!("note: CUDA_HOME has no bin/{name}; looking on PATH");
    }
    let path = set("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(&name));
    found.into_iter().find(|nvcc| nvcc.is_file()).map(|nvcc| (nvcc, "PATH"))
}

/// Queries the version of an nvcc.
fn ask(nvcc: PathBuf, origin: &'static str) -> Result<Compiler> {
    let said = Command::new(&nvcc).arg("--version").output().with_context(|| {
        format!("cannot start {} (found by {origin}); correct {origin}", nvcc.display())
    })?;
    let text = String::from_utf8_lossy(&said.stdout);
    let Some(version) = version_in(&text) else {
        bail!(
            "{} (found by {origin}) does not say its version as nvcc does; correct {origin}",
            nvcc.display()
        );
    };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    ensure!(
        major >= Some(12),
        "{} is CUDA {version}; sm_90a needs 12.0 or later. Unset {origin} to get {PINNED} from pip",
        nvcc.display()
    );
    Ok(Compiler { nvcc, version: version.to_owned(), origin })
}

/// Parses `13.0.88` out of `Cuda compilation tools, release 13.0, V13.0.88`.
fn version_in(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("Cuda compilation tools"))?;
    let version = line.rsplit(", V").next()?.trim();
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_nvcc_says() {
        let said = "nvcc: NVIDIA (R) Cuda compiler driver\n\
            Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.1\n";
        assert_eq!(version_in(said), Some("13.0.88"));
        assert_eq!(version_in("gcc (Debian 12.2.0) 12.2.0\n"), None);
    }

    #[test]
    fn the_variable_goes_before_the_home_and_the_home_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("nvcc{}", std::env::consts::EXE_SUFFIX);
        for place in ["home/bin", "path"] {
            let place = folder.path().join(place);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(&name), "").unwrap();
        }
        let (home, path) = (folder.path().join("home"), folder.path().join("path"));
        let with = |set: &'static [&'static str]| {
            let variable = |asked: &str| {
                let value = match asked {
                    "NVCC" => PathBuf::from("/elsewhere/nvcc"),
                    "CUDA_HOME" => home.clone(),
                    _ => path.clone(),
                };
                set.contains(&asked).then(|| value.into_os_string())
            };
            on_this_machine(variable).map(|(_, origin)| origin)
        };
        assert_eq!(with(&["NVCC", "CUDA_HOME", "PATH"]), Some("NVCC"));
        assert_eq!(with(&["CUDA_HOME", "PATH"]), Some("CUDA_HOME"));
        assert_eq!(with(&["PATH"]), Some("PATH"));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn what_is_no_nvcc_is_refused_by_the_variable_that_named_it() {
        let missing = ask("/no/such/nvcc".into(), "NVCC").unwrap_err().to_string();
        assert!(missing.contains("correct NVCC"), "{missing}");
    }
}
