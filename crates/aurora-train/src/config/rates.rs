//! Learning rates, by kind of adapter.

use aurora_layers::{AdapterKind, ParamGroup};
use serde::{Deserialize, Serialize};

use super::schema::{Field, Range, ValueType};
use crate::optimizer::Group;

/// Learning rates of one kind of adapter, before the schedule's factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorRates {
    /// Factors of the weight deltas.
    pub factors: f64,
    /// Gated query transformation and context gate.
    pub gates: f64,
    /// Heads.
    pub heads: f64,
}

/// Learning rates of training the heads alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadRates {
    /// Heads.
    pub heads: f64,
}

/// Learning rates of tuning the backbone's own tensors, all or some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullRates {
    /// What is tuned of the towers.
    pub backbone: f64,
    /// Heads.
    pub heads: f64,
}

/// `[learning_rates.*]`: one section per kind of adapter, so that changing the kind alone gives
/// each its own good rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRates {
    /// For `adapter.kind = "cp"`.
    pub cp: FactorRates,
    /// For `adapter.kind = "tucker"`.
    pub tucker: FactorRates,
    /// For `adapter.kind = "tensor_train"`.
    pub tensor_train: FactorRates,
    /// For `adapter.kind = "lora"`.
    pub lora: FactorRates,
    /// For `adapter.kind = "dora"`.
    pub dora: FactorRates,
    /// For `adapter.kind = "vera"`.
    pub vera: FactorRates,
    /// For `adapter.kind = "ia3"`.
    pub ia3: FactorRates,
    /// For `adapter.kind = "bottleneck"`.
    pub bottleneck: FactorRates,
    /// For `adapter.kind = "norms"`.
    pub norms: FullRates,
    /// For `adapter.kind = "biases"`.
    pub biases: FullRates,
    /// For `adapter.kind = "heads"`.
    pub heads: HeadRates,
    /// For `adapter.kind = "full"`.
    pub full: FullRates,
}

/// A row of the table.
const fn rate(key: &'static str, doc: &'static str) -> Field {
    Field { key, value_type: ValueType::Real(Range::POSITIVE), doc }
}

impl LearningRates {
    /// Its keys.
    pub const FIELDS: &'static [Field] = &[
        rate("learning_rates.cp.factors", "Factors of the deltas."),
        rate("learning_rates.cp.gates", "Query gate and context gate."),
        rate("learning_rates.cp.heads", "Projections and matching head."),
        rate("learning_rates.tucker.factors", "Factors and core."),
        rate("learning_rates.tucker.gates", "Query gate and context gate."),
        rate("learning_rates.tucker.heads", "Projections and matching head."),
        rate("learning_rates.tensor_train.factors", "Factors and cores."),
        rate("learning_rates.tensor_train.gates", "Query gate and context gate."),
        rate("learning_rates.tensor_train.heads", "Projections and matching head."),
        rate("learning_rates.lora.factors", "Factors of the deltas."),
        rate("learning_rates.lora.gates", "Query gate and context gate."),
        rate("learning_rates.lora.heads", "Projections and matching head."),
        rate("learning_rates.dora.factors", "Factors of the deltas and lengths of rows."),
        rate("learning_rates.dora.gates", "Query gate and context gate."),
        rate("learning_rates.dora.heads", "Projections and matching head."),
        rate("learning_rates.vera.factors", "The two vectors."),
        rate("learning_rates.vera.gates", "Query gate and context gate."),
        rate("learning_rates.vera.heads", "Projections and matching head."),
        rate("learning_rates.ia3.factors", "Factors of the outputs."),
        rate("learning_rates.ia3.gates", "Query gate and context gate."),
        rate("learning_rates.ia3.heads", "Projections and matching head."),
        rate("learning_rates.bottleneck.factors", "Maps and norms of the bottlenecks."),
        rate("learning_rates.bottleneck.gates", "Query gate and context gate."),
        rate("learning_rates.bottleneck.heads", "Projections and matching head."),
        rate("learning_rates.norms.backbone", "Layer norms of both towers."),
        rate("learning_rates.norms.heads", "Projections and matching head."),
        rate("learning_rates.biases.backbone", "Biases of both towers."),
        rate("learning_rates.biases.heads", "Projections and matching head."),
        rate("learning_rates.heads.heads", "Projections and matching head."),
        rate("learning_rates.full.backbone", "Both towers."),
        rate("learning_rates.full.heads", "Projections and matching head."),
    ];

    /// The optimiser's groups for a kind of adapter, named by [`LearningRates::group`]. Weight
    /// decay acts on heads and backbone, except where norms or biases alone are tuned: it would
    /// pull norms away from one. Modules of the backbone that an adapter trains besides learn at the rate of its heads.
    pub fn groups(&self, kind: AdapterKind, weight_decay: f64) -> Vec<Group> {
        let heads = |rate, backbone, decay| {
            vec![
                Group::new("heads", rate, weight_decay),
                Group::new("temperature", rate, 0.0),
                Group::new("backbone", backbone, decay),
            ]
        };
        let of = |rates: &FactorRates| {
            let mut groups = vec![
                Group::new("factors", rates.factors, 0.0),
                Group::new("gates", rates.gates, 0.0),
            ];
            groups.extend(heads(rates.heads, rates.heads, weight_decay));
            groups
        };
        match kind {
            AdapterKind::Cp => of(&self.cp),
            AdapterKind::Tucker => of(&self.tucker),
            AdapterKind::TensorTrain => of(&self.tensor_train),
            AdapterKind::Lora => of(&self.lora),
            AdapterKind::Dora => of(&self.dora),
            AdapterKind::Vera => of(&self.vera),
            AdapterKind::Ia3 => of(&self.ia3),
            AdapterKind::Bottleneck => of(&self.bottleneck),
            AdapterKind::Norms => heads(self.norms.heads, self.norms.backbone, 0.0),
            AdapterKind::Biases => heads(self.biases.heads, self.biases.backbone, 0.0),
            AdapterKind::Heads => heads(self.heads.heads, self.heads.heads, weight_decay),
            AdapterKind::Full => heads(self.full.heads, self.full.backbone, weight_decay),
        }
    }

    /// The group of a part of a tuned model; none for what is never trained.
    pub fn group(part: ParamGroup) -> Option<&'static str> {
        match part {
            ParamGroup::Factor => Some("factors"),
            ParamGroup::Gate => Some("gates"),
            ParamGroup::Head => Some("heads"),
            ParamGroup::Backbone => Some("backbone"),
            ParamGroup::Buffer => None,
        }
    }
}
