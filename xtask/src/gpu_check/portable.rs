//! Portability of a program: the C library it needs, and none of our paths.

use std::path::{Path, PathBuf};

/// Program and its place in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Path that cargo built it at.
    pub(super) built: PathBuf,
    /// Place in the folder.
    pub(super) place: PathBuf,
}

/// Path prefixes that mean something on this machine only.
pub(super) fn private_paths(root: &Path) -> Vec<Vec<u8>> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| home.map(|home| home.join(".cargo")));
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let mut paths: Vec<Vec<u8>> = [Some(root.to_owned()), cargo, target]
        .into_iter()
        .flatten()
        // A shorter prefix might be part of something else.
        .filter(|path| path.is_absolute() && path.components().count() > 2)
        .map(|path| path.as_os_str().as_encoded_bytes().to_vec())
        .collect();
    // The longer ones first: one may be below another.
    paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
    paths
}

/// Overwrites those paths in a program with dots of the same length. They stand in panic messages and in defaults that
/// `run.sh` sets otherwise.
pub(super) fn overwrite(program: &mut [u8], paths: &[Vec<u8>]) {
    for path in paths {
        let mut at = 0;
        while let Some(found) = find(&program[at..], path) {
            program[at + found..at + found + path.len()].fill(b'.');
            at += found + path.len();
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|&byte| byte == first) {
        at += next;
        if text[at..].starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Newest version of glibc that a program requires: the largest of the symbol versions it names.
pub(super) fn glibc(program: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_2.";
    let mut newest = 0;
    let mut at = 0;
    while let Some(found) = find(&program[at..], MARK) {
        at += found + MARK.len();
        let digits = program[at..].iter().take_while(|byte| byte.is_ascii_digit()).take(3);
        let minor = digits.fold(0, |number, byte| number * 10 + u32::from(byte - b'0'));
        newest = newest.max(minor);
    }
    (2, newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_overwritten_in_place() {
        let mut program = b"\0/a/b/c/x.rs\0 /a/b /a/b".to_vec();
        overwrite(&mut program, &[b"/a/b/c".to_vec(), b"/a/b".to_vec()]);
        assert_eq!(program, b"\0....../x.rs\0 .... ....");
    }

    #[test]
    fn the_newest_glibc_counts() {
        assert_eq!(glibc(b"GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE"), (2, 34));
        assert_eq!(glibc(b"nothing"), (2, 0));
    }

    #[test]
    fn paths_of_this_machine_are_absolute_and_long() {
        let paths = private_paths(Path::new("/somewhere/tree"));
        assert!(paths.contains(&b"/somewhere/tree".to_vec()));
        assert!(paths.iter().all(|path| path.starts_with(b"/") && path.len() > 3));
        assert!(!private_paths(Path::new("/tree")).contains(&b"/tree".to_vec()));
    }
}
