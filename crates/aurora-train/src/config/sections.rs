//! Sections that tuning and pretraining share.

use aurora_data::video::{Method, Sampling};
use aurora_data::{Format, OnError};
use serde::{Deserialize, Serialize};

use super::schema::{Field, Range, StringRule, ValueType};
use super::{ConfigError, LearningRates};
use crate::optimizer::AdamWOptions;
use crate::schedule::{Decay, Schedule};

/// One text or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, at least one.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// Whether keywords stand in for captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keywords {
    /// The caption alone.
    Never,
    /// The caption or one that is made of its keywords, drawn anew each time.
    Sample,
    /// The caption followed by all keywords.
    All,
}

/// How training images are varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Scale, shift, turn, flip and color, gently: for drawings.
    Affine,
    /// The reference code's: random crop, flip and RandAugment: for photographs.
    RandAugment,
    /// Not at all.
    None,
}

/// The order in which an epoch takes its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShuffleMode {
    /// Each order equally likely.
    Full,
    /// Shard by shard, drawn from a buffer.
    Buffer,
}

/// `[data]`: images, captions and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Training pairs: the name of an embedded set, a folder, shards, or annotations.
    pub train: OneOrMany,
    /// Pairs that choose the checkpoint; of an embedded set its validation split.
    pub validation: OneOrMany,
    /// Pairs that are looked at once, at the end; of an embedded set its test split.
    pub test: OneOrMany,
    /// Folders that the paths in annotations begin at; none: the folder of the annotations.
    pub image_root: Vec<String>,
    /// Format of the annotations.
    pub format: Format,
    /// What becomes of an image or row that cannot be used.
    pub on_error: OnError,
    /// How many may be left out.
    pub max_skipped: usize,
    /// Keywords in training captions.
    pub caption_keywords: Keywords,
    /// Keywords in the captions of validation and test.
    pub eval_caption_keywords: Keywords,
    /// The answers that a question is answered with.
    pub answer_list: String,
    /// Frames taken of a clip, the most.
    pub num_frames: usize,
    /// How they are chosen, as [`Method`] reads it.
    pub frame_sampling: String,
    /// Pairs in a batch.
    pub batch_size: usize,
    /// The order of an epoch.
    pub shuffle: ShuffleMode,
    /// Samples in the buffer of [`ShuffleMode::Buffer`].
    pub shuffle_buffer: usize,
    /// How training images are varied.
    pub augment: Augment,
    /// Loader threads, 0 for one per core.
    pub num_workers: usize,
}

pub(super) const KEYWORDS: &[&str] = &["never", "sample", "all"];

