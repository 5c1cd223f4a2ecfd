//! How batches are made.

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::caption::Keywords;
use crate::tokenizer::Padding;
use crate::video::Sampling;
use crate::{Error, Result};

/// What batches are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Captions and frames are drawn. Where a policy leaves a broken sample out, another one takes
    /// its place and counts.
    Training,
    /// The first caption, and frames without chance. What takes the place of a broken sample does
    /// not count.
    Evaluation,
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
pub enum Words {
    /// One of its captions.
    Captions,
    /// Its question; and its answers, without which there is no training.
    Questions,
}

/// The largest batch: one of a million small pictures fills any memory.
const LARGEST: usize = 1 << 20;

/// How batches are made.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Seed of order, augmentation, captions, keywords and frames.
    pub seed: u64,
    /// What the batches are for.
    pub purpose: Purpose,
    /// The order of an epoch.
    pub order: Order,
    /// What becomes of an epoch's rest.
    pub last: LastBatch,
    /// Which of the processes that share the work this is, from 0.
    pub rank: usize,
    /// How many processes share the work: each makes its own part of every `ranks * batch_size`
    /// samples.
    pub ranks: usize,
    /// Threads; with 0 the consumer makes its batches itself.
    pub threads: usize,
    /// Batches that may be ready or in the making beyond one a thread.
    pub prefetch: usize,
    /// Bytes of pixels that may be ready or in the making, where that is fewer batches. One batch
    /// always may.
    pub memory: u64,
    /// Which words a batch has.
    pub words: Words,
    /// Where batches are clips, which frames they have; a picture is a clip of one frame.
    pub clips: Option<Sampling>,
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
            purpose: Purpose::Training,
            order: Order::Exact,
            last: LastBatch::Drop,
            rank: 0,
            ranks: 1,
            threads: 2,
            prefetch: 2,
            memory: 1 << 30,
            words: Words::Captions,
            clips: None,
            max_tokens: 35,
            padding: Padding::Longest,
            keywords: Keywords::Sample,
        }
    }

    /// For evaluation: in order, every sample, the caption alone, two threads.
    pub fn evaluation(batch_size: usize) -> Self {
        Self {
            purpose: Purpose::Evaluation,
            order: Order::Sequential,
            last: LastBatch::Keep,
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
        if self.rank >= self.ranks {
            let value = format!("{} of {} ranks", self.rank, self.ranks);
            return refused("rank", value, "from 0 to the number of ranks less one");
        }
        let Some(together) = self.batch_size.checked_mul(self.ranks) else {
            let value = format!("{} on each of {} ranks", self.batch_size, self.ranks);
            return refused("batch_size", value, "a number of samples that fits in memory");
        };
        if self.last == LastBatch::Keep && self.ranks > 1 {
            let value = format!("keep, with {} ranks", self.ranks);
            return refused("last", value, "drop or pad, so that every rank has as many batches");
        }
        if self.order == Order::Window(0) {
            return refused("order", "a window of 0".to_string(), "a window of 1 or more samples");
        }
        if self.clips.is_some_and(|sampling| sampling.most() == 0) {
            return refused("clips", "0 frames".to_string(), "1 frame or more");
        }
        if samples == 0 {
            return Err(Error::Empty {
                what: "the dataset".to_string(),
                reason: "no sample is in the part that was asked for".to_string(),
            });
        }
        if self.last == LastBatch::Drop && samples < together {
            let ranks = match self.ranks {
                1 => String::new(),
                ranks => format!(" on each of {ranks} ranks"),
            };
            let reason = format!(
                "{samples} samples do not fill one batch of {}{ranks}; lower batch_size",
                self.batch_size
            );
            return Err(Error::Empty { what: "an epoch".to_string(), reason });
        }
        Ok(())
    }

    /// How many batches may be ready or in the making, each of `bytes`.
    pub(super) fn ahead(&self, bytes: u64) -> usize {
        let fit = usize::try_from(self.memory / bytes.max(1)).unwrap_or(usize::MAX);
        self.threads.saturating_add(self.prefetch).min(fit).max(1)
    }
}
