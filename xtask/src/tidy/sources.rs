//! Rules on sources, Rust and CUDA: opening comments, prints, unsafe code, length.

use super::rust_source::{code_only, line_at, test_modules, words};
use super::{Finding, Tree};

/// Maximum lines of a file; a file longer than [`LONG`] is mentioned.
const TOO_LONG: usize = 600;
const LONG: usize = 400;

/// Every Rust file opens with `//!`, so that whoever opens it learns what it is for.
pub fn modules_say_what_they_are(tree: &Tree) -> Vec<Finding> {
    let undocumented = tree.rust().filter(|(_, text)| {
        let opening =
            text.lines().map(str::trim).find(|line| !line.is_empty() && !is_inner_attribute(line));
        let documentation = opening.and_then(|line| line.strip_prefix("//!"));
        !(documentation.is_some_and(|words| !words.trim().is_empty()) || includes_readme(text))
    });
    let message = "the file does not open with module documentation; say in a line `//! ...` at \
    its top what it is for";
    undocumented.map(|(path, _)| Finding::error("module-docs", path, 1, message)).collect()
}

/// File extensions of C++ and CUDA sources.
const CUDA: [&str; 4] = [".cu", ".cuh", ".h", ".cpp"];

/// Sources of the kernels and of what runs them on the CPU, with their paths.
fn cuda(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.texts().filter(|(path, _)| CUDA.iter().any(|ending| path.ends_with(ending)))
}

/// Every CUDA and C++ file opens with a comment: a kernel's contract, or what a header is for.
pub fn kernels_open_with_their_contract(tree: &Tree) -> Vec<Finding> {
    let bare = cuda(tree).filter(|(_, text)| !text.starts_with("// ") && !text.starts_with("/* "));
    let message = "the file does not open with a comment; say what it is for, and of a kernel its \
    contract: shapes, layout, types, who owns what";
    bare.map(|(path, _)| Finding::error("module-docs", path, 1, message)).collect()
}

/// True for `#![...]`, which may stand before the documentation.
fn is_inner_attribute(line: &str) -> bool {
    line.starts_with("#![") && !line.starts_with("#![doc")
}

/// True for a crate whose documentation is its README.
fn includes_readme(text: &str) -> bool {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("#![doc = include_str!"))
}

/// True where printing is the job: the program's output, the chores, and code that somebody runs by hand.
fn may_print(path: &str) -> bool {
    let output_module = ["crates/aurora-cli/src/output.rs", "crates/aurora-cli/src/output/"];
    path.starts_with("xtask/")
        || output_module.iter().any(|module| path.starts_with(module))
        || path.rsplit('/').next() == Some("build.rs")
        || path.split('/').any(|folder| matches!(folder, "examples" | "tests" | "benches"))
}

/// Libraries return, the program prints, and its text leaves through one module.
///
/// The program may hold the streams elsewhere too: a progress bar needs the handle itself.
pub fn only_the_program_prints(tree: &Tree) -> Vec<Finding> {
    let macros = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let handles = ["io::stdout", "io::stderr"];
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !may_print(path)) {
        let code = code_only(text);
        let tests = test_modules(&code);
        let handles = if path.starts_with("crates/aurora-cli/") { &handles[..0] } else { &handles };
        for call in macros.iter().chain(handles) {
            let calls =
                words(&code, call).filter(|offset| !tests.iter().any(|test| test.contains(offset)));
            findings.extend(calls.map(|offset| {
                let message = format!(
                    "`{call}` outside the program's output module; return the text, or write it \
                     from crates/aurora-cli/src/output.rs"
                );
                Finding::error("stray-print", path, line_at(&code, offset), message)
            }));
        }
    }
    findings
}

/// Folders whose soundness is argued by hand: the kernels' crate, and the benches that launch its kernels as they are.
const UNSAFE: [&str; 2] = ["crates/aurora-kernels/", "benches/src/gpu/"];

/// Unsafe code, whose soundness is argued by hand, stands in one crate, behind functions that are safe.
pub fn unsafe_code_stays_in_the_kernels(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let elsewhere = |path: &str| !UNSAFE.iter().any(|folder| path.starts_with(folder));
    for (path, text) in tree.rust().filter(|(path, _)| elsewhere(path)) {
        let code = code_only(text);
        let uses = words(&code, "unsafe").filter(|offset| {
            let after = code[offset + "unsafe".len()..].chars().next();
            !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        });
        let message = "`unsafe` outside aurora-kernels; move the code there behind a safe function";
        findings.extend(
            uses.map(|offset| Finding::error("unsafe", path, line_at(&code, offset), message)),
        );
    }
    findings
}

/// Every file can be read in one sitting. Generated ones are not read.
pub fn files_stay_short(tree: &Tree) -> Vec<Finding> {
    let generated = |text: &str| text.lines().take(3).any(|line| line.contains("@generated"));
    let written = tree.rust().chain(cuda(tree)).filter(|(_, text)| !generated(text));
    let long = written.filter_map(|(path, text)| {
        let lines = text.lines().count();
        let message = |bound: usize| {
            format!(
                "{lines} lines, over {bound}; move what has a name of its own to a file of that \
                name"
            )
        };
        if lines > TOO_LONG {
            Some(Finding::error("file-length", path, TOO_LONG + 1, message(TOO_LONG)))
        } else if lines > LONG {
            Some(Finding::warning("file-length", path, LONG + 1, message(LONG)))
        } else {
            None
        }
    });
    long.collect()
}
