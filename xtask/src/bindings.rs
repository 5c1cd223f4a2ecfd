//! `cargo xtask bindings`: kernel launch parameters in Rust and CUDA, generated from their header.
//!
//! `kernels/include/launch_params.h` is written by hand. From it bindgen makes the Rust structs with
//! assertions of their layout, and the sizes that it found go into `sizes.cuh`, where the device's
//! compiler checks them: host and device cannot drift apart. Both files are committed, so that an
//! ordinary build needs no libclang, and `--check` compares them with what would be made now.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::build_kernels::manifest::put;
use crate::pip;

/// Header of the launch parameters, below the root.
const HEADER: &str = "kernels/include/launch_params.h";
/// Generated Rust structs.
const PARAMS: &str = "crates/aurora-kernels/src/cuda/params.rs";
/// Generated size assertions for the device.
const SIZES: &str = "kernels/include/sizes.cuh";

/// Message of the device's compiler for a struct of another size.
const STALE: &str = "run cargo xtask bindings";

/// pip packages with bindgen's libclang, for machines without one.
const LIBCLANG: pip::Set = pip::Set {
    folder: "libclang-18",
    purpose: "libclang (it reads the header of the kernels' parameters)",
    instead: "Or install it (Debian, Ubuntu: apt-get install libclang-dev), or set LIBCLANG_PATH to \
        the folder that has it.",
    packages: &["libclang==18.1.1"],
};

/// Arguments of `cargo xtask bindings`.
#[derive(Debug, clap::Args)]
pub struct BindingsArgs {
    /// Write nothing, and fail where the committed files are not what would be written.
    #[arg(long, conflicts_with = "print")]
    pub check: bool,
    /// Write the Rust side to standard output instead.
    #[arg(long)]
    pub print: bool,
}

/// Writes, compares or prints the generated files.
///
/// # Errors
/// No libclang can be had, the header cannot be read, or, with `--check`, a file is out of date.
pub fn run(arguments: &BindingsArgs) -> Result<()> {
    let root = crate::workspace_root();
    if arguments.print {
        print!("{}", generated(&root)?);
        return Ok(());
    }
    if arguments.check {
        let drift = drift(&root)?;
        ensure!(drift.is_empty(), "{}", drift.join("\n"));
        println!("bindings: {PARAMS} and {SIZES} are what {HEADER} makes");
        return Ok(());
    }
    let params = generated(&root)?;
    let sizes = sizes(&params)?;
    for (path, text) in [(PARAMS, params), (SIZES, sizes)] {
        let file = root.join(path);
        let changed = fs::read_to_string(&file).map_or(true, |before| before != text);
        if changed {
            put(&file, text.as_bytes())?;
        }
        println!("{path}: {}", if changed { "written" } else { "as it was" });
    }
    Ok(())
}

/// Committed files that differ from the generated ones, each with the way out.
///
/// # Errors
/// No libclang can be had, or the header cannot be read.
pub fn drift(root: &Path) -> Result<Vec<String>> {
    let params = generated(root)?;
    let sizes = sizes(&params)?;
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let compared = [(PARAMS, params), (SIZES, sizes)].map(|(path, text)| {
        let line = first_difference(&read(path), &text)?;
        Some(format!(
            "{path} is not what {HEADER} makes, from line {line} on; run cargo xtask bindings and \
            commit it"
        ))
    });
    Ok(compared.into_iter().flatten().collect())
}

/// First line, counted from 1, where two texts differ.
fn first_difference(one: &str, other: &str) -> Option<usize> {
    let same = one.lines().zip(other.lines()).take_while(|(a, b)| a == b).count();
    (one != other).then_some(same + 1)
}

/// Generated Rust side.
fn generated(root: &Path) -> Result<String> {
    if clang_sys::is_loaded() || clang_sys::load().is_ok() {
        return made_by_bindgen(root);
    }
    ensure!(
        std::env::var_os("LIBCLANG_PATH").is_none(),
        "LIBCLANG_PATH is set and no libclang is there; correct it, or unset it to get {} from pip",
        LIBCLANG.packages.join(" ")
    );
    // The variable has to be there before the process starts, so another one does the work.
    let home = pip::installed(&LIBCLANG, &root.join("target/cuda"))?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["bindings", "--print"]).current_dir(root);
    again.env("LIBCLANG_PATH", home.join("clang/native")).stderr(Stdio::inherit());
    let done = again.output().context("cannot start this program again")?;
    ensure!(done.status.success(), "bindgen failed ({})", done.status);
    Ok(String::from_utf8(done.stdout)?)
}

