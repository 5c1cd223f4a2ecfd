//! Annotation formats: files of captions and questions about images and clips stored elsewhere.
//!
//! The six benchmarks are read in their published form, one module each, and a custom table
//! (`table`) in JSON, JSON lines, CSV or TSV. The format is detected by the first row, or given as
//! a [`Format`].

mod clips;
mod coco;
mod csv_quotes;
mod custom_table;
mod flickr30k;
mod image_lookup;
mod msrvtt_qa;
mod records;
pub mod vqa;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::on_error::SkipLog;
use crate::sample::SampleRecord;
use crate::source::ReadOptions;
use crate::{Error, Media, Result, Sample, Split};

use image_lookup::ImageLookup;
pub(crate) use records::AnnotationRecord;
#[cfg(feature = "parquet")]
pub(crate) use records::{NAMES, names};

/// Format of an annotation file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Detected by the first row.
    #[default]
    Auto,
    /// COCO in Karpathy's split.
    Coco,
    /// Flickr30K in Karpathy's split.
    Flickr30k,
    /// MSR-VTT.
    Msrvtt,
    /// DiDeMo.
    Didemo,
    /// VQAv2, with Visual Genome or without.
    Vqa,
    /// MSRVTT-QA, in either layout.
    MsrvttQa,
    /// Custom table.
    Table,
}

impl Format {
    /// Names of all formats in configurations.
    pub const NAMES: &'static [&'static str] =
        &["auto", "coco", "flickr30k", "msrvtt", "didemo", "vqa", "msrvtt_qa", "table"];

    /// Format of a file by its first row.
    fn of(row: &AnnotationRecord, images: &ImageLookup) -> Self {
        match row {
            AnnotationRecord { video_id: Some(_), question: Some(_), .. } => Self::MsrvttQa,
            AnnotationRecord { clip_name: Some(_), question: None, .. } => Self::Msrvtt,
            AnnotationRecord { image: Some(_), question: Some(_), .. } => Self::Vqa,
            AnnotationRecord { image: Some(image), image_id: Some(_), .. } => {
                let flat = || images.is_there(flickr30k::base_name(image));
                if !images.is_there(image) && flat() { Self::Flickr30k } else { Self::Coco }
            }
            AnnotationRecord { image: Some(image), caption: Some(_), split: None, .. }
                if !images.is_there(image) && images.is_there(flickr30k::base_name(image)) =>
            {
                Self::Flickr30k
            }
            _ => Self::Table,
        }
    }

    /// Entry of a row in this format.
    fn entry(self, row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
        match self {
            Self::Coco => coco::entry(row, images),
            Self::Flickr30k => flickr30k::entry(row, images),
            Self::Msrvtt | Self::Didemo => clips::entry(row, images),
            Self::Vqa => vqa::entry(row, images),
            Self::MsrvttQa => msrvtt_qa::entry(row, images),
            Self::Auto | Self::Table => custom_table::entry(row, images),
        }
    }
}

/// Parsed row.
struct Entry {
    /// Name of the image or clip.
    key: String,
    media: Media,
    record: SampleRecord,
    /// True if the rows of one image form one sample with several captions.
    together: bool,
}

/// Reads an annotation file. `skips` handles unusable rows and rows whose image is missing.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or not of its format, with the line; with a policy that
/// stops, the first unusable row.
pub fn read(path: &Path, options: &ReadOptions, skips: &SkipLog) -> Result<Vec<Sample>> {
    let rows = records::read(path, skips)?;
    let beside = || path.parent().unwrap_or(Path::new("")).to_path_buf();
    let roots = match options.image_roots.as_slice() {
        [] => vec![beside()],
        roots => roots.to_vec(),
    };
    let is_none = |root: &&PathBuf| !root.as_os_str().is_empty() && !root.is_dir();
    if let Some(root) = roots.iter().find(is_none) {
        let reason = format!("its images are to be in {}, which is no folder", root.display());
        return Err(Error::Annotations { file: path.to_path_buf(), line: None, reason });
    }
    let images = ImageLookup::new(roots);
    let Some(first) = rows.first() else {
        return Err(Error::Empty {
            what: path.display().to_string(),
            reason: "no row of it can be used".to_string(),
        });
    };
    let format = match options.format {
        Format::Auto => Format::of(&first.row, &images),
        given => given,
    };
    let shard: Arc<str> = path.display().to_string().into();
    let mut samples: Vec<Sample> = Vec::with_capacity(rows.len());
    let mut known: HashMap<(String, Option<Split>, Option<String>), usize> = HashMap::new();
    for records::PlacedRecord { place, row } in &rows {
        let made = format.entry(row, &images).and_then(|entry| {
            let (together, key) = (entry.together, entry.key.clone());
            let sample = entry.record.into_sample((&shard, entry.key), entry.media, "");
            if sample.captions.is_empty() && sample.question.is_none() {
                return Err(format!("nothing is said about {key}: no word is left of its caption"));
            }
            Ok((together, sample))
        });
        let (together, sample) = match made {
            Ok(made) => made,
            Err(reason) => {
                let place = place.clone();
                let what = format!("{}, {place}", path.display());
                skips.handle(what, Error::row(path, place, &reason))?;
                continue;
            }
        };
        if together {
            let name = (sample.key.clone(), sample.split, sample.concept.clone());
            if let Some(first) = known.get(&name).and_then(|&at| samples.get_mut(at)) {
                first.captions.extend(sample.captions);
                first.keywords.extend(sample.keywords);
                continue;
            }
            known.insert(name, samples.len());
        }
        samples.push(sample);
    }
    if samples.is_empty() {
        return Err(Error::Empty {
            what: path.display().to_string(),
            reason: "no row of it can be used".to_string(),
        });
    }
    Ok(samples)
}

/// Required field of a row; the error lists its accepted names.
fn required<'a, T>(field: &'a Option<T>, name: &str, format: &str) -> Result<&'a T, String> {
    field.as_ref().ok_or_else(|| {
        format!("it has no `{name}`, which {format} has in every row; see data.format")
    })
}

/// Paths joined for messages.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
