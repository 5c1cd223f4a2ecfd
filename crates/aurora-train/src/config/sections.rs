//! Configuration sections that tuning and pretraining share.

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
    /// One text.
    One(String),
    /// Several texts, at least one.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All texts.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// Use of keywords in captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keywords {
    /// Caption alone.
    Never,
    /// Caption, or one made of its keywords, drawn anew each time.
    Sample,
    /// Caption followed by all keywords.
    All,
}

/// Augmentation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Gentle affine augmentation, for drawings: scale, shift, rotation, flip and color.
    Affine,
    /// Augmentation of the reference code, for photographs: random crop, flip and RandAugment (Cubuk et al. 2019,
    /// arXiv:1909.13719).
    RandAugment,
    /// No augmentation.
    None,
}

/// Shuffling of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShuffleMode {
    /// Full shuffle: each order equally likely.
    Full,
    /// Shuffle buffer: shard by shard, drawn from a buffer.
    Buffer,
}

/// `[data]`: images, captions and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Training pairs: the name of an embedded set, a folder, shards, or annotations.
    pub train: OneOrMany,
    /// Validation pairs, which select the best state; of an embedded set its validation split.
    pub validation: OneOrMany,
    /// Test pairs, for the final report; of an embedded set its test split.
    pub test: OneOrMany,
    /// Root folders of the paths in annotations; none: the folder of the annotations.
    pub image_root: Vec<String>,
    /// Format of the annotations.
    pub format: Format,
    /// Policy for images and rows that cannot be used.
    pub on_error: OnError,
    /// Largest number of skipped images and rows.
    pub max_skipped: usize,
    /// Keywords in training captions.
    pub caption_keywords: Keywords,
    /// Keywords in the captions of validation and test.
    pub eval_caption_keywords: Keywords,
    /// Answer candidates of task vqa.
    pub answer_list: String,
    /// Largest number of frames per clip.
    pub num_frames: usize,
    /// Frame sampling, as [`Method`] parses it.
    pub frame_sampling: String,
    /// Batch size in pairs.
    pub batch_size: usize,
    /// Shuffling of an epoch.
    pub shuffle: ShuffleMode,
    /// Buffer size of [`ShuffleMode::Buffer`] in samples.
    pub shuffle_buffer: usize,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Loader threads, 0 for one per core.
    pub num_workers: usize,
}

pub(super) const KEYWORDS: &[&str] = &["never", "sample", "all"];

impl DataSection {
    /// Schema of the section.
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

    /// Frame sampling of clips.
    pub fn clips(&self) -> Sampling {
        // Every text that the schema lets through is a method.
        self.frame_sampling.parse().unwrap_or(Method::Uniform).of(self.num_frames)
    }

    /// Shuffling of an epoch, for the loader.
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
    /// Decay rates of the first and second moments.
    pub betas: [f64; 2],
    /// Epsilon, added to the root of the second moment.
    pub eps: f64,
    /// Gradient clipping: largest global norm; 0 for no limit.
    pub max_grad_norm: f64,
    /// Learning rates of a tuning run; empty in pretraining, which has one of its own.
    #[serde(default, skip_serializing_if = "LearningRates::is_empty")]
    pub lr: LearningRates,
}

impl OptimizerSection {
    /// Schema of the section.
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

    /// Options of [`crate::optimizer::AdamW`].
    pub fn options(&self) -> AdamWOptions {
        AdamWOptions { betas: self.betas, eps: self.eps }
    }

    /// Clipping norm; infinite for no limit, so that the norm is still measured.
    pub fn max_norm(&self) -> f64 {
        if self.max_grad_norm > 0.0 { self.max_grad_norm } else { f64::INFINITY }
    }
}

/// `[schedule]`: run length and learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSection {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of linear warm-up, part of `steps`.
    pub warmup_steps: u64,
    /// Decay after the warm-up.
    pub decay: Decay,
    /// Lowest factor on the learning rate.
    pub min_lr_ratio: f64,
    /// Stairs of `cosine_epoch`.
    pub cosine_epochs: u64,
    /// Steps between evaluations on the validation pairs; the last step is always evaluated.
    pub eval_every: u64,
}

impl ScheduleSection {
    /// Schema of the section.
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

    /// Learning-rate schedule of the section.
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

/// Similarity weight, or several to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SimilarityWeight {
    /// Fixed weight.
    One(f64),
    /// Candidates, of which the best on validation is taken.
    Candidates(Vec<f64>),
}

impl SimilarityWeight {
    /// All candidates.
    pub fn as_slice(&self) -> &[f64] {
        match self {
            Self::One(similarity_weight) => std::slice::from_ref(similarity_weight),
            Self::Candidates(betas) => betas,
        }
    }
}

/// `[evaluation]`: two-stage reranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSection {
    /// Candidates per query that the matching head reranks; 0 ranks by similarity alone.
    pub k_test: usize,
    /// Weight of the similarity relative to the matching logit.
    pub similarity_weight: SimilarityWeight,
}

impl EvaluationSection {
    /// Schema of the section.
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
