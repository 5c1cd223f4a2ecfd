//! Mutations: `kernels/emulator/mutations.toml`, and a copy of the sources with one bug.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::pack::fetch::files;

/// Content of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    mutation: Vec<Mutation>,
}

/// Mutation: a planted bug, and the tests that should catch it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// Description of the bug, in a few words.
    pub name: String,
    /// File below `kernels/`.
    pub file: String,
    /// Text to replace. It occurs once, or `occurrence` selects one.
    pub find: String,
    /// Occurrence to replace, counted from 1.
    pub occurrence: Option<usize>,
    /// Replacement text.
    pub replace: String,
    /// Test filter: part of the names of the tests to run, as `cargo test` takes it.
    pub test: String,
    /// Sources that these tests run. Default: `file` if that is a source, else all of them. Fewer sources compile
    /// faster.
    pub sources: Option<Vec<String>>,
}

/// Parses a list and checks it against the sources in `kernels`.
///
/// # Errors
/// An invalid list, two mutations of one name, or a text that does not occur once.
pub fn read(text: &str, kernels: &Path) -> Result<Vec<Mutation>> {
    let list: List = toml::from_str(text)?;
    let mut names = BTreeSet::new();
    for mutation in &list.mutation {
        let name = &mutation.name;
        ensure!(
            names.insert((name, &mutation.file)),
            "two mutations of {} are called {name:?}; rename one",
            mutation.file
        );
        ensure!(!mutation.test.is_empty(), "{name:?} has an empty test filter; name its tests");
        mutation.mutated(kernels)?;
        for source in mutation.sources.iter().flatten() {
            ensure!(
                kernels.join(source).is_file(),
                "{name:?}: there is no kernels/{source} in its `sources`; correct the path"
            );
        }
    }
    Ok(list.mutation)
}

impl Mutation {
    /// Text of the file with the bug in it.
    fn mutated(&self, kernels: &Path) -> Result<String> {
        let (name, path) = (&self.name, &self.file);
        let text = fs::read_to_string(kernels.join(path))
            .with_context(|| format!("{name:?}: cannot read kernels/{path}"))?;
        ensure!(!self.find.is_empty(), "{name:?}: `find` is empty");
        ensure!(self.find != self.replace, "{name:?} replaces a text by itself");
        let places: Vec<usize> = text.match_indices(&self.find).map(|(place, _)| place).collect();
        let place = match (self.occurrence, places.as_slice()) {
            (_, []) => bail!(
                "{name:?}: kernels/{path} has no {:?} any more; say what it looks like now",
                self.find
            ),
            (None, [place]) => *place,
            (None, several) => bail!(
                "{name:?}: kernels/{path} has {:?} {} times; take more of its surroundings, or say \
                which with `occurrence`",
                self.find,
                several.len()
            ),
            (Some(number), places) => match number.checked_sub(1).and_then(|at| places.get(at)) {
                Some(place) => *place,
                None => bail!(
                    "{name:?}: kernels/{path} has {:?} {} times and no occurrence {number}; they \
                    are counted from 1",
                    self.find,
                    places.len()
                ),
            },
        };
        Ok(text[..place].to_owned() + &self.replace + &text[place + self.find.len()..])
    }

    /// Sources that its tests need, or `None` for all.
    pub fn needed(&self) -> Option<Vec<String>> {
        let own = || self.file.ends_with(".cu").then(|| vec![self.file.clone()]);
        self.sources.clone().or_else(own)
    }

    /// Writes the bug into a copy of `kernels`.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn plant(&self, kernels: &Path, copy: &Path) -> Result<()> {
        let text = self.mutated(kernels)?;
        let file = copy.join(&self.file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Copies the headers, the emulator and the sources `needed`, or all of them.
///
/// # Errors
/// A file that cannot be copied.
pub fn copy(kernels: &Path, needed: Option<&[String]>, to: &Path) -> Result<()> {
    for file in files(kernels)? {
        let inside = file.strip_prefix(kernels)?;
        let is_source = inside.extension().is_some_and(|ending| ending == "cu");
        let wanted = |needed: &[String]| needed.iter().any(|path| Path::new(path) == inside);
        if is_source && !needed.is_none_or(wanted) {
            continue;
        }
        let place = to.join(inside);
        fs::create_dir_all(place.parent().context("a file in a folder")?)?;
        fs::copy(&file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("norm/k.cu", "a = i + 1;\nb = i + 1;\nc = 2;\n"),
            ("loss/l.cu", "d = 3;\n"),
            ("include/h.cuh", "e = 4;\n"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn entry(find: &str, more: &str) -> String {
        format!(
            "[[mutation]]\nname = \"tail\"\nfile = \"norm/k.cu\"\nfind = \"{find}\"\n\
            replace = \"c = 1\"\ntest = \"k\"\n{more}"
        )
    }

    #[test]
    fn a_bug_is_planted_where_it_is_meant() {
        let (kernels, to) = (kernels(), tempfile::tempdir().unwrap());
        let one = &read(&entry("c = 2", ""), kernels.path()).unwrap()[0];
        copy(kernels.path(), one.needed().as_deref(), to.path()).unwrap();
        one.plant(kernels.path(), to.path()).unwrap();
        let text = fs::read_to_string(to.path().join("norm/k.cu")).unwrap();
        assert_eq!(text, "a = i + 1;\nb = i + 1;\nc = 1;\n");
        assert!(to.path().join("include/h.cuh").exists());
        assert!(!to.path().join("loss/l.cu").exists(), "its tests do not run it");
        let second = &read(&entry("i + 1", "occurrence = 2"), kernels.path()).unwrap()[0];
        assert_eq!(second.mutated(kernels.path()).unwrap(), "a = i + 1;\nb = c = 1;\nc = 2;\n");
    }

    #[test]
    fn a_bug_in_a_header_needs_every_source_unless_it_says_which() {
        let kernels = kernels();
        let header = entry("e = 4", "").replace("norm/k.cu", "include/h.cuh");
        assert_eq!(read(&header, kernels.path()).unwrap()[0].needed(), None);
        let less = header + "sources = [\"loss/l.cu\"]\n";
        let needed = read(&less, kernels.path()).unwrap()[0].needed();
        assert_eq!(needed.unwrap(), ["loss/l.cu"]);
    }

    #[test]
    fn a_bad_list_says_what_is_wrong() {
        let kernels = kernels();
        let twice = entry("c = 2", "") + &entry("c = 2", "");
        for (text, words) in [
            (entry("i + 1", ""), "2 times; take more of its surroundings"),
            (entry("i + 1", "occurrence = 3"), "no occurrence 3"),
            (entry("i + 1", "occurrence = 0"), "no occurrence 0"),
            (entry("gone", ""), "has no \"gone\" any more"),
            (entry("", ""), "`find` is empty"),
            (entry("c = 2", "").replace("c = 1", "c = 2"), "by itself"),
            (twice, "two mutations of norm/k.cu are called \"tail\""),
            (entry("c = 2", "tests = 1"), "unknown field `tests`"),
            (entry("c = 2", "sources = [\"x.cu\"]"), "no kernels/x.cu"),
            (entry("c = 2", "").replace("test = \"k\"", ""), "missing field `test`"),
            (entry("c = 2", "").replace("test = \"k\"", "test = \"\""), "empty test filter"),
            (entry("c = 2", "").replace("norm/k.cu", "norm/x.cu"), "cannot read kernels/norm/x.cu"),
        ] {
            let found = read(&text, kernels.path());
            let error = format!("{:#}", found.expect_err(words));
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
