//! How batches are made.

use serde::{Deserialize, Serialize};

use super::shuffle::Shuffle;
use crate::caption::Keywords;
use crate::tokenizer::Padding;
use crate::video::Sampling;
use crate::{Error, Result};

/// What batches are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Captions and frames are drawn. Where a policy leaves a broken sample out, another one takes
    /// its place and counts.
    Train,
    /// The first caption, and frames without chance. What takes the place of a broken sample does
    /// not count.
    Eval,
}

/// What becomes of the samples that do not fill a batch at the end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They are left out; with an order that changes, other ones in every epoch.
    Drop,
    /// They are a smaller batch. For one rank alone: several would have different numbers of
    /// batches, and wait for each other for ever.
    Keep,
    /// The epoch's first samples fill the batch up and do not count.
    Pad,
}

/// Which words of a sample a batch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextField {
    /// One of its captions.
    Captions,
    /// Its question; and its answers, without which there is no training.
    Questions,
}

/// The largest batch: one of a million small images fills any memory.
const LARGEST: usize = 1 << 20;

/// How batches are made.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Seed of order, augmentation, captions, keywords and frames.
    pub seed: u64,
    /// What the batches are for.
    pub mode: Mode,
    /// The order of an epoch.
    pub shuffle: Shuffle,
    /// What becomes of an epoch's rest.
    pub last_batch: LastBatch,
    /// Which of the processes that share the work this is, from 0.
    pub rank: usize,
    /// How many processes share the work: each makes its own part of every `world_size * batch_size`
    /// samples.
    pub world_size: usize,
    /// Threads; with 0 the consumer makes its batches itself.
    pub num_workers: usize,
    /// Batches that may be ready or in the making beyond one a thread.
    pub prefetch: usize,
    /// Bytes of pixels that may be ready or in the making, where that is fewer batches. One batch
    /// always may.
    pub prefetch_bytes: u64,
    /// Which words a batch has.
    pub text_field: TextField,
    /// Where batches are clips, which frames they have; an image is a clip of one frame.
    pub video: Option<Sampling>,
    /// Most tokens of a text, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// What length texts are brought to.
    pub padding: Padding,
    /// Whether keywords follow captions.
    pub keywords: Keywords,
}

impl LoaderOptions {
    /// For training: an exact shuffle, full batches only, captions with some of the keywords, two
    /// threads, at most 1 GiB ahead.
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

    /// For evaluation: in order, every sample, the caption alone, two threads.
    pub fn evaluation(batch_size: usize) -> Self {
        Self {
            mode: Mode::Eval,
            shuffle: Shuffle::Sequential,
            last_batch: LastBatch::Keep,
            keywords: Keywords::Never,
            ..Self::training(batch_size, 0)
        }
    }

    /// That a loader over `samples` samples has something to do.
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

    /// How many batches may be ready or in the making, each of `bytes`.
    pub(super) fn ahead(&self, bytes: u64) -> usize {
        let fit = usize::try_from(self.prefetch_bytes / bytes.max(1)).unwrap_or(usize::MAX);
        self.num_workers.saturating_add(self.prefetch).min(fit).max(1)
    }
}
