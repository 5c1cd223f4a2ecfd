//! What a tuning consists of: its kind, where it is put, and what stands beside it.

use crate::adapter::{
    Adapter, Bottleneck, Cp, Dora, Ia3, Init, Lora, MlpLayout, ParamSpec, TensorTrain, Tucker, Vera,
};
use crate::layers::is_norm;
use crate::target_modules::below;
use crate::{
    Architecture, Blip, BlipConfig, Error, Result, Site, TargetModules, TargetReport, context, gate,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which reading of the method: they differ in the delta, the gate and the context (see `docs/architecture.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The paper's method: zero-initialized gates, context for every pair in training and evaluation.
    Paper,
    /// The arithmetic of the reference code.
    Reference,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// CP factors on every site.
    Cp,
    /// Tucker factors on every site.
    Tucker,
    /// A small core for each slice between two shared factors.
    TensorTrain,
    /// Two factors for each site.
    Lora,
    /// Two factors for each site, and the length of each row of its weight.
    Dora,
    /// Two vectors for each site around shared random matrices.
    Vera,
    /// A factor on each output of a site.
    Ia3,
    /// A narrow map beside the MLP of each block.
    Bottleneck,
    /// The layer norms of the backbone.
    Norms,
    /// The biases of the backbone, those of the heads too.
    Biases,
    /// The heads alone, no weight delta: the baseline every adapter has to beat.
    Heads,
    /// Every weight of the backbone: the other end of the scale.
    Full,
}

impl AdapterKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Cp,
        Self::Tucker,
        Self::TensorTrain,
        Self::Lora,
        Self::Dora,
        Self::Vera,
        Self::Ia3,
        Self::Bottleneck,
        Self::Norms,
        Self::Biases,
        Self::Heads,
        Self::Full,
    ];

    /// Their names in configurations and adapter folders, in the same order.
    pub const NAMES: [&str; 12] = [
        "cp",
        "tucker",
        "tensor_train",
        "lora",
        "dora",
        "vera",
        "ia3",
        "bottleneck",
        "norms",
        "biases",
        "heads",
        "full",
    ];

    /// Its name in configurations and adapter folders.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// How the factors of a LoRA are initialized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraInit {
    /// A at random, B zero.
    #[default]
    Zero,
    /// Both from the largest singular values of the frozen weight (PiSSA).
    Pissa,
}

impl LoraInit {
    fn is_zero(&self) -> bool {
        *self == Self::Zero
    }
}

/// What a tuning adds and trains; stands in `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// The kind of weight delta.
    #[serde(rename = "adapter_type")]
    pub kind: AdapterKind,
    /// The reading of the method.
    pub variant: Variant,
    /// Rank of the factors, width of a bottleneck; of no meaning for kinds without.
    pub rank: usize,
    /// Strength of LoRA and DoRA; the rank where nothing is said, which makes its scale 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// That strength over the root of the rank instead of the rank.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_rslora: bool,
    /// How LoRA's factors are initialized.
    #[serde(default, skip_serializing_if = "LoraInit::is_zero")]
    pub init: LoraInit,
    /// On which maps the adapter is put; of `norms`, `biases` and `full`, which modules are trained.
    #[serde(default, skip_serializing_if = "TargetModules::is_all")]
    pub targets: TargetModules,
    /// Gated query transformation in the fusion layers.
    pub gated_query: bool,
    /// Informative context enhancement: slots of the bank of text vectors (variant reference: any but 0 turns it on); of
    /// no meaning for models that match no pairs.
    pub context_slots: usize,
    /// Frame-aware attention: each text weighs the frames of a clip (variant reference: in training only).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frame_aware: bool,
    /// Heads, and paths of further modules of the backbone, that are trained and saved with the adapter.
    pub modules_to_save: Vec<String>,
}

/// The heads of a retrieval model.
pub const HEADS: [&str; 3] = ["vision_proj", "text_proj", "itm_head"];

/// Path of the module a tensor of the backbone belongs to.
fn module(name: &str) -> &str {
    name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap_or(name)
}

impl AdapterConfig {
    /// The defaults of a kind: variant paper trains all heads, reference only those the reference code trains.
    pub fn new(kind: AdapterKind, variant: Variant, rank: usize) -> Self {
        let adapts = matches!(kind, AdapterKind::Cp | AdapterKind::Tucker);
        let modules = match variant {
            Variant::Paper => HEADS.to_vec(),
            Variant::Reference => vec!["vision_proj", "itm_head"],
        };
        Self {
            kind,
            variant,
            rank,
            alpha: None,
            use_rslora: false,
            init: LoraInit::Zero,
            targets: TargetModules::default(),
            gated_query: adapts,
            context_slots: if adapts { 64 } else { 0 },
            frame_aware: false,
            modules_to_save: modules.into_iter().map(String::from).collect(),
        }
    }

    /// The rule of what is added to frozen maps, if this kind adds anything.
    pub fn adapter(&self) -> Option<Box<dyn Adapter>> {
        let rank = self.rank;
        let mlp_layout = match self.variant {
            Variant::Paper => MlpLayout::Sliced,
            Variant::Reference => MlpLayout::Interleaved,
        };
        let lora = || Lora {
            rank,
            alpha: self.alpha.unwrap_or(rank as f64),
            use_rslora: self.use_rslora,
            init: self.init,
        };
        Some(match self.kind {
            AdapterKind::Cp => Box::new(Cp { rank }),
            AdapterKind::Tucker => Box::new(Tucker { rank, mlp_layout }),
            AdapterKind::TensorTrain => Box::new(TensorTrain { rank }),
            AdapterKind::Lora => Box::new(lora()),
            AdapterKind::Dora => Box::new(Dora { lora: lora() }),
            AdapterKind::Vera => Box::new(Vera { rank, d_initial: 0.1 }),
            AdapterKind::Ia3 => Box::new(Ia3),
            AdapterKind::Bottleneck => Box::new(Bottleneck { rank }),
            AdapterKind::Norms | AdapterKind::Biases | AdapterKind::Heads | AdapterKind::Full => {
                return None;
            }
        })
    }

    /// Whether tensors of the backbone's own are trained by this kind, and whether the one of this name may be.
    fn trains(&self, name: &str) -> bool {
        match self.kind {
            AdapterKind::Full => true,
            AdapterKind::Norms => is_norm(name),
            AdapterKind::Biases => name.ends_with(".bias"),
            _ => false,
        }
    }

    /// Whether nothing but heads is trained: all states below them are the backbone's.
    pub fn is_heads_alone(&self) -> bool {
        let head = |module: &String| HEADS.contains(&module.as_str());
        self.kind == AdapterKind::Heads && self.modules_to_save.iter().all(head)
    }

    /// What is tuned of a backbone of these sizes, and what its targets leave out: a dry run. Paths are those of sites;
    /// for kinds that train the backbone's own tensors, those of modules.
    ///
    /// # Errors
    /// As [`TargetModules::select_paths`]; targets of a kind that has none.
    pub fn target_report(&self, config: &BlipConfig) -> Result<TargetReport> {
        if self.adapter().is_some() {
            return self.targets.select(&crate::sites(config));
        }
        let names = Blip::param_shapes(config).into_iter().map(|(name, _)| name);
        let names: Vec<String> = names.filter(|name| self.trains(name)).collect();
        let modules: BTreeSet<&str> = names.iter().map(|name| module(name)).collect();
        if modules.is_empty() && !self.targets.is_all() {
            let reason = "has no targets; only its modules_to_save are trained";
            return Err(Error::config("kind", self.kind.name(), reason));
        }
        self.targets.select_paths(modules)
    }

    /// The sites the adapter is put on; none without one.
    pub(crate) fn sites(&self, config: &BlipConfig) -> Result<Vec<Site>> {
        match self.adapter() {
            None => Ok(Vec::new()),
            Some(_) => self.targets.sites(&crate::sites(config)),
        }
    }

    /// Whether there is a context: it enhances what the matching head reads, which retrieval alone has.
    pub(crate) fn has_context(&self, config: &BlipConfig) -> bool {
        self.context_slots > 0 && config.architecture == Architecture::Retrieval
    }

    /// Every tensor that gates and context add to a backbone of these sizes.
    pub(crate) fn gate_and_context_specs(&self, config: &BlipConfig) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        let width = config.text.hidden_size;
        if self.gated_query {
            for layer in gate::layers(config) {
                for branch in ["self", "cross"] {
                    let mut add = |part: &str, size: usize, init| {
                        specs.push(ParamSpec::new(gate::name(&layer, branch, part), size, init));
                    };
                    match self.variant {
                        Variant::Paper => {
                            add("gate", 1, Init::Zeros);
                            add("scale", width, Init::Ones);
                            add("shift", width, Init::Zeros);
                        }
                        Variant::Reference => {
                            add("scale", width, Init::Normal(2e-4));
                            add("shift", width, Init::Normal(2e-4));
                        }
                    }
                }
            }
        }
        if self.has_context(config) && self.variant == Variant::Paper {
            specs.push(ParamSpec::new(context::GATE, 1, Init::Zeros));
            specs.push(ParamSpec::new(context::BANK, (self.context_slots, width), Init::Zeros));
        }
        specs
    }

    /// Names and shapes of every tensor an adapter of this specification has on a backbone of these sizes.
    ///
    /// # Errors
    /// A specification that contradicts itself; targets or modules that match nothing.
    pub fn param_shapes(&self, config: &BlipConfig) -> Result<Vec<(String, candle_core::Shape)>> {
        self.check()?;
        let mut specs = match self.adapter() {
            Some(adapter) => adapter.param_specs(&self.sites(config)?)?,
            None => Vec::new(),
        };
        specs.extend(self.gate_and_context_specs(config));
        let mut shapes: Vec<_> = specs.into_iter().map(|spec| (spec.name, spec.shape)).collect();
        shapes.extend(self.backbone_param_shapes(config)?);
        Ok(shapes)
    }

    /// Whether the rank means something to this kind.
    pub fn is_ranked(&self) -> bool {
        self.adapter().is_some() && self.kind != AdapterKind::Ia3
    }

    fn check(&self) -> Result<()> {
        if self.rank == 0 && self.is_ranked() {
            return Err(Error::config("rank", 0, "must be at least 1"));
        }
        if self.init == LoraInit::Pissa && self.kind != AdapterKind::Lora {
            let reason = format!("is an initialization of lora, not of {}", self.kind.name());
            return Err(Error::config("init", "pissa", reason));
        }
        Ok(())
    }

    /// Names and shapes of the backbone's own tensors that are trained: by the kind, and by modules_to_save.
    fn backbone_param_shapes(
        &self,
        config: &BlipConfig,
    ) -> Result<Vec<(String, candle_core::Shape)>> {
        let chosen: BTreeSet<String> = match self.adapter() {
            None => self.target_report(config)?.selected.into_iter().collect(),
            Some(_) => BTreeSet::new(),
        };
        let all = Blip::param_shapes(config);
        // A head is no mistake where a model has none: only retrieval has heads.
        let further = |saved: &&String| !HEADS.contains(&saved.as_str());
        for saved in self.modules_to_save.iter().filter(further) {
            if !all.iter().any(|(name, _)| below(name, saved)) {
                let mut modules: Vec<&str> = all.iter().map(|(name, _)| module(name)).collect();
                modules.dedup();
                modules.retain(|module| !module.contains(|c: char| c.is_ascii_digit()));
                let shown = modules.join(", ");
                let reason = format!(
                    "is no head and no path of the backbone; there are {shown}, and what is inside blocks and layers"
                );
                return Err(Error::config("modules_to_save", saved, reason));
            }
        }
        let taken = |name: &str| {
            let saved = self.modules_to_save.iter().any(|saved| below(name, saved));
            saved || (self.trains(name) && chosen.contains(module(name)))
        };
        Ok(all.into_iter().filter(|(name, _)| taken(name)).collect())
    }
}

#[cfg(test)]
#[path = "adapter_config_tests.rs"]
mod tests;
