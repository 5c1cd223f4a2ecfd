//! Tar shards in the WebDataset layout: files that share a key form one sample.
//!
//! `000123.webp` (or `.png`, `.jpg`, `.jpeg`) is the image, `000123.json` or `000123.txt` its
//! texts: JSON with `caption` or `captions` and optional `keywords`, `question` with `question_id`,
//! `answers` and `answer_type`, `concept`, `split` and `source`; text with one caption a line. A
//! clip is a video (`000123.gif`, `.mp4`, an animated WebP or PNG) or its frames: `000123.000.jpg`,
//! `000123.001.jpg`, in numeric order. The order of files does not matter, unknown files are
//! ignored, and the archive may be gzipped. A shard is validated as a whole before use: a truncated
//! entry, an archive without its end, an image without texts and texts without an image are errors
//! that name the place.
//!
//! Of an uncompressed shard only headers and texts are read at first. Images are read on demand, so
//! a shard may be larger than memory.

mod gzip;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::byte_source::{ByteSource, SharedFile};
use crate::error::{printable, quoting};
use crate::media_type::{MediaType, SNIFF_BYTES, media_type};
use crate::on_error::SkipLog;
use crate::sample::{Media, Sample, SampleRecord};
use crate::{Error, Result};

/// Image file extensions in a shard. The format is detected by content.
pub(crate) const IMAGE_EXTENSIONS: &[&str] = &["webp", "png", "jpg", "jpeg"];

/// Video file extensions.
pub(crate) const VIDEO_EXTENSIONS: &[&str] =
    &["gif", "apng", "mp4", "mov", "m4v", "webm", "mkv", "avi"];

/// Size of a tar block in bytes.
const BLOCK: u64 = 512;

/// Byte limit of texts beside an image, and of a long name stored as its own entry.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Reads a shard from disk.
///
/// # Errors
/// See [`Error`]: missing, truncated, not a tar, an image or a caption alone, a bad record.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    read_with(path, &SkipLog::default())
}

/// Like [`read`], with an error policy: `skips` handles single broken images and texts. A truncated
/// shard is an error under any policy.
///
/// # Errors
/// As [`read`], with a policy that stops.
pub fn read_with(path: &Path, skips: &SkipLog) -> Result<Vec<Sample>> {
    let file = SharedFile::new(path)?;
    let name = path.display().to_string();
    let start = file.read_at(0, file.len().min(2))?;
    if start.starts_with(&gzip::START) {
        let bytes = ByteSource::file(path)?;
        return parse_with(&name, &bytes.bytes()?, skips);
    }
    let archive = TarBytes::File(Arc::new(file));
    samples(&name, &archive, files(&name, &archive)?, skips)
}

/// Parses a shard in memory; `name` is used in messages.
///
/// # Errors
/// As [`read`], without I/O errors.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Sample>> {
    parse_with(name, bytes, &SkipLog::default())
}

fn parse_with(name: &str, bytes: &[u8], skips: &SkipLog) -> Result<Vec<Sample>> {
    let archive = if bytes.starts_with(&gzip::START) {
        TarBytes::Memory(Cow::Owned(gzip::unpacked(name, bytes)?))
    } else {
        TarBytes::Memory(Cow::Borrowed(bytes))
    };
    samples(name, &archive, files(name, &archive)?, skips)
}

/// Bytes of a tar archive: in memory, or a file.
enum TarBytes<'a> {
    Memory(Cow<'a, [u8]>),
    File(Arc<SharedFile>),
}

impl TarBytes<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len(),
        }
    }

    /// Bytes of a range; `None` past the end of the archive.
    fn get(&self, (offset, len): Range) -> Result<Option<Cow<'_, [u8]>>> {
        match self {
            Self::Memory(bytes) => Ok(slice(bytes, (offset, len)).map(Cow::Borrowed)),
            Self::File(file) if offset.saturating_add(len) > file.len() => Ok(None),
            Self::File(file) => file.read_at(offset, len).map(|bytes| Some(Cow::Owned(bytes))),
        }
    }

    /// Byte source of a range, lazy where possible.
    fn content(&self, (offset, len): Range) -> ByteSource {
        match self {
            Self::Memory(bytes) => {
                ByteSource::Memory(slice(bytes, (offset, len)).unwrap_or_default().into())
            }
            Self::File(file) => ByteSource::Part { file: Arc::clone(file), offset, len },
        }
    }
}

/// Byte range: offset and length.
type Range = (u64, u64);

fn slice(bytes: &[u8], (offset, len): Range) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

/// Archive member.
struct File {
    path: String,
    range: Range,
}

