//! Configuration of a pretraining run: model sizes, losses and teachers.

use serde::{Deserialize, Serialize};

use super::schema::{Field, Range, ValueType};
use super::sections::KEYWORDS;
use super::{
    ConcatRefs, ConfigError, EvaluationSection, Keywords, OneOrMany, OptimizerSection, RunConfig,
    ScheduleSection,
};

/// Configuration of a pretraining run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Device, as [`DeviceChoice`](aurora_kernels::device::DeviceChoice) parses it.
    pub device: String,
    /// Sizes of the model.
    pub model: ModelSizes,
    /// Losses and teachers.
    pub pretrain: PretrainSection,
    /// Batch size and evaluation pairs.
    pub data: PretrainData,
    /// AdamW.
    pub optimizer: OptimizerSection,
    /// Run length and learning-rate schedule.
    pub schedule: ScheduleSection,
    /// Evaluation.
    pub evaluation: EvaluationSection,
}

/// `[model]`: sizes of a BLIP-shaped model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Image size (square side) in pixels.
    pub image_size: usize,
    /// Patch size (square side) in pixels.
    pub patch_size: usize,
    /// Vision blocks.
    pub vision_layers: usize,
    /// Width of the vision tower.
    pub vision_hidden_size: usize,
    /// Attention heads of the vision tower.
    pub vision_heads: usize,
    /// Text layers.
    pub text_layers: usize,
    /// Width of the text tower.
    pub text_hidden_size: usize,
    /// Attention heads of the text tower.
    pub text_heads: usize,
    /// Width of the MLP over the width of the tower, both towers.
    pub mlp_ratio: usize,
    /// Vocabulary size, special tokens included.
    pub vocab_size: usize,
    /// Longest text in tokens.
    pub max_positions: usize,
    /// Dimension of the projected features.
    pub projection_dim: usize,
}

/// `[pretrain]`: losses and teachers. [`crate::distill`] describes the text-only strings, the
/// teachers' features and their use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainSection {
    /// Learning rate before the schedule's factor.
    pub learning_rate: f64,
    /// Initial value of the trained temperature.
    pub temperature: f64,
    /// Folder with the teachers' weights.
    pub teachers: String,
    /// Weight of the cosine regression to the image teacher.
    pub image_cosine: f64,
    /// Weight of the InfoNCE between images and the image teacher's features.
    pub image_nce: f64,
    /// Temperature of that InfoNCE.
    pub image_nce_temperature: f64,
    /// Weight of the cosine regression of the patches to the image teacher's parts.
    pub patch_distill_weight: f64,
    /// Weight of the cosine regression to the text teacher.
    pub text_cosine: f64,
    /// Weight of the cosine regression of both towers' features to their places in the joint space.
    pub joint_weight: f64,
    /// Share of the contrastive targets that follows the text teacher's similarities.
    pub soft_target_weight: f64,
    /// Temperature of those similarities.
    pub soft_temperature: f64,
    /// Images without a caption in each step, beside the `batch` pairs.
    pub image_only: usize,
    /// Text-only strings in each step.
    pub text_only: usize,
    /// Share of tokens masked in training.
    pub mask_prob: f64,
    /// True if word embeddings start from the text teacher's, by principal components.
    pub init_word_embeddings: bool,
    /// First step with the matching loss.
    pub itm_from_step: u64,
    /// Weight of the matching loss.
    pub itm_weight: f64,
    /// Pairs of the batch in the matching loss, each with two negatives.
    pub itm_pairs: usize,
}

/// `[data]`: evaluation pairs and batch size. Training data is in the teachers' folder: views of the openclipart pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Validation pairs, evaluated during the run; of an embedded set its validation split.
    pub validation: OneOrMany,
    /// Test pairs, evaluated at the end; of an embedded set its test split.
    pub test: OneOrMany,
    /// Keywords in the captions of validation and test.
    pub eval_caption_keywords: Keywords,
    /// Batch size in pairs; each is a negative for the others.
    pub batch_size: usize,
}

const SIZE: ValueType = ValueType::Count(1, 65_536);
const WEIGHT: ValueType = ValueType::Real(Range::NOT_NEGATIVE);
const TEMPERATURE: ValueType = ValueType::Real(Range::closed(0.001, 0.5));

