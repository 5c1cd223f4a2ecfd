//! Run configuration: one typed TOML file with overrides; errors name the key and the way out.
//!
//! [`Config`] is for tuning and [`PretrainConfig`] for pretraining; [`RunConfig`] resolves either
//! from the built-in defaults, a file and `--set section.key=value`. Every key has a row in the
//! schema ([`schema::Field`]) with its type, range and doc line. A file may leave out what it does
//! not change; a written configuration is complete.
//!
//! ```
//! use aurora_train::config::{Config, RunConfig};
//!
//! let config = Config::resolve(None, &["adapter.rank=16", "data.batch_size=64"])?;
//! assert_eq!((config.adapter.rank, config.data.batch_size), (16, 64));
//!
//! let error = Config::resolve(None, &["adapter.rnak=16"]).unwrap_err().to_string();
//! assert!(error.contains("unknown key `adapter.rnak`, did you mean `adapter.rank`?"));
//! # Ok::<(), aurora_train::config::ConfigError>(())
//! ```

mod adapter;
mod checkpoint;
mod error;
mod pretrain;
mod rates;
mod resolve;
pub mod schema;
mod sections;

use aurora_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub use adapter::AdapterSection;
pub use checkpoint::{CheckpointSection, ConfigDiff, RESUMABLE_KEYS};
pub use error::ConfigError;
pub use pretrain::{ModelSizes, PretrainConfig, PretrainSection};
pub use rates::LearningRates;
pub use resolve::{RunConfig, describe};
pub use sections::{
    Augment, DataSection, EvaluationSection, Keywords, OneOrMany, OptimizerSection,
    ScheduleSection, ShuffleMode, SimilarityWeight,
};

use schema::{Field, Range, ValueType};

/// Configuration of a tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random.
    pub seed: u64,
    /// Task that is trained and evaluated.
    pub task: Task,
    /// Device, as [`DeviceChoice`](aurora_kernels::device::DeviceChoice) parses it.
    pub device: String,
    /// Gradient checkpointing.
    pub gradient_checkpointing: GradientCheckpointing,
    /// Precision of matrix products.
    pub precision: MatmulPrecision,
    /// Backbone, tokenizer and image size.
    pub model: ModelSection,
    /// Adapter.
    pub adapter: AdapterSection,
    /// Datasets and how they are read.
    pub data: DataSection,
    /// Retrieval losses.
    pub retrieval: RetrievalSection,
    /// AdamW.
    pub optimizer: OptimizerSection,
    /// Run length and learning-rate schedule.
    pub schedule: ScheduleSection,
    /// Training checkpoints.
    pub checkpoint: CheckpointSection,
    /// Evaluation.
    pub evaluation: EvaluationSection,
}

/// Task of a run: its loss and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Image-text retrieval in both directions, over images or clips.
    Retrieval,
    /// Visual question answering over images or clips.
    Vqa,
}

impl Task {
    /// Names in configurations.
    pub const NAMES: &'static [&'static str] = &["retrieval", "vqa"];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrieval => "retrieval",
            Self::Vqa => "vqa",
        }
    }
}

/// Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): recomputes the activations of a block in the backward
/// pass instead of keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradientCheckpointing {
    /// Off: all activations are kept.
    None,
    /// On for each vision block and each text layer.
    Block,
    /// On if the activations would take more than [`GradientCheckpointing::SHARE`] of the free memory.
    Auto,
}

impl GradientCheckpointing {
    /// Share of the free memory that a graph may take before blocks are recomputed.
    pub const SHARE: f64 = 0.6;

    /// Resolves `Auto`: `graph` and `available` memory in bytes; unknown memory counts as enough.
    pub fn resolve(
        self,
        graph: u64,
        available: Option<u64>,
    ) -> aurora_layers::GradientCheckpointing {
        let short = || available.is_some_and(|left| graph as f64 > Self::SHARE * left as f64);
        match self {
            Self::None => aurora_layers::GradientCheckpointing::None,
            Self::Block => aurora_layers::GradientCheckpointing::Block,
            Self::Auto if short() => aurora_layers::GradientCheckpointing::Block,
            Self::Auto => aurora_layers::GradientCheckpointing::None,
        }
    }
}

