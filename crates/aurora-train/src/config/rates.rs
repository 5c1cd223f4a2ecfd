//! Learning rates, by kind of adapter.

use aurora_layers::{AdapterKind, Part};
use serde::{Deserialize, Serialize};

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

/// Learning rates of full tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullRates {
    /// Towers.
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
    /// For `adapter.kind = "vera"`.
    pub vera: FactorRates,
    /// For `adapter.kind = "heads"`.
    pub heads: HeadRates,
    /// For `adapter.kind = "full"`.
    pub full: FullRates,
}

impl LearningRates {
    /// The optimiser's groups for a kind of adapter, named by [`LearningRates::group`]. Weight
    /// decay acts on heads and backbone alone.
    pub fn groups(&self, kind: AdapterKind, weight_decay: f64) -> Vec<Group> {
        let of = |rates: &FactorRates| {
            vec![
                Group::new("factors", rates.factors, 0.0),
                Group::new("gates", rates.gates, 0.0),
                Group::new("heads", rates.heads, weight_decay),
                Group::new("temperature", rates.heads, 0.0),
            ]
        };
        let heads = |rate| {
            vec![Group::new("heads", rate, weight_decay), Group::new("temperature", rate, 0.0)]
        };
        match kind {
            AdapterKind::Cp => of(&self.cp),
            AdapterKind::Tucker => of(&self.tucker),
            AdapterKind::TensorTrain => of(&self.tensor_train),
            AdapterKind::Lora => of(&self.lora),
            AdapterKind::Vera => of(&self.vera),
            AdapterKind::Heads => heads(self.heads.heads),
            AdapterKind::Full => {
                let mut groups = heads(self.full.heads);
                groups.push(Group::new("backbone", self.full.backbone, weight_decay));
                groups
            }
        }
    }

    /// The group of a part of a tuned model; none for what is never trained.
    pub fn group(part: Part) -> Option<&'static str> {
        match part {
            Part::Factor => Some("factors"),
            Part::Gate => Some("gates"),
            Part::Head => Some("heads"),
            Part::Backbone => Some("backbone"),
            Part::Buffer => None,
        }
    }
}