const FIELDS: &[Field] = &[
    Field {
        key: "seed",
        value_type: ValueType::Count(0, i64::MAX),
        doc: "Seed of everything random: one seed, one result.",
    },
    Field { key: "device", value_type: super::schema::DEVICE, doc: super::schema::DEVICE_DOC },
    Field { key: "model.image_size", value_type: SIZE, doc: "Side of an image in pixels." },
    Field { key: "model.patch_size", value_type: SIZE, doc: "Side of a patch in pixels." },
    Field { key: "model.vision_layers", value_type: SIZE, doc: "Blocks of the vision tower." },
    Field { key: "model.vision_hidden_size", value_type: SIZE, doc: "Width of the vision tower." },
    Field {
        key: "model.vision_heads",
        value_type: SIZE,
        doc: "Attention heads of the vision tower.",
    },
    Field { key: "model.text_layers", value_type: SIZE, doc: "Layers of the text tower." },
    Field { key: "model.text_hidden_size", value_type: SIZE, doc: "Width of the text tower." },
    Field { key: "model.text_heads", value_type: SIZE, doc: "Attention heads of the text tower." },
    Field {
        key: "model.mlp_ratio",
        value_type: ValueType::Count(1, 64),
        doc: "Width of the MLPs over the width of their tower.",
    },
    Field {
        key: "model.vocab_size",
        value_type: ValueType::Count(8, 1 << 20),
        doc: "Word pieces, special tokens included.",
    },
    Field {
        key: "model.max_positions",
        value_type: ValueType::Count(4, 65_536),
        doc: "Longest text in tokens.",
    },
    Field {
        key: "model.projection_dim",
        value_type: SIZE,
        doc: "Length of the features that are compared.",
    },
    Field {
        key: "data.validation",
        value_type: ValueType::Texts,
        doc: "Pairs that are watched during the run; of an embedded set its validation split.",
    },
    Field {
        key: "data.test",
        value_type: ValueType::Texts,
        doc: "Pairs that are looked at once, at the end; of an embedded set its test split.",
    },
    Field {
        key: "data.eval_caption_keywords",
        value_type: ValueType::Choice(KEYWORDS),
        doc: "Keywords in the captions of validation and test: never, all (after the caption).",
    },
    Field {
        key: "data.batch_size",
        value_type: ValueType::Count(2, 1 << 20),
        doc: "Pairs in a step; each is a negative for the others.",
    },
    Field {
        key: "pretrain.learning_rate",
        value_type: ValueType::Real(Range::POSITIVE),
        doc: "Learning rate before the schedule's factor.",
    },
    Field {
        key: "pretrain.temperature",
        value_type: TEMPERATURE,
        doc: "Start of the trained temperature.",
    },
    Field {
        key: "pretrain.teachers",
        value_type: ValueType::Text,
        doc: "Folder with the teachers' weights.",
    },
    Field {
        key: "pretrain.image_cosine",
        value_type: WEIGHT,
        doc: "Weight of the cosine regression to the image teacher.",
    },
    Field {
        key: "pretrain.image_nce",
        value_type: WEIGHT,
        doc: "Weight of the InfoNCE between images and the image teacher's features.",
    },
    Field {
        key: "pretrain.image_nce_temperature",
        value_type: TEMPERATURE,
        doc: "Temperature of that InfoNCE.",
    },
    Field {
        key: "pretrain.patch_distill_weight",
        value_type: WEIGHT,
        doc: "Weight of the cosine regression of the patches to the image teacher's parts.",
    },
    Field {
        key: "pretrain.text_cosine",
        value_type: WEIGHT,
        doc: "Weight of the cosine regression to the text teacher.",
    },
    Field {
        key: "pretrain.joint_weight",
        value_type: WEIGHT,
        doc: "Weight of the cosine regression of both features to the teachers' joint space.",
    },
    Field {
        key: "pretrain.soft_target_weight",
        value_type: ValueType::Real(Range::SHARE),
        doc: "Share of the contrastive targets that follows the text teacher's similarities.",
    },
    Field {
        key: "pretrain.soft_temperature",
        value_type: TEMPERATURE,
        doc: "Temperature of those similarities.",
    },
    Field {
        key: "pretrain.image_only",
        value_type: ValueType::Count(0, 1 << 20),
        doc: "Images without a caption in each step, beside the pairs.",
    },
    Field {
        key: "pretrain.text_only",
        value_type: ValueType::Count(0, 65_536),
        doc: "Text-only strings in each step.",
    },
    Field {
        key: "pretrain.mask_prob",
        value_type: ValueType::Real(Range::BELOW_ONE),
        doc: "Share of tokens masked in training.",
    },
    Field {
        key: "pretrain.init_word_embeddings",
        value_type: ValueType::Switch,
        doc: "Whether word embeddings start from the text teacher's, by principal components.",
    },
    Field {
        key: "pretrain.itm_from_step",
        value_type: ValueType::Count(0, i64::MAX),
        doc: "First step with the matching loss.",
    },
    Field { key: "pretrain.itm_weight", value_type: WEIGHT, doc: "Weight of the matching loss." },
    Field {
        key: "pretrain.itm_pairs",
        value_type: ValueType::Count(2, 1 << 20),
        doc: "Pairs of the batch that the matching loss looks at, each with two negatives.",
    },
];

impl RunConfig for PretrainConfig {
    const DEFAULTS: &'static str = include_str!("../../configs/pretrain.toml");

    fn fields() -> Vec<&'static Field> {
        [FIELDS, OptimizerSection::FIELDS, ScheduleSection::FIELDS, EvaluationSection::FIELDS]
            .concat_refs()
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn check(&self) -> Result<(), ConfigError> {
        let m = &self.model;
        let divisible = [
            ("model.image_size", m.image_size, "model.patch_size", m.patch_size),
            (
                "model.vision_hidden_size",
                m.vision_hidden_size,
                "model.vision_heads",
                m.vision_heads,
            ),
            ("model.text_hidden_size", m.text_hidden_size, "model.text_heads", m.text_heads),
        ];
        for (whole, a, part, b) in divisible {
            if a % b != 0 {
                return Err(ConfigError::Conflict(format!(
                    "`{whole}` is {a}, which is no multiple of the {b} of `{part}`"
                )));
            }
        }
        self.schedule.check()
    }
}