/// Precision of the matrix products in the towers, on the CPU, in all passes of a run: online, momentum and evaluation.
/// Trained and stored tensors are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatmulPrecision {
    /// f32 operands.
    F32,
    /// bf16 operands, f32 accumulation.
    Bf16,
}

impl From<MatmulPrecision> for Precision {
    fn from(precision: MatmulPrecision) -> Self {
        match precision {
            MatmulPrecision::F32 => Self::F32,
            MatmulPrecision::Bf16 => Self::Bf16,
        }
    }
}

/// `[model]`: the backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// `nano`, the embedded backbone, or the path of another.
    pub backbone: String,
    /// `auto`, the tokenizer file beside the weights, or a file.
    pub tokenizer: String,
    /// Image size (square side) in pixels, 0 for the backbone's own.
    pub image_size: usize,
    /// Source of the VQA decoder.
    pub decoder: DecoderSource,
}

/// Source of the VQA decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderSource {
    /// The decoder of the backbone's checkpoint.
    Checkpoint,
    /// A decoder initialized from the text encoder of a retrieval backbone.
    FromEncoder,
}

impl ModelSection {
    /// Section for the backbone at this path, with its own tokenizer and image size.
    pub fn of(backbone: &str) -> Self {
        Self {
            backbone: backbone.to_owned(),
            tokenizer: AUTO.to_owned(),
            image_size: 0,
            decoder: DecoderSource::Checkpoint,
        }
    }

    /// Tokenizer file, unless it is the backbone's own.
    pub fn tokenizer_file(&self) -> Option<&Path> {
        (self.tokenizer != AUTO).then(|| Path::new(&self.tokenizer))
    }

    /// Image size, unless it is the backbone's own.
    pub fn other_image_size(&self) -> Option<usize> {
        (self.image_size > 0).then_some(self.image_size)
    }
}

/// Value of `tokenizer` for the backbone's own.
const AUTO: &str = "auto";

/// `[retrieval]`: ITC and ITM losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalSection {
    /// Weight of the soft targets.
    pub alpha: f64,
    /// Steps over which `alpha` rises from 0.
    pub alpha_warmup_steps: u64,
    /// EMA decay of the momentum model.
    pub momentum: f64,
    /// Slots of the feature queue, 0 for none.
    pub queue_size: usize,
    /// Temperature of the similarities; its initial value, if it is trained.
    pub temperature: f64,
    /// True if the temperature is trained.
    pub learn_temperature: bool,
    /// Weight of the matching loss (ITM) relative to the contrastive loss (ITC).
    pub itm_weight: f64,
    /// Pairs of the batch in the matching loss, each with two negatives.
    pub itm_pairs: usize,
}

