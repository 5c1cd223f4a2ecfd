//! Tar shards in the WebDataset layout: files that share a key are one sample.
//!
//! `000123.webp` (or `.png`, `.jpg`, `.jpeg`) is the picture, `000123.json` or `000123.txt` its
//! words: JSON with `caption` or `captions` and, if there are, `keywords`, `concept`, `split` and
//! `source`; text with one caption a line. Order does not matter, other files are left alone, and
//! the archive may be gzipped. A shard is checked whole before anything of it is used: an entry
//! that is cut, an archive without its end, a picture without words and words without a picture
//! are errors that name the place.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::caption::{PICTURE_WORDS, clean};
use crate::sample::{Record, Sample};
use crate::{Error, Result};

/// Extensions that mark a picture in a shard; which format it is, its content says.
pub(crate) const PICTURES: &[&str] = &["webp", "png", "jpg", "jpeg"];

/// Size of a tar block in bytes.
const BLOCK: usize = 512;

/// Reads a shard from disk.
///
/// # Errors
/// See [`Error`]: missing, truncated, not a tar, a picture or a caption alone, a bad record.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => Error::Read { path: path.to_path_buf(), source },
    })?;
    parse(&path.display().to_string(), &bytes)
}

/// Reads a shard from memory; `name` is for messages.
///
/// # Errors
/// As [`read`], without those of the disk.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Sample>> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut tar = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut tar).map_err(|e| Error::Truncated {
            shard: name.to_string(),
            place: format!("after {} unpacked bytes", tar.len()),
            reason: format!("the compressed stream is damaged or cut ({e})"),
        })?;
        samples(name, files(name, &tar)?)
    } else {
        samples(name, files(name, bytes)?)
    }
}

/// A file of the archive.
struct File<'a> {
    path: String,
    data: &'a [u8],
}

/// Walks the archive. Names longer than a header holds come as GNU or pax entries before it.
fn files<'a>(shard: &str, tar: &'a [u8]) -> Result<Vec<File<'a>>> {
    let truncated = |place: String, reason: &str| Error::Truncated {
        shard: shard.to_string(),
        place,
        reason: reason.to_string(),
    };
    let mut found: Vec<File<'a>> = Vec::new();
    let mut long_name: Option<String> = None;
    let mut at = 0;
    loop {
        let place = || match found.last() {
            Some(file) => format!("after {}", file.path),
            None => "at its beginning".to_string(),
        };
        let Some(block) = tar.get(at..at + BLOCK) else {
            return Err(truncated(place(), "no end of archive (two empty blocks) follows"));
        };
        if block.iter().all(|&b| b == 0) {
            return Ok(found);
        }
        let header = tar::Header::from_byte_slice(block);
        let bad = |reason: String| Error::NotTar { shard: shard.to_string(), reason };
        let stated = header.cksum().map_err(|e| bad(format!("{e}, {}", place())))?;
        let mut sum = 0u32;
        for (i, &byte) in block.iter().enumerate() {
            // The checksum counts its own field as spaces.
            sum += if (148..156).contains(&i) { u32::from(b' ') } else { u32::from(byte) };
        }
        if sum != stated {
            let reason =
                format!("the header {} has a checksum of {sum} instead of {stated}", place());
            return Err(bad(reason));
        }
        let size = header.entry_size().map_err(|e| bad(format!("{e}, {}", place())))?;
        let path = long_name
            .take()
            .unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
        let start = at + BLOCK;
        let data = usize::try_from(size)
            .ok()
            .and_then(|size| tar.get(start..start.checked_add(size)?))
            .ok_or_else(|| {
                let there = tar.len().saturating_sub(start);
                truncated(format!("in {path}"), &format!("{there} of its {size} bytes are there"))
            })?;
        match header.entry_type() {
            tar::EntryType::GNULongName => {
                let text = String::from_utf8_lossy(data);
                long_name = Some(text.trim_end_matches('\0').to_string());
            }
            tar::EntryType::XHeader => long_name = pax_path(data),
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                found.push(File { path, data });
            }
            // Folders, links and global headers hold nothing of a sample.
            _ => {}
        }
        at = start + data.len().div_ceil(BLOCK) * BLOCK;
    }
}

/// The `path` of a pax header: records "length key=value\n".
fn pax_path(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    text.lines().find_map(|line| Some(line.split_once(" path=")?.1.to_string()))
}

/// What was found under one key.
#[derive(Default)]
struct Parts<'a> {
    picture: Option<&'a [u8]>,
    json: Option<File<'a>>,
    text: Option<&'a [u8]>,
}

/// Brings the files of each key together, in the order of the keys.
fn samples(shard: &str, files: Vec<File<'_>>) -> Result<Vec<Sample>> {
    let mut parts: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    for file in files {
        let name_at = file.path.rfind('/').map_or(0, |i| i + 1);
        let (folder, name) = file.path.split_at(name_at);
        // Files that macOS puts beside every other begin with a dot.
        let Some((stem, extension)) = name.split_once('.').filter(|(stem, _)| !stem.is_empty())
        else {
            continue;
        };
        let key = format!("{folder}{stem}");
        match extension.to_lowercase().as_str() {
            "json" => parts.entry(key).or_default().json = Some(file),
            "txt" => parts.entry(key).or_default().text = Some(file.data),
            e if PICTURES.contains(&e) => {
                let part = parts.entry(key.clone()).or_default();
                if part.picture.replace(file.data).is_some() {
                    return Err(Error::Duplicate { shard: shard.to_string(), key });
                }
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        return Err(Error::EmptyShard { shard: shard.to_string() });
    }
    let name: Arc<str> = Arc::from(shard);
    let mut out = Vec::with_capacity(parts.len());
    for (key, part) in parts {
        let Some(picture) = part.picture else {
            return Err(Error::NoPicture { shard: shard.to_string(), key });
        };
        let json = part.json.as_ref().map(|file| (file.path.as_str(), file.data));
        let sample = with_words(&name, key, picture.to_vec(), json, part.text)?;
        if sample.captions.is_empty() {
            return Err(Error::NoCaption { shard: shard.to_string(), key: sample.key });
        }
        out.push(sample);
    }
    Ok(out)
}

/// A sample from a picture and the words beside it.
pub(crate) fn with_words(
    shard: &Arc<str>,
    key: String,
    picture: Vec<u8>,
    json: Option<(&str, &[u8])>,
    text: Option<&[u8]>,
) -> Result<Sample> {
    let record = match json {
        None => Record::default(),
        Some((file, data)) => Record::parse(data).map_err(|reason| Error::Record {
            shard: shard.to_string(),
            file: file.to_string(),
            reason,
        })?,
    };
    let text = match text {
        None => "",
        Some(data) => std::str::from_utf8(data).map_err(|e| Error::Record {
            shard: shard.to_string(),
            file: format!("{key}.txt"),
            reason: e.to_string(),
        })?,
    };
    let lines = record.captions().map(String::as_str).chain(text.lines());
    let captions: Vec<String> =
        lines.map(|c| clean(c, PICTURE_WORDS)).filter(|c| !c.is_empty()).collect();
    let keywords = record.keywords.iter().map(|k| clean(k, PICTURE_WORDS));
    Ok(Sample {
        shard: Arc::clone(shard),
        key,
        picture,
        captions,
        keywords: keywords.filter(|k| !k.is_empty()).collect(),
        concept: record.concept,
        split: record.split,
        source: record.source,
    })
}