impl DataSection {
    /// Its keys.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "data.train",
            value_type: ValueType::Texts,
            doc: "Training pairs: \"noto\", \"openclipart\", a folder of images with captions, tar shards, or annotations (.json, .jsonl, .csv, .tsv).",
        },
        Field {
            key: "data.validation",
            value_type: ValueType::Texts,
            doc: "Pairs that choose the checkpoint; of an embedded set its validation split.",
        },
        Field {
            key: "data.test",
            value_type: ValueType::Texts,
            doc: "Pairs that are looked at once, at the end; of an embedded set its test split.",
        },
        Field {
            key: "data.image_root",
            value_type: ValueType::List(StringRule {
                what: "folders that the paths in annotations begin at",
                fits: |folder| !folder.trim().is_empty(),
            }),
            doc: "Folders that the paths in annotations begin at, looked through in this order; none given: the annotations' own.",
        },
        Field {
            key: "data.format",
            value_type: ValueType::Choice(Format::NAMES),
            doc: "Format of the annotations: auto (what the first row looks like), a benchmark's, or table (a person's own).",
        },
        Field {
            key: "data.on_error",
            value_type: ValueType::Choice(&["stop", "skip"]),
            doc: "An image or row that is broken or missing: stop names it and ends, skip leaves it out and counts it.",
        },
        Field {
            key: "data.max_skipped",
            value_type: ValueType::Count(0, i64::MAX),
            doc: "How many may be left out; more of them end the run.",
        },
        Field {
            key: "data.caption_keywords",
            value_type: ValueType::Choice(KEYWORDS),
            doc: "Keywords in training captions: never, sample (in place of the caption, drawn anew), all (after it).",
        },
        Field {
            key: "data.eval_caption_keywords",
            value_type: ValueType::Choice(KEYWORDS),
            doc: "The same for validation and test.",
        },
        Field {
            key: "data.answer_list",
            value_type: ValueType::Text,
            doc: "Answers that task vqa chooses from: \"train\", those of the training questions, or a JSON list of texts.",
        },
        Field {
            key: "data.num_frames",
            value_type: ValueType::Count(1, 4096),
            doc: "Frames taken of a clip, at most; a shorter one is filled up, and what fills it is not seen.",
        },
        Field {
            key: "data.frame_sampling",
            value_type: ValueType::Word(StringRule {
                what: "uniform, random or a rate as in \"2fps\"",
                fits: |text| text.parse::<Method>().is_ok(),
            }),
            doc: "Which frames: uniform (the middles of equal parts), random (drawn anew in training, uniform in measuring), 2fps (so many a second).",
        },
        Field {
            key: "data.batch_size",
            value_type: ValueType::Count(2, 1 << 20),
            doc: "Pairs in a batch; each is a negative for the others.",
        },
        Field {
            key: "data.shuffle",
            value_type: ValueType::Choice(&["full", "buffer"]),
            doc: "Order of an epoch: full (each equally likely) or buffer (shard by shard, drawn from a buffer: shards are read in their order).",
        },
        Field {
            key: "data.shuffle_buffer",
            value_type: ValueType::Count(1, 1 << 30),
            doc: "Samples in that buffer; of no effect otherwise.",
        },
        Field {
            key: "data.augment",
            value_type: ValueType::Choice(&["affine", "randaugment", "none"]),
            doc: "Variation of training images: affine (drawings), randaugment (photographs: crop, flip, RandAugment), none.",
        },
        Field {
            key: "data.num_workers",
            value_type: ValueType::Count(0, 1024),
            doc: "Loader threads, 0 for one per core. The result does not depend on it.",
        },
    ];

    /// Which frames are taken of a clip.
    pub fn clips(&self) -> Sampling {
        // Every text that the table lets through is a method.
        self.frame_sampling.parse().unwrap_or(Method::Uniform).of(self.num_frames)
    }

    /// The order of an epoch.
    pub fn order(&self) -> aurora_data::Shuffle {
        match self.shuffle {
            ShuffleMode::Full => aurora_data::Shuffle::Full,
            ShuffleMode::Buffer => aurora_data::Shuffle::Buffer(self.shuffle_buffer),
        }
    }
}

/// `[optimizer]`: AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSection {
    /// Decoupled weight decay, on heads and backbone; factors, gates and the temperature have none.
    pub weight_decay: f64,
    /// Decay of the running means.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 for no limit.
    pub max_grad_norm: f64,
    /// Learning rates of a tuning; empty in a pretraining, which has one of its own.
    #[serde(default, skip_serializing_if = "LearningRates::is_empty")]
    pub lr: LearningRates,
}

impl OptimizerSection {
    /// Its keys.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "optimizer.weight_decay",
            value_type: ValueType::Real(Range::NOT_NEGATIVE),
            doc: "Decoupled weight decay of heads and backbone; factors, gates and the temperature have none.",
        },
        Field {
            key: "optimizer.betas",
            value_type: ValueType::RealPair(Range::BELOW_ONE),
            doc: "Decay of the running means of the gradient and of its square.",
        },
        Field {
            key: "optimizer.eps",
            value_type: ValueType::Real(Range::POSITIVE),
            doc: "Added to the root of the second moment.",
        },
        Field {
            key: "optimizer.max_grad_norm",
            value_type: ValueType::Real(Range::NOT_NEGATIVE),
            doc: "Largest global norm of the gradient; 0 for no limit.",
        },
    ];

    /// For [`crate::optimizer::AdamW`].
    pub fn options(&self) -> AdamWOptions {
        AdamWOptions { betas: self.betas, eps: self.eps }
    }

    /// The limit on the norm; infinite for none, so that the norm is still measured.
    pub fn max_norm(&self) -> f64 {
        if self.max_grad_norm > 0.0 { self.max_grad_norm } else { f64::INFINITY }
    }
}

