//! A folder of pictures, such as a person has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::picture::sniff;
use crate::sample::Sample;
use crate::shard::{PICTURES, with_words};
use crate::{Error, Result};

/// Whether the pictures of a folder need words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Captions {
    /// Words are taken where a `.json` or `.txt` of the picture's name lies beside it. For
    /// searching.
    #[default]
    Optional,
    /// Every picture has words, and every `.json` and `.txt` a picture. For training.
    Required,
}

/// Reads every PNG, JPEG and WebP picture below `path`, in the order of their paths. A file with a
/// picture's extension or a picture's first bytes counts as one; everything else is left alone.
///
/// # Errors
/// When the folder is not there or holds no picture, and with [`Captions::Required`] when a
/// picture or a caption is alone.
pub fn read(path: &Path, captions: Captions) -> Result<Vec<Sample>> {
    let mut files = Vec::new();
    walk(path, &mut files)?;
    files.sort();
    let shard: Arc<str> = Arc::from(path.display().to_string());
    let mut out = Vec::new();
    let mut pictured = BTreeSet::new();
    for file in &files {
        let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
        let named = extension.as_deref().is_some_and(|e| PICTURES.contains(&e));
        let words = matches!(extension.as_deref(), Some("json" | "txt"));
        if words {
            continue;
        }
        let data = load(file)?;
        if !named && sniff(&data).is_none() {
            continue;
        }
        let relative = file.strip_prefix(path).unwrap_or(file);
        let key = relative.with_extension("").display().to_string();
        let json = beside(file, "json")?;
        let text = beside(file, "txt")?;
        let json_name = format!("{key}.json");
        let json = json.as_deref().map(|data| (json_name.as_str(), data));
        pictured.insert(file.with_extension(""));
        let sample = with_words(&shard, key, data, json, text.as_deref())?;
        if captions == Captions::Required && sample.captions.is_empty() {
            return Err(Error::NoCaption { shard: shard.to_string(), key: sample.key });
        }
        out.push(sample);
    }
    if captions == Captions::Required {
        let alone = files.iter().find(|file| {
            file.extension().is_some_and(|e| e == "json" || e == "txt")
                && !pictured.contains(&file.with_extension(""))
        });
        if let Some(file) = alone {
            let key = file.strip_prefix(path).unwrap_or(file).with_extension("");
            let key = key.display().to_string();
            return Err(Error::NoPicture { shard: shard.to_string(), key });
        }
    }
    if out.is_empty() {
        return Err(Error::EmptyFolder { path: path.to_path_buf() });
    }
    Ok(out)
}

/// Every file below `folder`; hidden files and folders are left out.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: folder.to_path_buf() },
        _ => Error::Read { path: folder.to_path_buf(), source },
    };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        // Links to files are followed, links to folders are not: they may lead in a circle.
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

/// The file of the same name with another extension, if it is there.
fn beside(picture: &Path, extension: &str) -> Result<Option<Vec<u8>>> {
    let path = picture.with_extension(extension);
    if path.is_file() { load(&path).map(Some) } else { Ok(None) }
}
