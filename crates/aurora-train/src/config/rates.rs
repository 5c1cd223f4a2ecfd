//! `[optimizer.lr]`: learning rates of a tuning run, with defaults by adapter kind.

use aurora_layers::{AdapterKind, ParamGroup};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::schema::{Field, Range, ValueType};
use crate::optimizer::Group;

/// `[optimizer.lr]`: learning rates before the schedule's factor, one for each parameter group of the adapter kind. A
/// resolved configuration has all of these and no others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRates {
    /// Factors, cores and vectors of the adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factors: Option<f64>,
    /// Gated query transformation and context gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<f64>,
    /// Heads, temperature and `modules_to_save`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<f64>,
    /// Backbone tensors that the kind trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<f64>,
}

/// Schema row of a rate.
const fn rate(key: &'static str, doc: &'static str) -> Field {
    Field { key, value_type: ValueType::Real(Range::POSITIVE), doc }
}

impl LearningRates {
    /// Schema of the section.
    pub const FIELDS: &'static [Field] = &[
        rate(
            "optimizer.lr.factors",
            "Learning rate of what the adapter adds to the backbone; cp, tucker, tensor_train, lora, dora, vera, ia3 and bottleneck have it.",
        ),
        rate(
            "optimizer.lr.gates",
            "Learning rate of query gate and context gate; of the same kinds.",
        ),
        rate(
            "optimizer.lr.heads",
            "Learning rate of projections and matching head; every kind has it.",
        ),
        rate(
            "optimizer.lr.backbone",
            "Learning rate of what is trained of the towers; norms, biases and full have it.",
        ),
    ];

    /// Default rates of an adapter kind.
    pub fn defaults(kind: AdapterKind) -> Self {
        let adapter = |factors, heads| Self {
            factors: Some(factors),
            gates: Some(1e-3),
            heads: Some(heads),
            backbone: None,
        };
        let towers =
            |backbone| Self { heads: Some(1e-3), backbone: Some(backbone), ..Self::default() };
        match kind {
            AdapterKind::Cp => adapter(1e-2, 3e-3),
            AdapterKind::Tucker
            | AdapterKind::TensorTrain
            | AdapterKind::Lora
            | AdapterKind::Dora
            | AdapterKind::Vera => adapter(3e-3, 1e-3),
            AdapterKind::Ia3 => adapter(1e-2, 1e-3),
            AdapterKind::Bottleneck => adapter(1e-3, 1e-3),
            AdapterKind::Norms | AdapterKind::Biases => towers(1e-3),
            AdapterKind::Heads => Self { heads: Some(1e-3), ..Self::default() },
            AdapterKind::Full => towers(3e-4),
        }
    }

    /// True if no rate is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Resolves the rates of a kind: those that are given, and its defaults for the rest.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] for a given rate that the kind does not have.
    pub fn resolve(&self, kind: AdapterKind) -> Result<Self, ConfigError> {
        let defaults = Self::defaults(kind);
        let missing = |((name, given), (_, default)): (Row, Row)| {
            (given.is_some() && default.is_none()).then_some(name)
        };
        if let Some(name) = self.rows().into_iter().zip(defaults.rows()).find_map(missing) {
            let had = defaults.rows().into_iter().filter(|(_, rate)| rate.is_some());
            let had: Vec<&str> = had.map(|(name, _)| name).collect();
            return Err(ConfigError::Conflict(format!(
                "`optimizer.lr.{name}` is given, and `adapter.kind` is {:?}, whose learning rates in [optimizer.lr] are: {}",
                kind.name(),
                had.join(", ")
            )));
        }
        Ok(self.over(defaults))
    }

    /// Name and value of each rate.
    fn rows(&self) -> [Row; 4] {
        [
            ("factors", self.factors),
            ("gates", self.gates),
            ("heads", self.heads),
            ("backbone", self.backbone),
        ]
    }

    /// `defaults`, overridden by the rates that are given here.
    fn over(&self, defaults: Self) -> Self {
        let over = |given: Option<f64>, default: Option<f64>| default.map(|d| given.unwrap_or(d));
        Self {
            factors: over(self.factors, defaults.factors),
            gates: over(self.gates, defaults.gates),
            heads: over(self.heads, defaults.heads),
            backbone: over(self.backbone, defaults.backbone),
        }
    }

    /// Optimizer groups of an adapter kind, named by [`LearningRates::group`]. Weight decay acts on
    /// heads and backbone, except where norms or biases alone are tuned: it would pull norm scales away
    /// from 1. `modules_to_save` learn at the rate of the heads.
    pub fn groups(&self, kind: AdapterKind, weight_decay: f64) -> Vec<Group> {
        let Self { factors, gates, heads, backbone } = self.over(Self::defaults(kind));
        let decay = match kind {
            AdapterKind::Norms | AdapterKind::Biases => 0.0,
            _ => weight_decay,
        };
        let of = |name, rate: Option<f64>, decay| rate.map(|rate| Group::new(name, rate, decay));
        [
            of("factors", factors, 0.0),
            of("gates", gates, 0.0),
            of("heads", heads, weight_decay),
            of("temperature", heads, 0.0),
            of("backbone", backbone.or(heads), decay),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Group name of a part of a tuned model; `None` for parts that are never trained.
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

/// Name and value of a rate.
type Row = (&'static str, Option<f64>);
