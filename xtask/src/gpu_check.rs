//! `cargo xtask gpu-check`: a portable folder that checks and measures the kernels on a machine with a GPU.
//!
//! The folder is copied there as it is: programs, sources of the kernels, scripts. That machine needs
//! no Rust and no CUDA compiler, only a driver; with python3 and torch it compares with PyTorch too.
//! `run.sh` does all of it and ends with one table. It is run here as well, where without a GPU
//! it does what a CPU can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::build_kernels::{self, BuildKernelsArgs};
use portable::Program;

mod build;
mod portable;

/// Scripts beside the programs.
const SCRIPTS: [(&str, &str); 4] = [
    ("run.sh", include_str!("gpu_check/run.sh")),
    ("table.awk", include_str!("gpu_check/table.awk")),
    ("peers.py", include_str!("gpu_check/peers.py")),
    ("README.txt", include_str!("gpu_check/README.txt")),
];

/// File of the versions that the folder was made from; it marks the folder as one of ours.
const VERSIONS: &str = "versions.txt";

/// Arguments of `cargo xtask gpu-check`.
#[derive(Debug, clap::Args)]
pub struct GpuCheckArgs {
    /// The folder to make; one made before is replaced.
    #[arg(long, value_name = "DIR", default_value = "target/gpu-check")]
    pub out: PathBuf,
    /// Include the program `aurora`, built with the feature `cuda`: over 20 minutes of one core the first time.
    #[arg(long)]
    pub cuda: bool,
    /// Compile no kernels here: NVRTC does on the machine with the GPU.
    #[arg(long)]
    pub sources_only: bool,
    /// Make the folder without running it.
    #[arg(long)]
    pub no_run: bool,
}

/// Makes the folder, says what it needs, and runs it here.
///
/// # Errors
/// A program that does not build, a folder that is somebody else's, or a run in which something is
/// wrong.
pub fn run(arguments: &GpuCheckArgs) -> Result<()> {
    let root = crate::workspace_root();
    let out = root.join(&arguments.out);
    if out.exists() {
        ensure!(
            out.join(VERSIONS).is_file(),
            "{} is there and was not made by this chore; name another folder with --out",
            out.display()
        );
    }
    if !arguments.sources_only {
        let kernels = BuildKernelsArgs { arch: "80,90a".to_owned(), ptx: true, check: false };
        if let Err(error) = build_kernels::run(&kernels) {
            eprintln!(
                "note: no kernels compiled here, so NVRTC has to on the GPU's machine: {error:#}"
            );
        }
    }
    let mut programs = build::programs(&root)?;
    if arguments.cuda {
        programs.push(build::aurora(&root)?);
    }

    let parent = out.parent().context("the folder has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let aside = tempfile::tempdir_in(parent)?;
    fill(&root, aside.path(), &programs)?;
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot replace {}", out.display()))?;
    }
    let aside = aside.keep();
    fs::rename(&aside, &out).with_context(|| format!("cannot write {}", out.display()))?;
    println!("{}:", out.display());
    print!("{}", fs::read_to_string(out.join(VERSIONS))?);
    println!("copy it to a machine with a GPU and start run.sh there");
    if arguments.no_run {
        return Ok(());
    }
    let status = Command::new("bash").arg(out.join("run.sh")).status();
    let status = status.context("cannot start bash")?;
    if !status.success() {
        bail!("run.sh: {status}");
    }
    Ok(())
}