/// `[schedule]`: length of the run and shape of the learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSection {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of linear warm-up, part of `steps`.
    pub warmup_steps: u64,
    /// How the rate falls.
    pub decay: Decay,
    /// Lowest factor on the learning rate.
    pub min_lr_ratio: f64,
    /// Stairs of `cosine_epoch`.
    pub cosine_epochs: u64,
    /// Steps between evaluations on the validation pairs; the last step is always evaluated.
    pub eval_every: u64,
}

impl ScheduleSection {
    /// Its keys.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "schedule.steps",
            value_type: ValueType::Count(1, i64::MAX),
            doc: "Optimizer steps of the run.",
        },
        Field {
            key: "schedule.warmup_steps",
            value_type: ValueType::Count(0, i64::MAX),
            doc: "Steps of linear warm-up at the start, part of `steps`.",
        },
        Field {
            key: "schedule.decay",
            value_type: ValueType::Choice(&["constant", "cosine", "cosine_epoch"]),
            doc: "Learning rate after the warm-up: constant, cosine (every step), cosine_epoch (in stairs).",
        },
        Field {
            key: "schedule.min_lr_ratio",
            value_type: ValueType::Real(Range::SHARE),
            doc: "Lowest factor on the learning rate.",
        },
        Field {
            key: "schedule.cosine_epochs",
            value_type: ValueType::Count(1, i64::MAX),
            doc: "Number of stairs of cosine_epoch; of no effect otherwise.",
        },
        Field {
            key: "schedule.eval_every",
            value_type: ValueType::Count(1, i64::MAX),
            doc: "Steps between evaluations on the validation pairs; the last step is always evaluated.",
        },
    ];

    /// The schedule itself.
    pub fn schedule(&self) -> Schedule {
        let &Self { decay, steps, warmup_steps, min_lr_ratio, cosine_epochs, .. } = self;
        Schedule { decay, steps, warmup_steps, min_lr_ratio, cosine_epochs }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self { steps, warmup_steps, .. } = self;
        if warmup_steps > steps {
            return Err(ConfigError::Conflict(format!(
                "`schedule.warmup_steps` is {warmup_steps}, more than the {steps} of `schedule.steps`"
            )));
        }
        Ok(())
    }
}

/// One number or several to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SimilarityWeight {
    /// This one.
    One(f64),
    /// The one that does best on validation.
    Candidates(Vec<f64>),
}

impl SimilarityWeight {
    /// All of them.
    pub fn as_slice(&self) -> &[f64] {
        match self {
            Self::One(similarity_weight) => std::slice::from_ref(similarity_weight),
            Self::Candidates(betas) => betas,
        }
    }
}

/// `[evaluation]`: two-stage ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSection {
    /// Candidates of each query that the matching head ranks; 0 ranks by similarity alone.
    pub k_test: usize,
    /// Weight of the similarity beside the matching logit.
    pub similarity_weight: SimilarityWeight,
}

impl EvaluationSection {
    /// Its keys.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "evaluation.k_test",
            value_type: ValueType::Count(0, 1 << 20),
            doc: "Candidates of each query that the matching head ranks, 0 ranks by similarity alone; with task vqa, answers that are compared in full.",
        },
        Field {
            key: "evaluation.similarity_weight",
            value_type: ValueType::RealOrList(Range::NOT_NEGATIVE),
            doc: "Weight of the similarity beside the matching logit; of a list the best on validation is taken.",
        },
    ];
}
