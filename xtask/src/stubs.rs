//! `cargo xtask cuda-stubs`: stub libraries to link a program with the feature `cuda` to, on a machine without CUDA
//! libraries.
//!
//! Each is an archive of functions that look the real library up when they are first called. A
//! program linked to them starts on every machine: where a library is missing, its functions
//! return an error, which the program puts into words. Linked to the real libraries it would not
//! start without them.
//!
//! candle's kernels also want the CUDA runtime, for which the compiler's own static one is taken.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use regex::Regex;

/// Arguments of `cargo xtask cuda-stubs`.
#[derive(Debug, clap::Args)]
pub struct StubsArgs {
    /// Output folder.
    #[arg(long, value_name = "DIR", default_value = "target/cuda-stubs")]
    pub out: PathBuf,
}

/// Library to make stubs of.
struct Library {
    /// Linker name.
    name: &'static str,
    /// Path of its declarations in cudarc's sources, below `src`.
    declarations: &'static str,
    /// File names to try; the first that is there is loaded.
    files: &'static [&'static str],
    /// Error code of its functions if the library is missing.
    absent: u32,
    /// Error code of its functions if the library is too old to have them.
    lacking: u32,
}

const LIBRARIES: [Library; 5] = [
    Library {
        name: "cuda",
        declarations: "driver/sys/mod.rs",
        files: &["libcuda.so.1", "libcuda.so"],
        absent: 34,   // CUDA_ERROR_STUB_LIBRARY
        lacking: 801, // CUDA_ERROR_NOT_SUPPORTED
    },
    Library {
        name: "nvrtc",
        declarations: "nvrtc/sys/mod.rs",
        files: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
        absent: 11, // NVRTC_ERROR_INTERNAL_ERROR
        lacking: 11,
    },
    Library {
        name: "curand",
        declarations: "curand/sys/mod.rs",
        files: &["libcurand.so.10", "libcurand.so"],
        absent: 203, // CURAND_STATUS_INITIALIZATION_FAILED
        lacking: 203,
    },
    Library {
        name: "cublas",
        declarations: "cublas/sys/mod.rs",
        files: &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
        absent: 1,   // CUBLAS_STATUS_NOT_INITIALIZED
        lacking: 15, // CUBLAS_STATUS_NOT_SUPPORTED
    },
    Library {
        name: "cublasLt",
        declarations: "cublaslt/sys/mod.rs",
        files: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        absent: 1,
        lacking: 15,
    },
];

const TRAMPOLINES: &str = include_str!("stubs/trampolines.c");

/// Makes the archives and says how to link to them.
///
/// # Errors
/// Another kind of machine than x86-64 Linux, no C compiler, no CUDA compiler beside which the
/// static runtime lies, cudarc's sources not there.
pub fn run(arguments: &StubsArgs) -> Result<()> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the stubs are written for x86-64 Linux; link to the real CUDA libraries here"
    );
    let root = crate::workspace_root();
    let out = root.join(&arguments.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let sources = cudarc(&root)?;
    for library in &LIBRARIES {
        let path = sources.join("src").join(library.declarations);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let functions = functions(&text)?;
        ensure!(!functions.is_empty(), "{} declares no function", path.display());
        archive(library, &functions, &out)?;
        println!("lib{}.a: {} functions", library.name, functions.len());
    }
    let runtime = runtime()?;
    fs::copy(&runtime, out.join("libcudart.a"))
        .with_context(|| format!("cannot copy {}", runtime.display()))?;
    println!("libcudart.a: {}", runtime.display());
    println!(
        "\nlink to them with\n  LIBRARY_PATH={} cargo build --release --features cuda",
        out.display()
    );
    Ok(())
}