/// Fills the folder: programs, sources, scripts and versions.
fn fill(root: &Path, folder: &Path, programs: &[Program]) -> Result<()> {
    let private = portable::private_paths(root);
    let mut glibc = (2, 17);
    for program in programs {
        let mut bytes = fs::read(&program.built)
            .with_context(|| format!("cannot read {}", program.built.display()))?;
        portable::overwrite(&mut bytes, &private);
        glibc = glibc.max(portable::glibc(&bytes));
        let to = folder.join(&program.place);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&to, bytes)?;
        fs::set_permissions(&to, fs::metadata(&program.built)?.permissions())?;
    }
    copy(&root.join("kernels"), &folder.join("kernels"))?;
    for (name, text) in SCRIPTS {
        fs::write(folder.join(name), text)?;
    }
    executable(&folder.join("run.sh"))?;
    let versions = format!(
        "aurora: {}\ncommit: {}\nrustc: {}\nglibc: {}.{}\n",
        env!("CARGO_PKG_VERSION"),
        build::commit(root),
        build::said(root, "rustc", &["--version"]),
        glibc.0,
        glibc.1
    );
    fs::write(folder.join(VERSIONS), versions)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir().with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn executable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_has_everything_and_no_path_of_this_machine() {
        let root = tempfile::tempdir().unwrap();
        let (root, folder) = (root.path().join("tree"), root.path().join("folder"));
        fs::create_dir_all(root.join("kernels/include")).unwrap();
        fs::write(root.join("kernels/include/k.h"), "int k;").unwrap();
        let built = root.join("program");
        let text = format!("GLIBC_2.34 {}/crates/x.rs GLIBC_2.9", root.display());
        fs::write(&built, &text).unwrap();
        let program = Program { built, place: "bench/linear".into() };
        fill(&root, &folder, &[program]).unwrap();
        let kept = fs::read(folder.join("bench/linear")).unwrap();
        assert_eq!(kept.len(), text.len());
        let kept = String::from_utf8(kept).unwrap();
        assert!(!kept.contains(root.to_str().unwrap()) && kept.contains("/crates/x.rs"), "{kept}");
        let versions = fs::read_to_string(folder.join(VERSIONS)).unwrap();
        assert!(versions.contains("glibc: 2.34\n"), "{versions}");
        for name in ["run.sh", "table.awk", "peers.py", "README.txt", "kernels/include/k.h"] {
            assert!(folder.join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = GpuCheckArgs {
            out: folder.path().to_owned(),
            cuda: false,
            sources_only: true,
            no_run: true,
        };
        let message = run(&arguments).unwrap_err().to_string();
        assert!(message.contains("was not made by this chore"), "{message}");
    }

    /// The table joins the results of the parts.
    #[test]
    fn the_table_has_a_line_for_each_row() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("table.awk", SCRIPTS[1].1);
        write("numerics.txt", "ok layer_norm 3/3\nWRONG optim 1/2\n");
        write("sanitizer.txt", "ok layer_norm\n");
        write("peers.csv", "name,type,median_ns\nsite/layer_norm,bf16,3000\n");
        let rows = "date,device,name,type,median_ns,share\n\
            now,\"a, \"\"GPU\"\"\",site/layer_norm,bf16,2000,0.850\n\
            now,a,site/adamw,f32,500,0.1\nnow,a,site/linear,f32,7000000,0.5\n";
        write("norm.csv", rows);
        let awk = |gpu: &str, files: &[&str]| {
            let mut command = Command::new("awk");
            command.current_dir(folder.path()).args(["-v", gpu, "-f", "table.awk"]).args(files);
            command.output().ok().map(|said| String::from_utf8_lossy(&said.stdout).into_owned())
        };
        let files = ["numerics.txt", "sanitizer.txt", "peers.csv", "norm.csv"];
        let Some(text) = awk("gpu=1", &files) else { return };
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(
            lines[1][..8],
            ["site/layer_norm", "bf16", "2.00 us", "3.00 us", "1.50", "85.0 %", "ok", "ok"]
        );
        assert_eq!(lines[2][3..], ["-", "-", "10.0 %", "WRONG", "not run"]);
        assert_eq!(lines[3][2..], ["7.00 ms", "-", "-", "50.0 %", "bench", "-"]);
        let text = awk("gpu=0", &["numerics.txt", "norm.csv"]).unwrap();
        assert_eq!(text.matches("no GPU").count(), 3 + 2, "{text}");
    }
}