/// Walks the archive. Long names come as GNU or pax entries before the member.
fn files(shard: &str, tar: &TarBytes<'_>) -> Result<Vec<File>> {
    let truncated = |place: String, reason: &str| Error::Truncated {
        shard: shard.to_string(),
        place,
        reason: reason.to_string(),
    };
    let mut found: Vec<File> = Vec::new();
    let mut long_name: Option<String> = None;
    let mut at = 0;
    loop {
        let place = || match found.last() {
            Some(file) => format!("after {}", file.path),
            None => "at its beginning".to_string(),
        };
        let Some(block) = tar.get((at, BLOCK))? else {
            return Err(truncated(place(), "no end of archive (two empty blocks) follows"));
        };
        if block.iter().all(|&b| b == 0) {
            return Ok(found);
        }
        let header = tar::Header::from_byte_slice(&block);
        let bad = |reason: String| Error::NotTar { shard: shard.to_string(), reason };
        let no_number = |of: &str| {
            bad(format!("the header {} has no {of} in octal digits where one belongs", place()))
        };
        let stated = header.cksum().map_err(|_| no_number("checksum"))?;
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
        let size = header.entry_size().map_err(|_| no_number("size"))?;
        let path = long_name
            .take()
            .unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
        let path = printable(&path).into_owned();
        let start = at + BLOCK;
        if start.checked_add(size).is_none_or(|end| end > tar.len()) {
            let there = tar.len().saturating_sub(start);
            let reason = format!("{there} of its {size} bytes are there");
            return Err(truncated(format!("in {path}"), &reason));
        }
        match header.entry_type() {
            tar::EntryType::GNULongName => {
                let data = words(shard, &path, tar, (start, size))?;
                let text = String::from_utf8_lossy(&data);
                long_name = Some(text.trim_end_matches('\0').to_string());
            }
            tar::EntryType::XHeader => {
                long_name = pax_path(&words(shard, &path, tar, (start, size))?);
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                found.push(File { path, range: (start, size) });
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let reason =
                    "it is a link; a shard holds the files themselves (tar -h)".to_string();
                return Err(Error::Record { shard: shard.to_string(), file: path, reason });
            }
            // Folders and global headers carry no sample data.
            _ => {}
        }
        at = size.div_ceil(BLOCK).saturating_mul(BLOCK).saturating_add(start);
    }
}

/// Bytes of an entry that is read whole: texts, or a name.
fn words<'a>(
    shard: &str,
    path: &str,
    tar: &'a TarBytes<'_>,
    range: Range,
) -> Result<Cow<'a, [u8]>> {
    let refuse =
        |reason: String| Error::Record { shard: shard.to_string(), file: path.to_string(), reason };
    if range.1 > MAX_TEXT_BYTES {
        let most = MAX_TEXT_BYTES >> 20;
        return Err(refuse(format!("it has {} bytes, more than {most} MiB of words", range.1)));
    }
    tar.get(range)?.ok_or_else(|| refuse("it is cut".to_string()))
}

/// The `path` of a pax header: records "length key=value\n".
fn pax_path(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    text.lines().find_map(|line| Some(line.split_once(" path=")?.1.to_string()))
}

/// Members found under one key.
#[derive(Default)]
struct SampleParts {
    image: Option<ByteSource>,
    video: Option<ByteSource>,
    frames: BTreeMap<u64, ByteSource>,
    json: Option<File>,
    text: Option<File>,
}

impl SampleParts {
    /// All media of the key; exactly one is valid.
    fn all_media(&mut self) -> Vec<Media> {
        let frames: Vec<ByteSource> = std::mem::take(&mut self.frames).into_values().collect();
        let frames = (!frames.is_empty()).then_some(Media::Frames(frames));
        let image = self.image.take().map(Media::Image);
        image.into_iter().chain(self.video.take().map(Media::Video)).chain(frames).collect()
    }
}

/// Groups the members by key, in key order.
fn samples(
    shard: &str,
    tar: &TarBytes<'_>,
    files: Vec<File>,
    skips: &SkipLog,
) -> Result<Vec<Sample>> {
    let mut parts: BTreeMap<String, SampleParts> = BTreeMap::new();
    let mut left_out: BTreeSet<String> = BTreeSet::new();
    for file in files {
        if let Err(error) = stays_inside(shard, &file.path) {
            skips.handle(format!("{shard}: {}", file.path), error)?;
            continue;
        }
        let name_at = file.path.rfind('/').map_or(0, |i| i + 1);
        let (folder, name) = file.path.split_at(name_at);
        // Files that macOS adds beside every other begin with a dot.
        let Some((stem, extension)) = name.split_once('.').filter(|(stem, _)| !stem.is_empty())
        else {
            continue;
        };
        let key = format!("{folder}{stem}");
        let extension = extension.to_lowercase();
        if let Err(error) = put(shard, tar, &mut parts, (&key, &extension), file) {
            skips.handle(format!("{shard}: {key}"), error)?;
            // Ambiguous key: all its files are skipped, a third one too.
            left_out.insert(key);
        }
    }
    if parts.is_empty() {
        return Err(Error::EmptyShard { shard: shard.to_string() });
    }
    let name: Arc<str> = Arc::from(shard);
    let mut out = Vec::with_capacity(parts.len());
    for (key, part) in parts.into_iter().filter(|(key, _)| !left_out.contains(key)) {
        match sample(&name, tar, key.clone(), part) {
            Ok(sample) => out.push(sample),
            Err(error) => skips.handle(format!("{shard}: {key}"), error)?,
        }
    }
    Ok(out)
}