/// Folder of cudarc's sources, whose declarations name every function.
fn cudarc(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = Command::new(cargo)
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cannot start cargo metadata")?;
    ensure!(said.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&said.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let cudarc = packages.iter().find(|package| package["name"] == "cudarc");
    let manifest = cudarc.and_then(|package| package["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    Ok(folder.context("the workspace does not use cudarc")?.to_owned())
}

/// Names of the declared functions; true for those that return a string.
fn functions(declarations: &str) -> Result<BTreeMap<String, bool>> {
    let declared = Regex::new(r"(?m)^ +fn (\w+)\([^;{]*\)(?: -> ([^;{]+))?;$")?;
    Ok(declared
        .captures_iter(declarations)
        .map(|found| {
            let text = found.get(2).is_some_and(|kind| kind.as_str().starts_with('*'));
            (found[1].to_owned(), text)
        })
        .collect())
}

/// Header that `trampolines.c` includes.
fn header(library: &Library, functions: &BTreeMap<String, bool>) -> Result<String> {
    let files: Vec<String> = library.files.iter().map(|file| format!("{file:?}")).collect();
    let mut text = format!(
        "#define LIBRARY aurora_stub_{}\n#define NAMES {}\n#define ABSENT {}\n#define LACKING {}\n\
         #define FUNCTIONS(code, text)",
        library.name,
        files.join(", "),
        library.absent,
        library.lacking
    );
    for (index, (name, is_text)) in functions.iter().enumerate() {
        write!(text, " \\\n    {}({index}, {name})", if *is_text { "text" } else { "code" })?;
    }
    Ok(text + "\n")
}

/// Compiles one library's stubs into an archive.
fn archive(library: &Library, functions: &BTreeMap<String, bool>, out: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let at = |name: &str| work.path().join(name);
    fs::write(at("library.h"), header(library, functions)?)?;
    fs::write(at("trampolines.c"), TRAMPOLINES)?;
    let object = format!("{}.o", library.name);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compile = Command::new(&compiler);
    compile.args(["-c", "-O2", "-fPIC", "-fno-toplevel-reorder", "trampolines.c", "-o", &object]);
    done(compile.current_dir(work.path()), "the C compiler (set CC to another)")?;
    let name = format!("lib{}.a", library.name);
    let mut archive = Command::new("ar");
    done(archive.current_dir(work.path()).args(["crs", &name, &object]), "ar (of binutils)")?;
    fs::copy(at(&name), out.join(&name))
        .with_context(|| format!("cannot write {name} to {}", out.display()))?;
    Ok(())
}

fn done(command: &mut Command, what: &str) -> Result<()> {
    let said = command.output().with_context(|| format!("cannot start {what}"))?;
    if !said.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(())
}

/// Static runtime of the CUDA compiler.
fn runtime() -> Result<PathBuf> {
    let mut homes: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(Into::into)
        .collect();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        if folder.join("nvcc").is_file() {
            homes.extend(folder.parent().map(Path::to_owned));
        }
    }
    homes.push("/usr/local/cuda".into());
    let places = ["lib64", "lib", "targets/x86_64-linux/lib"];
    homes
        .iter()
        .flat_map(|home| places.map(|place| home.join(place).join("libcudart_static.a")))
        .find(|path| path.is_file())
        .context(
            "there is no libcudart_static.a beside a CUDA compiler: set CUDA_HOME to the folder \
             with bin/nvcc (`cargo xtask build-kernels` installs one below target/cuda)",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARATIONS: &str = "\
pub unsafe fn cuInit(Flags: u32) -> CUresult {
        extern \"C\" {
            fn cuInit(Flags: u32) -> CUresult;
        }
        cuInit(Flags)
            fn nvrtcGetErrorString(result: nvrtcResult) -> *const ::core::ffi::c_char;
            fn noResult();
";

    #[test]
    fn declarations_are_read_with_what_they_return() {
        let found = functions(DECLARATIONS).unwrap();
        let expected = [("cuInit", false), ("noResult", false), ("nvrtcGetErrorString", true)];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text)).into());
    }

    /// A program linked to stubs calls a library that is not there, one that is, and a function
    /// that the library does not have.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn a_program_linked_to_stubs_finds_the_library_when_it_calls_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.current_dir(path).args(arguments).env("LD_LIBRARY_PATH", path);
            command.output().ok()
        };
        if run("cc", &["--version"]).is_none() {
            eprintln!("skipped: no C compiler");
            return;
        }
        let library = Library {
            name: "demo",
            declarations: "",
            files: &["libaurora_demo.so.1"],
            absent: 34,
            lacking: 801,
        };
        let functions = ["demoSum", "demoNew"].map(|name| (name.to_owned(), false));
        let text = [("demoText".to_owned(), true)];
        let functions: BTreeMap<_, _> = functions.into_iter().chain(text).collect();
        archive(&library, &functions, path).unwrap();
        let main = "#include <stdio.h>\nint demoSum(int,int,int,int,int,int,int,double,float);\n\
             int demoNew(void);\nconst char *demoText(void);\n\
             int main(void) {\n  for (int i = 0; i < 2; i++)\n\
             printf(\"%d %d %s\\n\", demoSum(1,2,3,4,5,6,7,8.0,9.0f), demoNew(), demoText());\n}\n";
        fs::write(path.join("main.c"), main).unwrap();
        let real = "int demoSum(int a,int b,int c,int d,int e,int f,int g,double h,float i) {\n\
             return a+10*b+c+d+e+f+g+(int)h+(int)i;\n}\nconst char *demoText(void) { return \"text\"; }\n";
        fs::write(path.join("real.c"), real).unwrap();
        let linked = run("cc", &["main.c", "-L.", "-ldemo", "-o", "main"]).unwrap();
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        let said = || {
            let out = run("./main", &[]).unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let line = "34 34 the CUDA library is not there\n";
        assert_eq!(said(), line.repeat(2));
        let made = run("cc", &["-shared", "-fPIC", "real.c", "-o", "libaurora_demo.so.1"]).unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(said(), "63 801 text\n".repeat(2));
    }
}
