//! Image scan of a data check: every file is read, hashed and decoded once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::MIN_SIDE;
use super::report::{Bin, Duplicates, Sizes, SmallImage, find_duplicates};
use crate::digest::hexadecimal;
use crate::on_error::Skipped;
use crate::video::clip;
use crate::{ByteSource, Image, Media, Sample};

/// Bin edges of the histogram of shorter sides.
const BORDERS: [usize; 8] = [0, MIN_SIDE, 64, 128, 224, 384, 768, 1536];

/// Results of the image scan.
pub(super) struct ImageScan {
    pub images: usize,
    pub clips: usize,
    pub frames: usize,
    pub problems: Vec<Skipped>,
    pub tiny: Vec<SmallImage>,
    pub same: Duplicates,
    pub sizes: Sizes,
}

/// Scanned file or byte range.
struct ScannedImage {
    hash: String,
    /// Width and height in pixels.
    size: (usize, usize),
}

/// Identity of a byte source, compared without reading it.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Key<'a> {
    Memory(*const u8),
    File(&'a Path),
    Part(&'a Path, u64),
    Packed(&'a Path, u64),
}

impl<'a> Key<'a> {
    fn of(content: &'a ByteSource) -> Self {
        match content {
            ByteSource::Memory(data) => Self::Memory(Arc::as_ptr(data).cast()),
            ByteSource::File { path, .. } => Self::File(path),
            ByteSource::Part { file, offset, .. } => Self::Part(file.path(), *offset),
            ByteSource::Packed { archive, index, .. } => Self::Packed(archive.path(), *index),
        }
    }
}

/// Scans every byte source of the samples, each once.
pub(super) fn scan_images(
    samples: &[Sample],
    parts: &[String],
    progress: &(dyn Fn(&str, u64, u64) + Sync),
) -> ImageScan {
    let mut numbers: HashMap<Key<'_>, usize> = HashMap::new();
    let mut contents: Vec<(&ByteSource, &Sample)> = Vec::new();
    let mut all_media: HashMap<Vec<usize>, &Sample> = HashMap::new();
    let mut of_sample = Vec::with_capacity(samples.len());
    for sample in samples {
        let ids: Vec<usize> = sample
            .media
            .contents()
            .iter()
            .map(|content| {
                *numbers.entry(Key::of(content)).or_insert_with(|| {
                    contents.push((content, sample));
                    contents.len() - 1
                })
            })
            .collect();
        all_media.entry(ids.clone()).or_insert(sample);
        of_sample.push(ids);
    }
    let (done, total) = (AtomicU64::new(0), contents.len() as u64);
    // Threads take the next item, not a contiguous share: neighbors in a file are read at about the
    // same time.
    let mut scanned: Vec<(usize, Result<ScannedImage, Skipped>)> = contents
        .iter()
        .enumerate()
        .par_bridge()
        .map(|(id, (content, sample))| {
            let image = scan_image(content, sample);
            progress("looking at images", done.fetch_add(1, Ordering::Relaxed) + 1, total);
            (id, image)
        })
        .collect();
    scanned.sort_by_key(|(id, _)| *id);
    let scanned: Vec<Result<ScannedImage, Skipped>> =
        scanned.into_iter().map(|(_, image)| image).collect();
    let hash = |ids: &[usize]| {
        let hashes: Option<Vec<&str>> =
            ids.iter().map(|&id| Some(scanned.get(id)?.as_ref().ok()?.hash.as_str())).collect();
        match hashes?.as_slice() {
            [] => None,
            [one] => Some((*one).to_string()),
            several => Some(hexadecimal(&Sha256::digest(several.concat()))),
        }
    };
    let owners = of_sample.iter().zip(parts).filter_map(|(ids, part)| {
        let first = all_media.get(ids)?;
        Some((hash(ids)?, part.as_str(), name(first)))
    });
    let same = find_duplicates(owners);
    let mut tiny: Vec<SmallImage> = scanned
        .iter()
        .zip(&contents)
        .filter_map(|(image, (content, sample))| {
            let (width, height) = image.as_ref().ok()?.size;
            let small = width.min(height) < MIN_SIDE;
            small.then(|| SmallImage { what: place(content, sample), width, height })
        })
        .collect();
    tiny.sort();
    let sizes = sizes(scanned.iter().filter_map(|image| Some(image.as_ref().ok()?.size)));
    let clips = all_media.values().filter(|sample| sample.media.is_clip());
    let frames = clips.clone().map(|sample| match &sample.media {
        Media::Frames(frames) => frames.len(),
        _ => 0,
    });
    ImageScan {
        images: all_media.values().filter(|sample| !sample.media.is_clip()).count(),
        clips: clips.count(),
        frames: frames.sum(),
        problems: scanned.into_iter().filter_map(Result::err).collect(),
        tiny,
        same,
        sizes,
    }
}

/// Reads, hashes and decodes one byte source.
fn scan_image(content: &ByteSource, sample: &Sample) -> Result<ScannedImage, Skipped> {
    let broken = |reason: String| Skipped { what: place(content, sample), reason };
    let bytes = content.bytes().map_err(|e| broken(e.to_string()))?;
    if bytes.is_empty() {
        return Err(broken("it is empty".to_string()));
    }
    let hash = hexadecimal(&Sha256::digest(&bytes));
    // The first frame of a video tells whether this build can decode it.
    let image = match &sample.media {
        video @ Media::Video(_) => clip::first(video),
        _ => Image::decode(&bytes).map_err(String::from),
    };
    let image = image.map_err(broken)?;
    Ok(ScannedImage { hash, size: (image.width(), image.height()) })
}

/// Name of a sample in lists.
fn name(sample: &Sample) -> String {
    format!("{}: {}", sample.shard, sample.key)
}

/// Location of a byte source.
fn place(content: &ByteSource, sample: &Sample) -> String {
    match content {
        ByteSource::File { path, .. } => path.display().to_string(),
        _ => name(sample),
    }
}

fn sizes(found: impl Iterator<Item = (usize, usize)>) -> Sizes {
    let mut counts = [0usize; BORDERS.len()];
    let (mut smallest, mut largest) = (usize::MAX, 0);
    for (width, height) in found {
        let shorter = width.min(height);
        smallest = smallest.min(shorter);
        largest = largest.max(width.max(height));
        let column = BORDERS.partition_point(|&border| border <= shorter).saturating_sub(1);
        if let Some(count) = counts.get_mut(column) {
            *count += 1;
        }
    }
    if largest == 0 {
        return Sizes::default();
    }
    let columns = BORDERS.iter().zip(BORDERS.iter().skip(1).map(Some).chain([None])).zip(counts);
    let bin = |((&from, to), count): ((&usize, Option<&usize>), usize)| Bin {
        from,
        to: to.copied(),
        count,
    };
    Sizes { shorter_side: columns.map(bin).collect(), smallest, largest }
}
