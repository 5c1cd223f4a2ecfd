//! Adapter configuration: kind, target modules, gates, context and modules to save.

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

/// Variant of the method; variants differ in the delta, the gate and the context (see `docs/architecture.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The paper's method (Wang et al. 2023, arXiv:2305.08381): zero-initialized gates, context for every pair in
    /// training and evaluation.
    Paper,
    /// The arithmetic of the reference PyTorch code.
    Reference,
}

/// Adapter kind: which parameters are added or trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// CP decomposition shared by all sites.
    Cp,
    /// Tucker decomposition shared by all sites.
    Tucker,
    /// Tensor train: a small core per slice between two shared factors.
    TensorTrain,
    /// LoRA: two factors per site.
    Lora,
    /// DoRA: a LoRA per site, and the norm of each row of its weight.
    Dora,
    /// VeRA: two vectors per site around shared random matrices.
    Vera,
    /// IA3: a scale on each output of a site.
    Ia3,
    /// Bottleneck adapter parallel to the MLP of each block.
    Bottleneck,
    /// Layer norms of the backbone.
    Norms,
    /// Biases of the backbone, those of the heads too.
    Biases,
    /// Heads alone, no weight delta: the baseline every adapter has to beat.
    Heads,
    /// Full fine-tuning: every weight of the backbone.
    Full,
}

impl AdapterKind {
    /// All kinds.
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

    /// Names of all kinds in configurations and adapter folders, in the order of [`Self::ALL`].
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

    /// Name in configurations and adapter folders.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Initialization of LoRA's factors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraInit {
    /// A random, B zero.
    #[default]
    Zero,
    /// PiSSA: both from the largest singular values of the frozen weight (Meng et al. 2024, arXiv:2404.02948).
    Pissa,
}

impl LoraInit {
    fn is_zero(&self) -> bool {
        *self == Self::Zero
    }
}

/// Adapter configuration, as written in `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Adapter kind.
    #[serde(rename = "adapter_type")]
    pub kind: AdapterKind,
    /// Variant of the method.
    pub variant: Variant,
    /// Rank of the factors, or width of a bottleneck; unused by kinds without either.
    pub rank: usize,
    /// Alpha of LoRA and DoRA; absent means the rank, which makes the scale 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// rsLoRA: scale `alpha / sqrt(rank)` instead of `alpha / rank` (Kalajdzievski 2023, arXiv:2312.03732).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_rslora: bool,
    /// Initialization of LoRA's factors.
    #[serde(default, skip_serializing_if = "LoraInit::is_zero")]
    pub init: LoraInit,
    /// Target modules: the sites with a delta; for `norms`, `biases` and `full` the trained modules.
    #[serde(default, skip_serializing_if = "TargetModules::is_all")]
    pub targets: TargetModules,
    /// Gated query transformation in the fusion layers.
    pub gated_query: bool,
    /// Informative context enhancement: slots of the bank of text vectors (variant reference: any but 0 turns it on);
    /// unused by models without a matching head.
    pub context_slots: usize,
    /// Frame-aware attention: each text weighs the frames of a clip (variant reference: in training only).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frame_aware: bool,
    /// Heads and further modules of the backbone, by path, that are trained and saved with the adapter.
    pub modules_to_save: Vec<String>,
}

/// Heads of a retrieval model.
pub const HEADS: [&str; 3] = ["vision_proj", "text_proj", "itm_head"];

/// Path of the module that a tensor of the backbone belongs to.
fn module(name: &str) -> &str {
    name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap_or(name)
}

impl AdapterConfig {
    /// Default configuration of a kind: variant paper trains all heads, reference only those the reference code trains.
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

    /// Adapter rule of this kind; none for kinds that add nothing to the frozen layers.
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

    /// True if this kind trains the backbone tensor of this name, targets aside.
    fn trains(&self, name: &str) -> bool {
        match self.kind {
            AdapterKind::Full => true,
            AdapterKind::Norms => is_norm(name),
            AdapterKind::Biases => name.ends_with(".bias"),
            _ => false,
        }
    }

    /// True if only heads are trained, so that all states below them are the backbone's.
    pub fn is_heads_alone(&self) -> bool {
        let head = |module: &String| HEADS.contains(&module.as_str());
        self.kind == AdapterKind::Heads && self.modules_to_save.iter().all(head)
    }

    /// Dry run of the targets on a backbone of these sizes: the selected and the skipped paths. They are paths of
    /// sites; for kinds that train the backbone's own tensors, of modules.
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

    /// Sites with a delta; none for kinds without an adapter rule.
    pub(crate) fn sites(&self, config: &BlipConfig) -> Result<Vec<Site>> {
        match self.adapter() {
            None => Ok(Vec::new()),
            Some(_) => self.targets.sites(&crate::sites(config)),
        }
    }

    /// True if there is a context: it feeds the matching head, which only retrieval models have.
    pub(crate) fn has_context(&self, config: &BlipConfig) -> bool {
        self.context_slots > 0 && config.architecture == Architecture::Retrieval
    }

    /// Specs of the gates' and the context's tensors on a backbone of these sizes.
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

    /// Names and shapes of all tensors of this adapter on a backbone of these sizes.
    ///
    /// # Errors
    /// A configuration that contradicts itself; targets or modules that match nothing.
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

    /// True if this kind uses the rank.
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

    /// Names and shapes of the backbone tensors that are trained, by the kind or by `modules_to_save`.
    fn backbone_param_shapes(
        &self,
        config: &BlipConfig,
    ) -> Result<Vec<(String, candle_core::Shape)>> {
        let chosen: BTreeSet<String> = match self.adapter() {
            None => self.target_report(config)?.selected.into_iter().collect(),
            Some(_) => BTreeSet::new(),
        };
        let all = Blip::param_shapes(config);
        // A head in modules_to_save is no error for a model without heads: only retrieval has them.
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
