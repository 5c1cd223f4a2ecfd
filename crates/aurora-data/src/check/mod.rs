//! Data check before training: contents, broken files, duplicates, leaks between splits, and
//! unknown tokens.

mod images;
mod report;
mod texts;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use report::{
    Bin, DuplicateGroup, Duplicates, Lengths, Report, ScriptWords, Sizes, SmallImage, SplitCounts,
    UnknownTokens,
};

use crate::on_error::{OnError, SkipLog, Skipped};
use crate::source::{self, ReadOptions};
use crate::{Result, Sample, Tokenizer};

/// Shorter sides are reported: a patch of a vision transformer is 16 pixels wide.
pub const MIN_SIDE: usize = 32;

/// Name of the samples without a split.
const NO_SPLIT: &str = "no split";

/// Result of a check, with the samples checked.
#[derive(Debug)]
pub struct CheckOutcome {
    /// The report.
    pub report: Report,
    /// Every readable sample, in order.
    pub samples: Vec<Sample>,
}

/// Checks everything below `paths`, every image included, in parallel. `progress` is called with
/// the stage, the items done and their total, from several threads.
///
/// # Errors
/// When a path does not exist, or the tokenizer refuses a word. Broken data are in the report.
pub fn check(
    paths: &[PathBuf],
    reading: &ReadOptions,
    (tokenizer, limit): (&Tokenizer, usize),
    progress: &(dyn Fn(&str, u64, u64) + Sync),
) -> Result<CheckOutcome> {
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        return Err(crate::Error::Missing { path: path.clone() });
    }
    let skips = SkipLog::new(OnError::Skip, usize::MAX);
    let (mut samples, mut problems) = (Vec::new(), Vec::new());
    for (done, path) in paths.iter().enumerate() {
        progress("reading lists", done as u64, paths.len() as u64);
        match source::read(path, reading, &skips) {
            Ok(found) => samples.extend(found),
            Err(error) => problems
                .push(Skipped { what: path.display().to_string(), reason: error.to_string() }),
        }
    }
    progress("reading lists", paths.len() as u64, paths.len() as u64);
    problems.extend(skips.list());
    let parts: Vec<String> = samples.iter().map(|s| part_of(s, paths.len())).collect();
    let seen = images::scan_images(&samples, &parts, progress);
    problems.extend(seen.problems);
    problems.sort();
    let said = texts::scan_texts(&samples, &parts, tokenizer, limit, progress)?;
    let report = Report {
        paths: paths.iter().map(|path| path.display().to_string()).collect(),
        samples: samples.len(),
        images: seen.images,
        clips: seen.clips,
        frames: seen.frames,
        captions: samples.iter().map(|s| s.captions.len()).sum(),
        questions: samples.iter().filter(|s| s.question.is_some()).count(),
        parts: count(&samples, &parts),
        problems,
        tiny: seen.tiny,
        same_image: seen.same,
        same_caption: said.same,
        sizes: seen.sizes,
        lengths: said.lengths,
        unknown: said.unknown,
    };
    Ok(CheckOutcome { report, samples })
}

/// Name of a sample's part: its split, or its file if several paths were given.
fn part_of(sample: &Sample, paths: usize) -> String {
    match sample.split {
        Some(split) => split.to_string(),
        None if paths > 1 => sample.shard.to_string(),
        None => NO_SPLIT.to_string(),
    }
}

/// Counts of each part.
fn count(samples: &[Sample], parts: &[String]) -> BTreeMap<String, SplitCounts> {
    let mut out: BTreeMap<String, SplitCounts> = BTreeMap::new();
    for (sample, part) in samples.iter().zip(parts) {
        let part = out.entry(part.clone()).or_default();
        part.samples += 1;
        part.captions += sample.captions.len();
        part.questions += usize::from(sample.question.is_some());
    }
    out
}