/// Adds a member to the others of its key.
fn put(
    shard: &str,
    tar: &TarBytes<'_>,
    parts: &mut BTreeMap<String, SampleParts>,
    (key, extension): (&str, &str),
    file: File,
) -> Result<()> {
    let frame = frame_number(extension);
    let known = |extensions: &[&str]| extensions.contains(&extension);
    if frame.is_none()
        && !known(&["json", "txt"])
        && !known(IMAGE_EXTENSIONS)
        && !known(VIDEO_EXTENSIONS)
    {
        return Ok(());
    }
    let part = parts.entry(key.to_string()).or_default();
    let content = tar.content(file.range);
    let twice = match (extension, frame) {
        ("json", _) => part.json.replace(file).is_some(),
        ("txt", _) => part.text.replace(file).is_some(),
        (_, Some(number)) => part.frames.insert(number, content).is_some(),
        (e, None) => {
            // A WebP or PNG may be animated; its magic bytes tell.
            let moves = matches!(e, "webp" | "png")
                && media_type(&content.head(SNIFF_BYTES)?) == Some(MediaType::Video);
            let video = moves || known(VIDEO_EXTENSIONS);
            let place = if video { &mut part.video } else { &mut part.image };
            place.replace(content).is_some()
        }
    };
    if twice {
        return Err(Error::Duplicate { shard: shard.to_string(), key: key.to_string() });
    }
    Ok(())
}

/// Errors if a member name is absolute or climbs out of its folder. Nothing is unpacked here, but a
/// name is a key, and unpacking the shard elsewhere must be safe.
fn stays_inside(shard: &str, path: &str) -> Result<()> {
    let climbs = path.split(['/', '\\']).any(|part| part == "..");
    let absolute = path.starts_with(['/', '\\']) || path.get(1..3) == Some(":\\");
    if !climbs && !absolute {
        return Ok(());
    }
    let why = if climbs { "leads out of its folder" } else { "is absolute" };
    Err(Error::Record {
        shard: shard.to_string(),
        file: path.to_string(),
        reason: format!("its name {why}; names in a shard are relative"),
    })
}

/// Sample of the members of one key.
fn sample(
    shard: &Arc<str>,
    tar: &TarBytes<'_>,
    key: String,
    mut part: SampleParts,
) -> Result<Sample> {
    let mut all_media = part.all_media();
    let media = match (all_media.pop(), all_media.is_empty()) {
        (Some(media), true) => media,
        (Some(_), false) => return Err(Error::Duplicate { shard: shard.to_string(), key }),
        (None, _) => return Err(Error::NoImage { shard: shard.to_string(), key }),
    };
    let read = |file: &Option<File>| match file {
        Some(file) => words(shard, &file.path, tar, file.range).map(Some),
        None => Ok(None),
    };
    let (json, text) = (read(&part.json)?, read(&part.text)?);
    let json_name = part.json.as_ref().map_or("", |file| file.path.as_str());
    let json = json.as_deref().map(|data| (json_name, data));
    let sample = with_words(shard, key, media, json, text.as_deref())?;
    if sample.captions.is_empty() && sample.question.is_none() {
        return Err(Error::NoCaption { shard: shard.to_string(), key: sample.key });
    }
    Ok(sample)
}

/// Frame number of a member's extension: `012.jpg` is frame 12.
fn frame_number(extension: &str) -> Option<u64> {
    let (number, format) = extension.split_once('.')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (digits && IMAGE_EXTENSIONS.contains(&format)).then(|| number.parse().ok())?
}

/// Sample of media and the texts beside them.
pub(crate) fn with_words(
    shard: &Arc<str>,
    key: String,
    media: Media,
    json: Option<(&str, &[u8])>,
    text: Option<&[u8]>,
) -> Result<Sample> {
    let record = match json {
        None => SampleRecord::default(),
        Some((file, data)) => SampleRecord::parse(data).map_err(|reason| Error::Record {
            shard: shard.to_string(),
            file: file.to_string(),
            reason: quoting(&reason),
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
    Ok(record.into_sample((shard, key), media, text))
}
