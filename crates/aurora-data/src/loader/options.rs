//! Loader options.

use serde::{Deserialize, Serialize};

use super::shuffle::Shuffle;
use crate::caption::Keywords;
use crate::tokenizer::Padding;
use crate::video::Sampling;
use crate::{Error, Result};

/// Purpose of the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Training: captions and frames are drawn at random. The replacement of a skipped sample
    /// counts.
    Train,
    /// Evaluation: the first caption, and deterministic frames. The replacement of a skipped sample
    /// does not count.
    Eval,
}

/// Handling of an incomplete last batch of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// Dropped; a shuffled order drops other samples in every epoch.
    Drop,
    /// Kept as a smaller batch. For a single rank only: several would have different numbers of
    /// batches and deadlock.
    Keep,
    /// Padded with the epoch's first samples, which do not count.
    Pad,
}

/// Text field of a sample that is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextField {
    /// One of the captions.
    Captions,
    /// The question, with its answers, which training requires.
    Questions,
}

/// Maximum batch size: a million small images fill any memory.
const LARGEST: usize = 1 << 20;

/// Options of a [`super::Loader`].
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Samples per batch.
    pub batch_size: usize,
    /// Seed of order, augmentation, captions, keywords and frames.
    pub seed: u64,
    /// Purpose of the batches.
    pub mode: Mode,
    /// Order of an epoch.
    pub shuffle: Shuffle,
    /// Handling of an incomplete last batch.
    pub last_batch: LastBatch,
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of processes: each takes its share of every `world_size * batch_size` samples.
    pub world_size: usize,
    /// Worker threads; with 0, batches are made on the consumer's thread.
    pub num_workers: usize,
    /// Batches that may be ready or in progress beyond one per thread.
    pub prefetch: usize,
    /// Byte limit of pixels that are ready or in progress, where stricter. One batch is always
    /// allowed.
    pub prefetch_bytes: u64,
    /// Text field of a batch.
    pub text_field: TextField,
    /// Frame sampling of clips; an image is a clip of one frame. `None`: batches of images.
    pub video: Option<Sampling>,
    /// Token limit of a text, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Padding of token rows.
    pub padding: Padding,
    /// Use of keywords in captions.
    pub keywords: Keywords,
}

impl LoaderOptions {
    /// Training defaults: full shuffle, full batches only, captions with a random subset of the
    /// keywords, two threads, at most 1 GiB ahead.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        Self {
            batch_size,
            seed,
            mode: Mode::Train,
            shuffle: Shuffle::Full,
            last_batch: LastBatch::Drop,
            rank: 0,
            world_size: 1,
            num_workers: 2,
            prefetch: 2,
            prefetch_bytes: 1 << 30,
            text_field: TextField::Captions,
            video: None,
            max_tokens: 35,
            padding: Padding::Longest,
            keywords: Keywords::Sample,
        }
    }

    /// Evaluation defaults: sequential, every sample, captions without keywords, two threads.
    pub fn evaluation(batch_size: usize) -> Self {
        Self {
            mode: Mode::Eval,
            shuffle: Shuffle::Sequential,
            last_batch: LastBatch::Keep,
            keywords: Keywords::Never,
            ..Self::training(batch_size, 0)
        }
    }

    /// Validates the options for `samples` samples.
    pub(super) fn check(&self, samples: usize) -> Result<()> {
        let refused =
            |option, value: String, allowed| Err(Error::Option { option, value, allowed });
        if !(1..=LARGEST).contains(&self.batch_size) {
            return refused("batch_size", self.batch_size.to_string(), "1 to 1048576");
        }
        if self.rank >= self.world_size {
            let value = format!("{} of {} ranks", self.rank, self.world_size);
            return refused("rank", value, "from 0 to the number of ranks less one");
        }
        let Some(together) = self.batch_size.checked_mul(self.world_size) else {
            let value = format!("{} on each of {} ranks", self.batch_size, self.world_size);
            return refused("batch_size", value, "a number of samples that fits in memory");
        };
        if self.last_batch == LastBatch::Keep && self.world_size > 1 {
            let value = format!("keep, with {} ranks", self.world_size);
            return refused(
                "last_batch",
                value,
                "drop or pad, so that every rank has as many batches",
            );
        }
        if self.shuffle == Shuffle::Buffer(0) {
            return refused(
                "shuffle",
                "a buffer of 0".to_string(),
                "a buffer of 1 or more samples",
            );
        }
        if self.video.is_some_and(|sampling| sampling.most() == 0) {
            return refused("video", "0 frames".to_string(), "1 frame or more");
        }
        if samples == 0 {
            return Err(Error::Empty {
                what: "the dataset".to_string(),
                reason: "no sample is in the part that was asked for".to_string(),
            });
        }
        if self.last_batch == LastBatch::Drop && samples < together {
            let world_size = match self.world_size {
                1 => String::new(),
                world_size => format!(" on each of {world_size} ranks"),
            };
            let reason = format!(
                "{samples} samples do not fill one batch of {}{world_size}; lower batch_size",
                self.batch_size
            );
            return Err(Error::Empty { what: "an epoch".to_string(), reason });
        }
        Ok(())
    }

    /// Limit of batches that are ready or in progress, each of `bytes`.
    pub(super) fn ahead(&self, bytes: u64) -> usize {
        let fit = usize::try_from(self.prefetch_bytes / bytes.max(1)).unwrap_or(usize::MAX);
        self.num_workers.saturating_add(self.prefetch).min(fit).max(1)
    }
}
