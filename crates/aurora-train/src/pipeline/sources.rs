//! Dataset sources: from `[data]` to datasets.

use aurora_data::{Captions, Dataset, Decode, Sample, SkipLog, Split, embedded, source};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{DataSection, Keywords, OneOrMany};
use crate::error::Result;

/// Largest compressed size in bytes of a set that is decoded when it is opened.
const DECODE_AT_LOAD: u64 = 64 << 20;

/// Training, validation and test set of a tuning run.
#[derive(Debug, Clone)]
pub struct DataSplits {
    /// Training pairs.
    pub train: Dataset,
    /// Validation pairs, which select the best state.
    pub validation: Dataset,
    /// Test pairs, for the final report.
    pub test: Dataset,
    /// Policy and log of skipped samples.
    pub skips: Arc<SkipLog>,
}

impl DataSplits {
    /// Opens the datasets of a configuration.
    ///
    /// # Errors
    /// A file that is missing or cut, an image that does not decode or has no caption, an empty folder: each names it.
    pub fn open(section: &DataSection) -> Result<Self> {
        let skips = Arc::new(section.skips());
        let open = |names, split| open(names, split, &section.reading(), &skips);
        let train = open(&section.train, Split::Train)?;
        let validation = open(&section.validation, Split::Validation)?;
        let test = open(&section.test, Split::Test)?;
        Ok(Self { train, validation, test, skips })
    }
}

/// Opens a dataset by its name: an embedded set's split, or files, of which the samples marked with that split are
/// taken if any sample is marked at all. `skips` decides about single broken images and rows.
///
/// # Errors
/// As [`DataSplits::open`].
pub fn open(
    names: &OneOrMany,
    split: Split,
    reading: &source::ReadOptions,
    skips: &SkipLog,
) -> Result<Dataset> {
    let mut samples = match names.as_slice() {
        [name] if name == "noto" => embedded::noto()?,
        [name] if name == "openclipart" => embedded::openclipart()?,
        paths => read(paths, reading, skips)?,
    };
    if samples.iter().any(|sample| sample.split.is_some()) {
        samples.retain(|sample| sample.split == Some(split));
    }
    if samples.is_empty() {
        let reason = format!("no sample is marked with split {split:?}");
        return Err(aurora_data::Error::Empty { what: names.as_slice().join(", "), reason }.into());
    }
    let bytes: u64 = samples.iter().map(|sample| sample.media.len()).sum();
    // Decoded at once, a broken image is an error now and not after an hour of training.
    let decode = if bytes <= DECODE_AT_LOAD { Decode::AtLoad } else { Decode::OnUse };
    Ok(Dataset::new_with(samples, decode, skips)?)
}

fn read(paths: &[String], reading: &source::ReadOptions, skips: &SkipLog) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for path in paths.iter().map(Path::new) {
        samples.extend(source::read(path, reading, skips)?);
    }
    Ok(samples)
}

impl DataSection {
    /// Read options of the section's files.
    pub fn reading(&self) -> source::ReadOptions {
        source::ReadOptions {
            image_roots: self.image_root.iter().map(PathBuf::from).collect(),
            format: self.format,
            captions: Captions::Required,
        }
    }

    /// Skip log with the section's policy, still empty.
    pub fn skips(&self) -> SkipLog {
        SkipLog::new(self.on_error, self.max_skipped)
    }
}

impl From<Keywords> for aurora_data::Keywords {
    fn from(keywords: Keywords) -> Self {
        match keywords {
            Keywords::Never => Self::Never,
            Keywords::Sample => Self::Sample,
            Keywords::All => Self::All,
        }
    }
}
