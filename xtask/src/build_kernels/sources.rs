//! Kernel sources: discovery, architectures and hashes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::pack::fetch::{files, hex};

/// File name ending of a source for Hopper alone.
const HOPPER: &str = "_sm90.cu";

/// Kernel source, compiled to one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path below `kernels/`, with forward slashes.
    pub path: String,
    /// Module name: the path without its extension, `/` as `_`.
    pub module: String,
    /// Architectures, as in `90a`, each once, in the order of their numbers.
    pub architectures: Vec<String>,
    /// SHA-256 of every file in `kernels/include` in the order of their names and then of the
    /// source, each as: path below `kernels/`, a zero byte, the bytes, a zero byte.
    pub sha256: String,
}

/// Every `.cu` below `kernels`, but for the emulator's own, in the order of their paths. Sources that none of
/// `architectures` apply to are left out.
///
/// # Errors
/// A file that cannot be read, or two sources whose modules would have one name.
pub fn find(kernels: &Path, architectures: &[String]) -> Result<Vec<Source>> {
    let include = kernels.join("include");
    let headers = if include.is_dir() { files(&include)? } else { Vec::new() };
    let mut shared = Sha256::new();
    for header in &headers {
        absorb(&mut shared, kernels, header)?;
    }
    let mut sources: Vec<Source> = Vec::new();
    for file in files(kernels)? {
        let path = relative(kernels, &file);
        if !path.ends_with(".cu") || path.starts_with("emulator/") {
            continue;
        }
        let architectures = architectures_of(&path, architectures);
        let module = path.trim_end_matches(".cu").replace('/', "_");
        if let Some(other) = sources.iter().find(|other| other.module == module) {
            bail!("{} and {path} would both be the module {module}; rename one", other.path);
        }
        let mut hash = shared.clone();
        absorb(&mut hash, kernels, &file)?;
        if !architectures.is_empty() {
            sources.push(Source { path, module, architectures, sha256: hex(&hash.finalize()) });
        }
    }
    Ok(sources)
}

/// Adds one file to a hash.
fn absorb(hash: &mut Sha256, kernels: &Path, file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    hash.update(relative(kernels, file));
    hash.update([0]);
    hash.update(bytes);
    hash.update([0]);
    Ok(())
}

fn relative(kernels: &Path, file: &Path) -> String {
    let inside: PathBuf = file.strip_prefix(kernels).unwrap_or(file).to_owned();
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// Architectures of `wanted` that apply to a source.
fn architectures_of(path: &str, wanted: &[String]) -> Vec<String> {
    let fits = |one: &&String| !path.ends_with(HOPPER) || one.as_str() == "90a";
    wanted.iter().filter(fits).cloned().collect()
}

/// Parses a list such as `80,90a`: each once, in the order of their numbers.
///
/// # Errors
/// Something that is no compute capability, or one below 80.
pub fn architectures(list: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in list.split(',').map(str::trim) {
        let number = name.trim_end_matches(['a', 'f']);
        let parsed = number.parse::<u32>().ok().filter(|_| name.len() <= number.len() + 1);
        let Some(number) = parsed else {
            bail!("--arch {list}: {name:?} is no architecture; write them as in --arch 80,90a");
        };
        ensure!(
            number >= 80,
            "--arch {list}: the kernels use asynchronous copies and bf16, which need 80 or later"
        );
        found.push((number, name.to_owned()));
    }
    found.sort();
    found.dedup();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in entries {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_source_is_a_module_and_one_for_hopper_is_compiled_for_it_alone() {
        let folder = tree(&[
            ("norm/layer_norm.cu", "a"),
            ("attention/gated_sm90.cu", "b"),
            ("emulator/shim.cu", "c"),
            ("include/aurora.cuh", "d"),
        ]);
        let found = find(folder.path(), &names(&["80", "90a"])).unwrap();
        let shown: Vec<_> =
            found.iter().map(|one| (one.module.as_str(), one.architectures.join(" "))).collect();
        assert_eq!(
            shown,
            [("attention_gated_sm90", "90a".to_owned()), ("norm_layer_norm", "80 90a".to_owned())]
        );
        let without = find(folder.path(), &names(&["80"])).unwrap();
        assert_eq!(without.len(), 1, "{without:?}");
    }

    #[test]
    fn the_hash_is_of_the_source_and_of_every_header() {
        let hashes = |entries: &[(&str, &str)]| {
            let found = find(tree(entries).path(), &names(&["80"])).unwrap();
            found.into_iter().map(|one| one.sha256).collect::<Vec<_>>()
        };
        let before = hashes(&[("a.cu", "1"), ("b.cu", "2"), ("include/h.cuh", "3")]);
        let source = hashes(&[("a.cu", "1"), ("b.cu", "4"), ("include/h.cuh", "3")]);
        let header = hashes(&[("a.cu", "1"), ("b.cu", "2"), ("include/h.cuh", "4")]);
        assert_eq!(before[0], source[0]);
        assert_ne!(before[1], source[1]);
        assert!(before[0] != header[0] && before[1] != header[1]);
    }

    #[test]
    fn two_sources_may_not_make_one_module() {
        let folder = tree(&[("a/b_c.cu", ""), ("a_b/c.cu", "")]);
        let error = find(folder.path(), &names(&["80"])).unwrap_err().to_string();
        assert!(error.contains("both be the module a_b_c"), "{error}");
    }

    #[test]
    fn architectures_are_read_in_their_order() {
        assert_eq!(architectures("90a, 80,90a").unwrap(), ["80", "90a"]);
        assert_eq!(architectures("120,100a").unwrap(), ["100a", "120"]);
        for (bad, word) in
            [("", "no architecture"), ("sm_80", "no architecture"), ("90aa", "no"), ("75", "80 or")]
        {
            let error = architectures(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
