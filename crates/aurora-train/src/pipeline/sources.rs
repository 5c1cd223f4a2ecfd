//! From a configuration's words for data to datasets.

use aurora_data::{Captions, Dataset, Decode, Sample, Split, embedded, folder, shard};
use std::path::Path;

use crate::config::{DataSection, Keywords, OneOrMany};
use crate::error::Result;

/// Compressed bytes up to which a set is decoded when it is opened.
const DECODE_AT_LOAD: u64 = 64 << 20;

/// The three sets of a tuning.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// Pairs to learn from.
    pub train: Dataset,
    /// Pairs that choose the checkpoint.
    pub validation: Dataset,
    /// Pairs that are looked at once.
    pub test: Dataset,
}

impl Pictures {
    /// Open what a configuration names.
    ///
    /// # Errors
    /// A file that is missing or cut, a picture that does not decode or has no caption, an empty folder: each names it.
    pub fn open(section: &DataSection) -> Result<Self> {
        Ok(Self {
            train: open(&section.train, Split::Train)?,
            validation: open(&section.validation, Split::Validation)?,
            test: open(&section.test, Split::Test)?,
        })
    }
}

/// A dataset by its name: an embedded set's split, or files, of which the samples marked with that split are taken
/// where any sample is marked at all.
///
/// # Errors
/// As [`Pictures::open`].
pub fn open(names: &OneOrMany, split: Split) -> Result<Dataset> {
    let mut samples = match names.as_slice() {
        [name] if name == "noto" => embedded::noto()?,
        [name] if name == "openclipart" => embedded::openclipart()?,
        paths => read(paths)?,
    };
    if samples.iter().any(|sample| sample.split.is_some()) {
        samples.retain(|sample| sample.split == Some(split));
    }
    if samples.is_empty() {
        let reason = format!("no sample is marked with split {split:?}");
        return Err(aurora_data::Error::Empty { what: names.as_slice().join(", "), reason }.into());
    }
    let bytes: u64 = samples.iter().map(|sample| sample.visual.len()).sum();
    // Decoded at once, a picture that does not decode is an error now and not after an hour of training.
    let decode = if bytes <= DECODE_AT_LOAD { Decode::AtLoad } else { Decode::OnUse };
    Ok(Dataset::new(samples, decode)?)
}

fn read(paths: &[String]) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for path in paths.iter().map(Path::new) {
        samples.extend(match path.is_dir() {
            true => folder::read(path, Captions::Required)?,
            false => shard::read(path)?,
        });
    }
    Ok(samples)
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
