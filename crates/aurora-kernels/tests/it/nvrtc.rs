//! NVRTC compiles every source. Where there is no NVRTC the tests say so and pass, unless `AURORA_NVRTC=required`.

#![allow(clippy::print_stderr, reason = "the tests say what they skip")]

use std::fs;

use aurora_kernels::cuda::compile::Compiler;
use aurora_kernels::cuda::source::{Module, modules};
use rayon::prelude::*;

/// NVRTC where there is one; `AURORA_NVRTC=required` makes its absence an error.
fn compiler() -> Option<Compiler> {
    match Compiler::find() {
        Ok(compiler) => Some(compiler),
        Err(reason) => {
            let required = std::env::var("AURORA_NVRTC").is_ok_and(|value| value == "required");
            assert!(!required, "AURORA_NVRTC=required: {reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn broken() -> Module {
    Module { path: "norm/broken.cu", text: "#include \"no.h\"\n", hash: "0", fatbin: None }
}

#[test]
fn every_embedded_source_compiles() {
    let Some(compiler) = compiler() else { return };
    // The largest take minutes each: all at once, and for Hopper only what is written for it.
    modules().par_iter().for_each(|module| {
        let capability = if module.for_hopper() { (9, 0) } else { (8, 0) };
        let architecture = compiler.architecture(capability).unwrap();
        let (code, kept) = compiler.module(module, &architecture, None).unwrap();
        assert!(!kept && code.starts_with(b"\x7fELF"), "{} {architecture}", module.path);
    });
}

/// A module that compiles quickly.
fn small() -> &'static Module {
    modules().iter().find(|module| module.path == "norm/layer_norm.cu").unwrap()
}

#[test]
fn a_source_compiles_for_every_generation() {
    let Some(compiler) = compiler() else { return };
    for capability in [(8, 9), (9, 0), (10, 0)] {
        let architecture = compiler.architecture(capability).unwrap();
        assert!(!compiler.module(small(), &architecture, None).unwrap().0.is_empty());
    }
}

#[test]
fn what_was_compiled_is_kept_and_what_is_damaged_is_compiled_again() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("new/kernels");
    let run = || compiler.module(small(), "sm_80", Some(&cache)).unwrap();
    let (code, kept) = run();
    assert!(!kept);
    assert_eq!(run(), (code.clone(), true));
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let whole = fs::read(file).unwrap();
    for damaged in [&[][..], &whole[..16], &whole[..whole.len() - 1], &[&whole[..], &[0]].concat()]
    {
        fs::write(file, damaged).unwrap();
        assert_eq!(run(), (code.clone(), false), "{} bytes", damaged.len());
        assert_eq!(fs::read(file).unwrap(), whole);
    }
}

#[test]
fn what_the_compiler_says_is_in_the_error() {
    let Some(compiler) = compiler() else { return };
    let message = compiler.module(&broken(), "sm_80", None).unwrap_err().to_string();
    for part in ["norm_broken", "sm_80", "no.h"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_architecture_is_one_that_the_compiler_knows() {
    let Some(compiler) = compiler() else { return };
    assert_eq!(compiler.architecture((8, 6)).as_deref(), Some("sm_86"));
    assert_eq!(compiler.architecture((9, 0)).as_deref(), Some("sm_90a"));
    assert_eq!(compiler.architecture((99, 0)), None);
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let Some(compiler) = compiler() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let (code, kept) = compiler.module(small(), "sm_80", Some(file.path())).unwrap();
    assert!(!kept && !code.is_empty());
}