fn made_by_bindgen(root: &Path) -> Result<String> {
    let header = root.join(HEADER);
    // Sizes are the same on every platform that CUDA knows; naming one keeps the machine out of it.
    let clang = ["-x", "c", "--target=x86_64-unknown-linux-gnu", "-fparse-all-comments"];
    let bindings = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .clang_args(clang)
        .use_core()
        .disable_header_comment()
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .with_context(|| format!("bindgen cannot read {HEADER}"))?;
    rustfmt(root, &finished(&bindings.to_string()))
}

/// Bindgen's output, under a heading and with plain types.
fn finished(bindings: &str) -> String {
    let mut text = format!(
        "//! Parameter structs of the kernels. @generated by `cargo xtask bindings` from\n\
        //! `{HEADER}`: change that and run it again.\n\n"
    );
    let plain = [
        ("::core::ffi::c_longlong", "i64"),
        ("::core::ffi::c_ulonglong", "u64"),
        ("::core::ffi::c_int", "i32"),
        ("::core::ffi::c_uint", "u32"),
        ("::core::ffi::c_ushort", "u16"),
        ("::core::ffi::c_uchar", "u8"),
    ];
    text +=
        &plain.iter().fold(bindings.to_owned(), |text, (long, short)| text.replace(long, short));
    text +=
        "\n// SAFETY: the structs have the layout of the header, as the assertions above show.\n";
    for name in structs(bindings) {
        text += &format!("unsafe impl super::Params for {name} {{}}\n");
    }
    text
}

/// Names of the structs in a Rust source.
fn structs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.strip_prefix("pub struct ")?;
        rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
    })
}

/// Generated device side: an assertion of the size of each struct, as libclang laid it out.
fn sizes(params: &str) -> Result<String> {
    let mut text = format!(
        "// The sizes of the parameter structs as the host lays them out, checked by the device's\n\
        // compiler. Made by `cargo xtask bindings` from {}: change that and run it again.\n\
        #pragma once\n\n#include \"launch_params.h\"\n\n",
        HEADER.rsplit('/').next().unwrap_or(HEADER)
    );
    for name in structs(params) {
        let size = size_of(params, name)
            .with_context(|| format!("bindgen asserts no size of {name}; is it a plain struct?"))?;
        text += &format!("static_assert(sizeof({name}) == {size}, \"{name}: {STALE}\");\n");
    }
    Ok(text)
}

/// Size that bindgen's assertion `["Size of NAME"][size_of::<NAME>() - 88usize]` gives.
fn size_of(params: &str, name: &str) -> Option<u64> {
    let (_, rest) = params.split_once(&format!("\"Size of {name}\""))?;
    let (_, rest) = rest.split_once("() - ")?;
    rest.split("usize").next()?.trim().parse().ok()
}

/// Formats Rust source with the settings of this workspace.
fn rustfmt(root: &Path, text: &str) -> Result<String> {
    let program = std::env::var_os("RUSTFMT").unwrap_or_else(|| "rustfmt".into());
    let mut command = Command::new(program);
    command.args(["--edition", "2024", "--config-path"]).arg(root.join("rustfmt.toml"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt; install it with: rustup component add rustfmt")?;
    // rustfmt reads all of it before it writes anything.
    child.stdin.take().context("rustfmt's input")?.write_all(text.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("rustfmt refuses what bindgen wrote ({})", done.status);
    }
    Ok(String::from_utf8(done.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = "/// Adds.\n#[repr(C)]\n#[derive(Debug, Copy, Clone)]\n\
        pub struct Add {\n    /// Both.\n    pub x: *const ::core::ffi::c_void,\n    \
        pub rows: ::core::ffi::c_longlong,\n}\nconst _: () = {\n    [\"Size of Add\"]\
        [::core::mem::size_of::<Add>() - 16usize];\n};\n";

    #[test]
    fn the_rust_side_has_plain_types_and_the_trait() {
        let text = finished(BINDINGS);
        assert!(text.starts_with("//! Parameter structs of the kernels. @generated by"), "{text}");
        assert!(text.contains("pub rows: i64,") && text.contains("*const ::core::ffi::c_void"));
        assert!(text.ends_with("unsafe impl super::Params for Add {}\n"), "{text}");
    }

    #[test]
    fn the_device_side_asserts_the_size_that_bindgen_found() {
        let text = sizes(BINDINGS).unwrap();
        assert!(text.contains("\nstatic_assert(sizeof(Add) == 16, \"Add: run"), "{text}");
        let error = sizes("pub struct Bare {\n}\n").unwrap_err().to_string();
        assert!(error.contains("no size of Bare"), "{error}");
    }

    #[test]
    fn drift_is_told_by_its_first_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }
}
