//! Loader state: position of a run in its data, for resuming.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::options::{LastBatch, LoaderOptions, Mode, TextField};
use super::plan::Plan;
use super::shuffle::Shuffle;
use crate::caption::Keywords;
use crate::digest::hexadecimal;
use crate::{Dataset, Error, Result};

/// Position of a run in its data: the next sample, and everything it depends on.
///
/// The state is equal on every rank. A loader accepts it only if it would continue with the same
/// samples: the same dataset, seed, order, batch size and number of ranks, and with a shuffle
/// buffer over shards the same number of samples in each shard. The number of threads, the padding
/// of texts and the location of files may change. (A change of the batch size would partition the
/// epoch differently; begin a new run for it.) The transform is not part of the state: with another
/// one, the run resumes with the same samples and other pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// Seed of all random draws.
    pub seed: u64,
    /// Purpose of the batches.
    pub mode: Mode,
    /// Order of an epoch.
    pub shuffle: Shuffle,
    /// Handling of an incomplete last batch.
    pub last_batch: LastBatch,
    /// Text field of a batch.
    pub text_field: TextField,
    /// Frame sampling of clips, as text.
    pub video: Option<String>,
    /// Use of keywords in captions.
    pub keywords: Keywords,
    /// Samples per batch.
    pub batch_size: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Samples of the dataset.
    pub samples: usize,
    /// SHA-256 of their names, texts and concepts.
    pub contents: String,
    /// SHA-256 of the number of samples in each shard, where the order depends on it.
    pub shards: Option<String>,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Samples of the epoch taken by all ranks together.
    pub position: usize,
}

impl LoaderState {
    pub(super) fn new(
        options: &LoaderOptions,
        plan: &Plan,
        contents: &Contents,
        step: u64,
    ) -> Self {
        let (epoch, position) = plan.position(step);
        Self {
            seed: options.seed,
            mode: options.mode,
            shuffle: options.shuffle,
            last_batch: options.last_batch,
            text_field: options.text_field,
            video: options.video.map(|sampling| sampling.to_string()),
            keywords: options.keywords,
            batch_size: options.batch_size,
            world_size: options.world_size,
            samples: contents.samples,
            contents: contents.hash.clone(),
            shards: matches!(options.shuffle, Shuffle::Buffer(_)).then(|| contents.shards.clone()),
            epoch,
            position,
        }
    }

    /// Next step, if `here`, the state of a loader at its beginning, is of the same run.
    pub(super) fn step(&self, here: &Self, plan: &Plan) -> Result<u64> {
        // In the order in which a user would look for the difference.
        differs("samples in the dataset", &self.samples, &here.samples)?;
        differs("contents of the dataset", &self.contents, &here.contents)?;
        differs("seed", &self.seed, &here.seed)?;
        differs("mode", &self.mode, &here.mode)?;
        differs("shuffle", &self.shuffle, &here.shuffle)?;
        differs("sizes of the shards", &self.shards, &here.shards)?;
        differs("last_batch", &self.last_batch, &here.last_batch)?;
        differs("text_field", &self.text_field, &here.text_field)?;
        differs("video", &self.video, &here.video)?;
        differs("keywords", &self.keywords, &here.keywords)?;
        differs("batch_size", &self.batch_size, &here.batch_size)?;
        differs("world_size", &self.world_size, &here.world_size)?;
        let number = (self.position / plan.together()) as u64;
        let step = self.epoch.checked_mul(plan.steps()).and_then(|first| first.checked_add(number));
        let step = step.filter(|&step| plan.position(step) == (self.epoch, self.position));
        step.ok_or_else(|| Error::State {
            what: "position",
            saved: format!("{} in epoch {}", self.position, self.epoch),
            now: format!("between batches of {}, {} to an epoch", plan.together(), plan.steps()),
        })
    }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &'static str, saved: &T, now: &T) -> Result<()> {
    if saved == now {
        return Ok(());
    }
    Err(Error::State { what, saved: format!("{saved:?}"), now: format!("{now:?}") })
}

/// Fingerprints of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    samples: usize,
    hash: String,
    shards: String,
}

impl Contents {
    /// Hashes keys, captions, keywords, concepts, questions and answers in order; not the images,
    /// which would have to be read, and not the shards' names, which may change. The run lengths
    /// `runs` are hashed separately, since not every order depends on them.
    pub(super) fn of(dataset: &Dataset, runs: &[usize]) -> Self {
        let mut hash = Sha256::new();
        // Length-prefixed, so that no two datasets hash the same bytes.
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for sample in dataset.samples() {
            text(&sample.key);
            for words in [&sample.captions, &sample.keywords] {
                text(&words.len().to_string());
                words.iter().for_each(|words| text(words));
            }
            text(sample.concept.as_deref().unwrap_or_default());
            text(sample.question.as_ref().map_or("", |question| &question.text));
            if let Some(question) = &sample.question {
                text(&question.answers.len().to_string());
                for (answer, weight) in &question.answers {
                    text(answer);
                    text(&weight.to_string());
                }
            }
        }
        let mut shards = Sha256::new();
        runs.iter().for_each(|&run| shards.update((run as u64).to_le_bytes()));
        Self {
            samples: dataset.len(),
            hash: hexadecimal(&hash.finalize()),
            shards: hexadecimal(&shards.finalize()),
        }
    }
}