const FIELDS: &[Field] = &[
    Field {
        key: "seed",
        value_type: ValueType::Count(0, i64::MAX),
        doc: "Seed of everything random: one seed, one result.",
    },
    Field {
        key: "task",
        value_type: ValueType::Choice(Task::NAMES),
        doc: "What is learned: retrieval (images or clips by texts and the other way round) or vqa (questions about them).",
    },
    Field { key: "device", value_type: schema::DEVICE, doc: schema::DEVICE_DOC },
    Field {
        key: "gradient_checkpointing",
        value_type: ValueType::Choice(&["none", "block", "auto"]),
        doc: "What a step keeps for its backward pass: none recomputes nothing, block recomputes each block (less memory, more time), auto does where memory is short.",
    },
    Field {
        key: "precision",
        value_type: ValueType::Choice(&["f32", "bf16"]),
        doc: "Matrix products of the towers on the CPU: f32, or bf16 (factors rounded to bf16, sums and all else in f32). A GPU computes in f32 either way.",
    },
    Field {
        key: "model.backbone",
        value_type: ValueType::Text,
        doc: "\"nano\", the embedded backbone, or another: a folder as transformers has it, or a .pth file.",
    },
    Field {
        key: "model.tokenizer",
        value_type: ValueType::Text,
        doc: "\"auto\", the vocab.txt or tokenizer.json beside the backbone's weights, or such a file.",
    },
    Field {
        key: "model.image_size",
        value_type: ValueType::Count(0, 4096),
        doc: "Side of the images in pixels, 0 for the backbone's own; position embeddings are resized to fit.",
    },
    Field {
        key: "model.decoder",
        value_type: ValueType::Choice(&["checkpoint", "from_encoder"]),
        doc: "Decoder of task vqa: checkpoint, the backbone's own, or from_encoder, initialized from the text encoder of a backbone for retrieval.",
    },
];

const LOSS_FIELDS: &[Field] = &[
    Field {
        key: "retrieval.alpha",
        value_type: ValueType::Real(Range::SHARE),
        doc: "Weight of the soft targets from the momentum model.",
    },
    Field {
        key: "retrieval.alpha_warmup_steps",
        value_type: ValueType::Count(0, i64::MAX),
        doc: "Steps over which alpha rises from 0.",
    },
    Field {
        key: "retrieval.momentum",
        value_type: ValueType::Real(Range::SHARE),
        doc: "Decay of the momentum model at each step.",
    },
    Field {
        key: "retrieval.queue_size",
        value_type: ValueType::Count(0, 1 << 24),
        doc: "Earlier pairs kept as further negatives, 0 for none.",
    },
    Field {
        key: "retrieval.temperature",
        value_type: ValueType::Real(Range::closed(0.001, 0.5)),
        doc: "Temperature of the similarities; its start, when it is trained.",
    },
    Field {
        key: "retrieval.learn_temperature",
        value_type: ValueType::Switch,
        doc: "Whether the temperature is trained, at the rate of the heads.",
    },
    Field {
        key: "retrieval.itm_weight",
        value_type: ValueType::Real(Range::NOT_NEGATIVE),
        doc: "Weight of the matching loss beside the contrastive one; 0 leaves it out.",
    },
    Field {
        key: "retrieval.itm_pairs",
        value_type: ValueType::Count(2, 1 << 20),
        doc: "Pairs of the batch that the matching loss looks at, each with two negatives.",
    },
];

impl RunConfig for Config {
    const DEFAULTS: &'static str = include_str!("../configs/quickstart.toml");

    fn fields() -> Vec<&'static Field> {
        [
            FIELDS,
            AdapterSection::FIELDS,
            DataSection::FIELDS,
            LOSS_FIELDS,
            OptimizerSection::FIELDS,
            LearningRates::FIELDS,
            ScheduleSection::FIELDS,
            CheckpointSection::FIELDS,
            EvaluationSection::FIELDS,
        ]
        .concat_refs()
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn complete(&mut self) -> Result<(), ConfigError> {
        self.optimizer.lr = self.optimizer.lr.resolve(self.adapter.kind)?;
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.task == Task::Vqa && self.evaluation.k_test == 0 {
            return Err(ConfigError::Conflict(
                "`evaluation.k_test` is 0: with task vqa it is the number of candidates that are compared in \
                 full, at least 1"
                    .to_owned(),
            ));
        }
        self.schedule.check()
    }
}

/// Concatenation of schema tables.
trait ConcatRefs {
    fn concat_refs(self) -> Vec<&'static Field>;
}

impl<const N: usize> ConcatRefs for [&'static [Field]; N] {
    fn concat_refs(self) -> Vec<&'static Field> {
        self.into_iter().flatten().collect()
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "config_page_tests.rs"]
mod page_tests;
