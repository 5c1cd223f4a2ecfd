//! `[adapter]`: kind, sizes and target modules.

use aurora_layers::{
    AdapterConfig, AdapterKind, LayerRange, LoraInit, TargetModules, Tower, Variant,
};
use serde::{Deserialize, Serialize};

use super::schema::{Field, Range, StringRule, ValueType};

/// `[adapter]`: the adapter that is trained beside the heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSection {
    /// Adapter kind, or the part of the backbone that is trained.
    pub kind: AdapterKind,
    /// Variant of the method.
    pub variant: Variant,
    /// Rank of the factors; width of a bottleneck.
    pub rank: usize,
    /// Scaling alpha of LoRA and DoRA, 0 for the rank.
    pub alpha: f64,
    /// True for rsLoRA: alpha over the root of the rank.
    pub use_rslora: bool,
    /// Initialization of LoRA's factors.
    pub init: LoraInit,
    /// Gated query transformation.
    pub gated_query: bool,
    /// Frame-aware attention.
    pub frame_aware: bool,
    /// Slots of the context bank, 0 for no context enhancement.
    pub context_slots: usize,
    /// Rank dropout: share of rank components dropped at each step.
    pub rank_dropout: f64,
    /// Backbone modules that are trained and saved beside the heads.
    pub modules_to_save: Vec<String>,
    /// Target modules.
    pub targets: TargetModules,
}

impl AdapterSection {
    /// Converts to an [`AdapterConfig`]. Gate and context go with a weight delta only, so that
    /// `kind = "heads"` trains the heads and nothing else.
    pub fn adapter_config(&self) -> AdapterConfig {
        let mut adapter_config = AdapterConfig::new(self.kind, self.variant, self.rank);
        if let AdapterKind::Lora | AdapterKind::Dora = self.kind {
            adapter_config.alpha = (self.alpha > 0.0).then_some(self.alpha);
            adapter_config.use_rslora = self.use_rslora;
        }
        if self.kind == AdapterKind::Lora {
            adapter_config.init = self.init;
        }
        adapter_config.gated_query &= self.gated_query;
        adapter_config.frame_aware = self.frame_aware;
        adapter_config.context_slots = adapter_config.context_slots.min(1) * self.context_slots;
        adapter_config.modules_to_save.extend(self.modules_to_save.iter().cloned());
        adapter_config.targets = self.targets.clone();
        adapter_config
    }

    /// Schema of the section.
    pub const FIELDS: &'static [Field] = &[
        Field {
            key: "adapter.kind",
            value_type: ValueType::Choice(&AdapterKind::NAMES),
            doc: "cp, tucker, tensor_train, lora, dora, vera and ia3 change frozen maps; bottleneck stands beside blocks; norms, biases, heads and full train those of the backbone.",
        },
        Field {
            key: "adapter.variant",
            value_type: ValueType::Choice(&["paper", "reference"]),
            doc: "paper is the paper's method, reference the arithmetic of its published code.",
        },
        Field {
            key: "adapter.rank",
            value_type: ValueType::Count(1, 4096),
            doc: "Rank of the factors, width of a bottleneck.",
        },
        Field {
            key: "adapter.alpha",
            value_type: ValueType::Real(Range::NOT_NEGATIVE),
            doc: "Strength of lora and dora, over the rank; 0 for the rank itself.",
        },
        Field {
            key: "adapter.use_rslora",
            value_type: ValueType::Switch,
            doc: "That strength over the root of the rank (rsLoRA).",
        },
        Field {
            key: "adapter.init",
            value_type: ValueType::Choice(&["zero", "pissa"]),
            doc: "Initialization of lora: zero, or pissa, from the largest singular values of the frozen weights.",
        },
        Field {
            key: "adapter.gated_query",
            value_type: ValueType::Switch,
            doc: "Gated query transformation in the fusion layers (cp and tucker).",
        },
        Field {
            key: "adapter.frame_aware",
            value_type: ValueType::Switch,
            doc: "Each text weighs the frames of a clip by how near they are to it (retrieval; in variant reference in training only).",
        },
        Field {
            key: "adapter.context_slots",
            value_type: ValueType::Count(0, 65_536),
            doc: "Text vectors in the bank of the context enhancement, 0 for none (cp and tucker).",
        },
        Field {
            key: "adapter.rank_dropout",
            value_type: ValueType::Real(Range::BELOW_ONE),
            doc: "Share of rank components left out at each training step.",
        },
        Field {
            key: "adapter.modules_to_save",
            value_type: ValueType::List(StringRule {
                what: "paths",
                fits: |text| !text.is_empty(),
            }),
            doc: "Modules of the backbone, by path, that are trained and saved beside the heads, at their rate.",
        },
        Field {
            key: "adapter.targets.target_modules",
            value_type: ValueType::List(StringRule {
                what: "ends of paths",
                fits: |text| !text.is_empty(),
            }),
            doc: "Maps that are tuned, by the end of their path (\"attn.qkv\", \"query\"); none given: all.",
        },
        Field {
            key: "adapter.targets.pattern",
            value_type: ValueType::Pattern(|pattern| {
                TargetModules::pattern_error(pattern).is_none()
            }),
            doc: "A regular expression that the whole path has to match; empty for any path.",
        },
        Field {
            key: "adapter.targets.layers_to_transform",
            value_type: ValueType::List(StringRule {
                what: "layers and ranges (\"3\", \"0-5\")",
                fits: |text| LayerRange::parse(text).is_some(),
            }),
            doc: "Blocks and layers that are tuned, counted from 0 in each tower; none given: all.",
        },
        Field {
            key: "adapter.targets.towers",
            value_type: ValueType::List(StringRule {
                what: "\"vision\", \"text\", \"decoder\"",
                fits: is_tower,
            }),
            doc: "Towers that are tuned: vision, text, decoder; none given: all.",
        },
        Field {
            key: "adapter.targets.exclude_modules",
            value_type: ValueType::List(StringRule {
                what: "ends of paths",
                fits: |text| !text.is_empty(),
            }),
            doc: "Maps that are left out, by the end of their path.",
        },
    ];
}

fn is_tower(text: &str) -> bool {
    Tower::ALL.iter().any(|tower| tower.name() == text)
}
