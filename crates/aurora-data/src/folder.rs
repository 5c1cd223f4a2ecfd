//! A folder of images, such as a person has it.
//!
//! Words stand in a `.txt` (one caption a line) or `.json` beside each image. A folder with such
//! a file beside it is a clip, and the images in it are its frames: `walk.txt` says what the
//! frames in `walk/` show.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::media_type::{MediaType, SNIFF_BYTES, media_type};
use crate::on_error::SkipLog;
use crate::sample::{Media, Sample};
use crate::shard::{IMAGE_EXTENSIONS, with_words};
use crate::{ByteSource, Error, Result};

/// Whether the images of a folder need words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Captions {
    /// Words are taken where a `.json` or `.txt` of the image's name lies beside it. For
    /// searching.
    #[default]
    Optional,
    /// Every image has words, and every `.json` and `.txt` an image. For training.
    Required,
}

/// Reads every PNG, JPEG and WebP image below `path`, in the order of their paths. A file with an
/// image's extension or an image's first bytes counts as one, and a video (GIF, APNG, animated
/// WebP, MP4) where there are words beside it; everything else is left alone. The images
/// themselves are read when they are asked for.
///
/// # Errors
/// When the folder is not there or holds no image, and with [`Captions::Required`] when an
/// image or a caption is alone.
pub fn read(path: &Path, captions: Captions) -> Result<Vec<Sample>> {
    read_with(path, captions, &SkipLog::default())
}

/// The same; what is wrong with single images and words, `skips` decides about.
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

/// An image or clip with the words beside it.
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

/// What a file or a clip's folder shows; none if it is neither image nor video.
fn media(path: &Path) -> Result<Option<Media>> {
    if path.is_dir() {
        return frames(path).map(Some);
    }
    let content = ByteSource::file(path)?;
    let named = extension(path).is_some_and(|e| IMAGE_EXTENSIONS.contains(&e.as_str()));
    Ok(match media_type(&content.head(SNIFF_BYTES)?) {
        // A video without an image's name counts where somebody has said something about it.
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
    // By number, not by letter: frame 10 comes after frame 9 with and without leading zeros.
    found.sort_by_cached_key(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number: Option<u64> = stem.get(digits..).and_then(|number| number.parse().ok());
        (stem.get(..digits).unwrap_or_default().to_string(), number, stem)
    });
    found.into_iter().map(ByteSource::file).collect::<Result<_>>().map(Media::Frames)
}

/// Every file below `folder`, and every folder in it that is a clip; what is hidden is left out.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        // Links to files are followed, links to folders are not: they may lead in a circle.
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

/// What lies in a folder, without what is hidden.
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

/// The name of the words beside an image or a clip's folder. A folder's name has no extension,
/// whatever dots are in it.
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

/// The words beside an image, if they are there.
fn beside(image: &Path, extension: &str) -> Result<Option<Vec<u8>>> {
    let path = words_name(image, extension);
    if !path.is_file() {
        return Ok(None);
    }
    fs::read(&path).map(Some).map_err(|source| Error::Read { path, source })
}
