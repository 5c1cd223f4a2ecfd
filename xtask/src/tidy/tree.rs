//! Files of a checkout, read once and shared by every rule.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Maximum size of a text file, in bytes: larger files are data, whose names are kept and whose text is not.
const TEXT_LIMIT: u64 = 2 * 1024 * 1024;

/// File of a [`Tree`].
#[derive(Debug)]
pub struct SourceFile {
    /// Path relative to the root, with forward slashes.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Text, or `None` for a large or binary file.
    pub text: Option<String>,
}

/// Checkout: its root and its files in the order of their paths.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<SourceFile>,
}

impl Tree {
    /// Reads every file below `root` but version control's own, and those that a line `NAME/` or `*.SUFFIX` of the
    /// root's `.gitignore` leaves out.
    pub fn read(root: &Path) -> Result<Self> {
        let ignore = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let ignored: Vec<&str> = ignore.lines().map(str::trim).collect();
        let mut files = Vec::new();
        walk(root, "", &ignored, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root: root.to_owned(), files })
    }

    /// Every file.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Files whose text is known, with their paths.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
    }

    /// Rust sources, with their paths.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Markdown files that speak of today: dated documents keep the names of their time.
    pub fn current_markdown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".md") && !is_dated(path))
    }

    /// Text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts().find(|(other, _)| *other == path).map(|(_, text)| text)
    }

    /// True if `path` is a file, or a folder that holds one.
    pub fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self.files.iter().any(|file| {
                file.path
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    /// Path of a file on disk, for the rules that open data.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Manifests of the crates under `crates/`: folder, path of `Cargo.toml`, its text.
    pub fn crates(&self) -> impl Iterator<Item = Package<'_>> {
        self.packages().filter(|package| package.folder.starts_with("crates/"))
    }

    /// Manifests of every package of the workspace.
    pub fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.texts().filter_map(|(path, text)| {
            let folder = path.strip_suffix("/Cargo.toml")?;
            // A text that does not parse has stopped cargo already, long before this check.
            let manifest = text.parse::<toml::Table>().ok()?;
            Some(Package { folder, path, text, manifest })
        })
    }
}

/// Package of the workspace.
#[derive(Debug)]
pub struct Package<'a> {
    /// Folder, relative to the root.
    pub folder: &'a str,
    /// Path of its `Cargo.toml`.
    pub path: &'a str,
    /// Text of that file.
    pub text: &'a str,
    /// Parsed manifest.
    pub manifest: toml::Table,
}

impl Package<'_> {
    /// Name of the package, or of its folder where it has none.
    pub fn name(&self) -> &str {
        let named = self.manifest.get("package").and_then(|package| package.get("name")?.as_str());
        named.unwrap_or_else(|| self.folder.rsplit('/').next().unwrap_or(self.folder))
    }

    /// Dependencies of every kind, the ones for a single platform included: name as written, and requirement.
    pub fn dependencies(&self) -> Vec<(&str, &toml::Value)> {
        let mut tables = vec![&self.manifest];
        if let Some(targets) = self.manifest.get("target").and_then(toml::Value::as_table) {
            tables.extend(targets.values().filter_map(toml::Value::as_table));
        }
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let sections = tables
            .into_iter()
            .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
        sections.flatten().map(|(name, wanted)| (name.as_str(), wanted)).collect()
    }

    /// Line of the manifest that begins with `key`, counted from 1; 0 where there is none.
    pub fn line_of(&self, key: &str) -> usize {
        let starts = |line: &str| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with([' ', '.', '=', ']']))
        };
        self.text.lines().position(starts).map_or(0, |index| index + 1)
    }
}

fn walk(folder: &Path, prefix: &str, ignored: &[&str], files: &mut Vec<SourceFile>) -> Result<()> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if name != ".git" && !ignored.contains(&format!("{name}/").as_str()) {
                walk(&entry.path(), &path, ignored, files)?;
            }
        } else if kind.is_file() && !ignored.iter().any(|pattern| leaves_out(pattern, &name)) {
            let bytes = entry.metadata()?.len();
            let text = (bytes <= TEXT_LIMIT)
                .then(|| fs::read(entry.path()))
                .transpose()
                .with_context(|| format!("cannot read {path}"))?
                .filter(|bytes| !bytes.contains(&0))
                .and_then(|bytes| String::from_utf8(bytes).ok());
            files.push(SourceFile { path, bytes, text });
        }
    }
    Ok(())
}

/// True if a line of `.gitignore` leaves a file of this name out.
fn leaves_out(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => !suffix.is_empty() && name.ends_with(suffix),
        None => pattern == name,
    }
}

/// True for a document of the past, which keeps the names of its time.
pub fn is_dated(path: &str) -> bool {
    path.starts_with("docs/history/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_folders_and_binary_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["a/target/x.rs", ".git/config", "notes.tmp", "src/lib.rs", ".ci/run"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "text").unwrap();
        }
        fs::write(root.join("data.bin"), [1, 0, 2]).unwrap();
        fs::write(root.join(".gitignore"), "target/\n*.tmp\n").unwrap();
        let tree = Tree::read(root).unwrap();
        let paths: Vec<_> = tree.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", ".gitignore", "data.bin", "src/lib.rs"]);
        assert!(tree.text("data.bin").is_none() && tree.exists("data.bin"));
        assert!(tree.exists("src") && tree.exists("src/") && !tree.exists("sr"));
    }

    #[test]
    fn dependencies_of_every_kind_are_listed() {
        let text = "[package]\nname = \"p\"\n[dependencies]\na = \"1\"\n[dev-dependencies]\n\
        b = \"1\"\n[target.'cfg(unix)'.dependencies]\nc = \"1\"\n";
        let package = Package {
            folder: "crates/p",
            path: "crates/p/Cargo.toml",
            text,
            manifest: text.parse().unwrap(),
        };
        let names: Vec<_> = package.dependencies().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((package.name(), package.line_of("b"), package.line_of("zzz")), ("p", 6, 0));
    }
}
