//! Reader of image folders with sidecar text files.
//!
//! A `.txt` (one caption a line) or `.json` beside an image holds its texts. A folder with such a
//! file beside it is a clip, and the images in it are its frames: `walk.txt` describes the frames
//! in `walk/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::media_type::{MediaType, SNIFF_BYTES, media_type};
use crate::on_error::SkipLog;
use crate::sample::{Media, Sample};
use crate::shard::{IMAGE_EXTENSIONS, with_words};
use crate::{ByteSource, Error, Result};

/// Captions required of the images in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Captions {
    /// Captions are read where a `.json` or `.txt` of the image's name lies beside it. For search.
    #[default]
    Optional,
    /// Every image needs a caption or question, and every `.json` and `.txt` an image. For
    /// training.
    Required,
}

/// Reads every PNG, JPEG and WebP image below `path`, in path order. A file counts by an image's
/// extension or magic bytes, and a video (GIF, APNG, animated WebP, MP4) where a sidecar file lies
/// beside it; everything else is ignored. Image bytes are read on demand.
///
/// # Errors
/// When the folder is missing or holds no image, and with [`Captions::Required`] when an image or a
/// caption is unpaired.
pub fn read(path: &Path, captions: Captions) -> Result<Vec<Sample>> {
    read_with(path, captions, &SkipLog::default())
}

/// Like [`read`], with an error policy: `skips` handles single broken images and texts.
///
/// # Errors
/// As [`read`], with a policy that stops.
pub fn read_with(path: &Path, captions: Captions, skips: &SkipLog) -> Result<Vec<Sample>> {
    let mut found = Vec::new();
    walk(path, &mut found)?;
    found.sort();
    let shard: Arc<str> = Arc::from(path.display().to_string());
    let mut out = Vec::new();
    let mut with_words = BTreeSet::new();
    let mut images = 0usize;
    for file in found.iter().filter(|file| !is_words(file)) {
        let made = media(file).and_then(|media| {
            let Some(media) = media else { return Ok(None) };
            images += 1;
            with_words.insert(words_name(file, ""));
            sample(&shard, path, file, media, captions).map(Some)
        });
        match made {
            Ok(sample) => out.extend(sample),
            Err(error) => skips.handle(file.display().to_string(), error)?,
        }
    }
    if captions == Captions::Required {
        let alone =
            |file: &&PathBuf| is_words(file) && !with_words.contains(&file.with_extension(""));
        for file in found.iter().filter(alone) {
            let key = file.strip_prefix(path).unwrap_or(file).with_extension("");
            let key = key.display().to_string();
            let error = Error::NoImage { shard: shard.to_string(), key };
            skips.handle(file.display().to_string(), error)?;
        }
    }
    if images == 0 {
        return Err(Error::EmptyFolder { path: path.to_path_buf() });
    }
    Ok(out)
}

/// Sample of an image or clip and its sidecar texts.
fn sample(
    shard: &Arc<str>,
    root: &Path,
    file: &Path,
    media: Media,
    captions: Captions,
) -> Result<Sample> {
    let relative = file.strip_prefix(root).unwrap_or(file);
    let key = if file.is_dir() { relative.to_path_buf() } else { relative.with_extension("") };
    let key = key.display().to_string();
    let (json, text) = (beside(file, "json")?, beside(file, "txt")?);
    let json_name = format!("{key}.json");
    let json = json.as_deref().map(|data| (json_name.as_str(), data));
    let sample = with_words(shard, key, media, json, text.as_deref())?;
    let words = !sample.captions.is_empty() || sample.question.is_some();
    if captions == Captions::Required && !words {
        return Err(Error::NoCaption { shard: shard.to_string(), key: sample.key });
    }
    Ok(sample)
}

/// Media of a file or of a clip's folder; `None` if it is neither an image nor a video.
fn media(path: &Path) -> Result<Option<Media>> {
    if path.is_dir() {
        return frames(path).map(Some);
    }
    let content = ByteSource::file(path)?;
    let named = extension(path).is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.as_str()));
    Ok(match media_type(&content.head(SNIFF_BYTES)?) {
        // A video without an image's extension counts only where a sidecar file describes it.
        Some(MediaType::Video) if named || has_words(path) => Some(Media::Video(content)),
        Some(MediaType::Image) => Some(Media::Image(content)),
        _ if named => Some(Media::Image(content)),
        _ => None,
    })
}

/// The images in a folder as the frames of a clip, in the order of the numbers in their names.
///
/// # Errors
/// When the folder cannot be read or holds no image.
pub fn frames(folder: &Path) -> Result<Media> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let named = extension(&path).is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.as_str()));
        if named && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::EmptyFolder { path: folder.to_path_buf() });
    }
    // Numeric, not lexical order: frame 10 comes after frame 9 with and without leading zeros.
    found.sort_by_cached_key(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number: Option<u64> = stem.get(digits..).and_then(|number| number.parse().ok());
        (stem.get(..digits).unwrap_or_default().to_string(), number, stem)
    });
    found.into_iter().map(ByteSource::file).collect::<Result<_>>().map(Media::Frames)
}

/// Collects every file and every clip folder below `folder`; hidden entries are ignored.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        // Links to files are followed. Links to folders are not: they may form a cycle.
        let link = path.is_symlink();
        if path.is_file() {
            found.push(path);
        } else if path.is_dir() && !link {
            if has_words(&path) {
                found.push(path);
            } else {
                walk(&path, found)?;
            }
        }
    }
    Ok(())
}

/// Entries of a folder, without hidden ones.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: folder.to_path_buf() },
        _ => Error::Read { path: folder.to_path_buf(), source },
    };
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            out.push(entry.path());
        }
    }
    Ok(out)
}

fn extension(path: &Path) -> Option<String> {
    path.extension().map(|e| e.to_string_lossy().to_lowercase())
}

fn is_words(path: &Path) -> bool {
    matches!(extension(path).as_deref(), Some("json" | "txt"))
}

/// Path of the sidecar file of an image or a clip's folder. A folder's name has no extension,
/// whatever dots it has.
fn words_name(path: &Path, extension: &str) -> PathBuf {
    match (path.is_dir(), path.file_name(), extension) {
        (true, Some(name), "") => path.with_file_name(name),
        (true, Some(name), extension) => {
            let mut name = name.to_os_string();
            name.push(".");
            name.push(extension);
            path.with_file_name(name)
        }
        _ => path.with_extension(extension),
    }
}

fn has_words(path: &Path) -> bool {
    ["txt", "json"].iter().any(|extension| words_name(path, extension).is_file())
}

/// Content of the sidecar file of an image, if it exists.
fn beside(image: &Path, extension: &str) -> Result<Option<Vec<u8>>> {
    let path = words_name(image, extension);
    if !path.is_file() {
        return Ok(None);
    }
    fs::read(&path).map(Some).map_err(|source| Error::Read { path, source })
}
