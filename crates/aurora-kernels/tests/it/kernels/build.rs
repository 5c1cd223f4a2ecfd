//! Compilation of the kernels and the emulator for the CPU, once per state of the sources.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiler options: besides the warnings, every access to memory is reported to the emulator's runtime, as are array
/// indices, alignment and overflow.
const INSTRUMENTED: &[&str] = &[
    "-DAURORA_EMULATOR",
    "-fsanitize=thread",
    "-fsanitize=bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
    "-Wno-unknown-pragmas",
];
const COMMON: &[&str] =
    &["-std=c++17", "-O1", "-g1", "-fPIC", "-Wall", "-Werror", "-ffp-contract=off"];

/// Folder of the kernels.
pub fn sources() -> PathBuf {
    match std::env::var_os("AURORA_KERNELS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels"),
    }
}

/// C++ compiler that answers, if any.
pub fn compiler() -> Option<String> {
    let set = std::env::var("CXX").ok().into_iter();
    set.chain(["g++", "c++", "clang++"].map(str::to_owned)).find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    })
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .extension()
            .is_some_and(|e| ["cu", "cuh", "h", "cpp"].iter().any(|x| e == *x))
        {
            found.push(path);
        }
    }
}

/// Shared library of all kernels, compiled if there is none of these sources yet.
pub fn library(compiler: &str) -> PathBuf {
    let folder = sources();
    let mut all = Vec::new();
    files(&folder, &mut all);
    all.sort();
    let mut hash = DefaultHasher::new();
    (compiler, INSTRUMENTED, COMMON).hash(&mut hash);
    for path in &all {
        (path.strip_prefix(&folder).unwrap(), std::fs::read(path).unwrap()).hash(&mut hash);
    }
    let target = match std::env::var_os("AURORA_EMULATOR_CACHE") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator"),
    };
    let library = target.join(format!("kernels-{:016x}.so", hash.finish()));
    if library.exists() {
        return library;
    }
    std::fs::create_dir_all(&target).unwrap();
    let scratch = tempfile::tempdir_in(&target).unwrap();
    let mut objects = Vec::new();
    let mut running = Vec::new();
    for path in &all {
        let kernel = path.extension().is_some_and(|e| e == "cu");
        if !kernel && path.extension().is_none_or(|e| e != "cpp") {
            continue;
        }
        let object = scratch.path().join(format!("{}.o", objects.len()));
        let mut command = Command::new(compiler);
        command.args(COMMON).arg("-I").arg(folder.join("emulator"));
        if kernel {
            command.arg("-I").arg(folder.join("include")).args(INSTRUMENTED).args(["-x", "c++"]);
        }
        command.arg("-c").arg(path).arg("-o").arg(&object);
        running.push((path, command.stderr(std::process::Stdio::piped()).spawn().unwrap()));
        objects.push(object);
    }
    for (path, child) in running {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} does not compile:\n{errors}", path.display());
    }
    let linked = scratch.path().join("kernels.so");
    let mut command = Command::new(compiler);
    command.args(["-shared", "-Wl,-z,defs", "-o"]).arg(&linked).args(&objects);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Tests run in one process each under some runners: the first one puts it in place.
    std::fs::rename(&linked, &library).unwrap();
    library
}
