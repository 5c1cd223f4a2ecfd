//! Everything that tuning adds to a frozen backbone: adapter factors, gates, context, and the heads it trains.

use crate::adapter::{Adapter, Cp, Init, Lora, MlpLayout, Slot, TensorTrain, Tucker, Vera};
use crate::tensors::{Tensors, check, get};
use crate::video::FrameAware;
use crate::{Backbone, Blip, BlipConfig, Error, Form, Prepared, Result, context, gate};
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Which reading of the method: they differ in the delta, the gate and the context (see `docs/architecture.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// The paper's method: zero-initialised gates, context for every pair in training and evaluation.
    Aurora,
    /// The arithmetic of the released code.
    Released,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// CP factors on every site.
    Cp,
    /// Tucker factors on every site.
    Tucker,
    /// A small core for each slice between two shared factors.
    #[serde(rename = "tensor_train")]
    TensorTrain,
    /// Two factors for each site.
    Lora,
    /// Two vectors for each site around shared random matrices.
    Vera,
    /// The heads alone, no weight delta: the baseline every adapter has to beat.
    Heads,
    /// Every weight of the backbone: the other end of the scale.
    Full,
}

/// What a tuning adds and trains; stands in `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuneSpec {
    /// The kind of weight delta.
    pub kind: AdapterKind,
    /// The reading of the method.
    pub flavour: Flavour,
    /// Rank of the factors; of no meaning for kinds without.
    pub rank: usize,
    /// LoRA's strength; the rank where nothing is said, which makes its scale 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// LoRA's strength over the root of the rank instead of the rank.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rank_stabilised: bool,
    /// Gated query transformation in the fusion layers.
    pub gate: bool,
    /// Informative context enhancement: slots of the bank of text vectors (flavour released: any but 0 turns it on); of
    /// no meaning for models that match no pairs.
    pub context_slots: usize,
    /// Frame-aware attention: each text weighs the frames of a clip (flavour released: in training only).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frame_aware: bool,
    /// Heads that are trained and saved with the adapter.
    pub modules_to_save: Vec<String>,
}

/// The heads of a retrieval model.
pub const HEADS: [&str; 3] = ["vision_proj", "text_proj", "itm_head"];

/// What a tuned tensor is, which decides its learning rate and whether it learns at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A factor of the weight deltas.
    Factor,
    /// Gated query transformation or the context's gate.
    Gate,
    /// A head of the backbone.
    Head,
    /// A weight of the backbone (full tuning).
    Backbone,
    /// Kept with the adapter, never trained.
    Buffer,
}

impl TuneSpec {
    /// The defaults of a kind: flavour aurora trains all heads, released only those the released code trains.
    pub fn new(kind: AdapterKind, flavour: Flavour, rank: usize) -> Self {
        let adapts = matches!(kind, AdapterKind::Cp | AdapterKind::Tucker);
        let modules = match flavour {
            Flavour::Aurora => HEADS.to_vec(),
            Flavour::Released => vec!["vision_proj", "itm_head"],
        };
        Self {
            kind,
            flavour,
            rank,
            alpha: None,
            rank_stabilised: false,
            gate: adapts,
            context_slots: if adapts { 64 } else { 0 },
            frame_aware: false,
            modules_to_save: modules.into_iter().map(String::from).collect(),
        }
    }

    /// The rule of the weight deltas, if this kind has any.
    pub fn adapter(&self) -> Option<Box<dyn Adapter>> {
        let mlp_layout = match self.flavour {
            Flavour::Aurora => MlpLayout::Sliced,
            Flavour::Released => MlpLayout::Interleaved,
        };
        match self.kind {
            AdapterKind::Cp => Some(Box::new(Cp { rank: self.rank })),
            AdapterKind::Tucker => Some(Box::new(Tucker { rank: self.rank, mlp_layout })),
            AdapterKind::TensorTrain => Some(Box::new(TensorTrain { rank: self.rank })),
            AdapterKind::Lora => Some(Box::new(Lora {
                rank: self.rank,
                alpha: self.alpha.unwrap_or(self.rank as f64),
                rank_stabilised: self.rank_stabilised,
            })),
            AdapterKind::Vera => Some(Box::new(Vera { rank: self.rank, d_start: 0.1 })),
            AdapterKind::Heads | AdapterKind::Full => None,
        }
    }

    /// Whether there is a context: it enhances what the matching head reads, which retrieval alone has.
    fn has_context(&self, config: &BlipConfig) -> bool {
        self.context_slots > 0 && config.form == Form::Retrieval
    }

    /// Every tensor beside the heads that this tuning adds to a backbone of these sizes.
    fn slots(&self, config: &BlipConfig) -> Result<Vec<Slot>> {
        if self.rank == 0 && self.adapter().is_some() {
            return Err(Error::config("rank", 0, "must be at least 1"));
        }
        let mut slots = match self.adapter() {
            Some(adapter) => adapter.slots(&crate::sites(config))?,
            None => Vec::new(),
        };
        let width = config.text.hidden_size;
        if self.gate {
            for layer in gate::layers(config) {
                for branch in ["self", "cross"] {
                    let mut add = |part: &str, size: usize, init| {
                        slots.push(Slot::new(gate::name(&layer, branch, part), size, init));
                    };
                    match self.flavour {
                        Flavour::Aurora => {
                            add("gate", 1, Init::Zeros);
                            add("scale", width, Init::Ones);
                            add("shift", width, Init::Zeros);
                        }
                        Flavour::Released => {
                            add("scale", width, Init::Normal(2e-4));
                            add("shift", width, Init::Normal(2e-4));
                        }
                    }
                }
            }
        }
        if self.has_context(config) && self.flavour == Flavour::Aurora {
            slots.push(Slot::new(context::GATE, 1, Init::Zeros));
            slots.push(Slot::new(context::BANK, (self.context_slots, width), Init::Zeros));
        }
        Ok(slots)
    }

    /// Names and shapes of every tensor an adapter of this specification has on a backbone of these sizes.
    pub fn wanted(&self, config: &BlipConfig) -> Result<Vec<(String, candle_core::Shape)>> {
        let mut wanted: Vec<_> =
            self.slots(config)?.into_iter().map(|slot| (slot.name, slot.shape)).collect();
        let heads = self.head_names()?;
        let taken = |name: &String| self.kind == AdapterKind::Full || heads.contains(name);
        wanted.extend(Blip::wanted(config).into_iter().filter(|(name, _)| taken(name)));
        Ok(wanted)
    }

    fn head_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for module in &self.modules_to_save {
            if !HEADS.contains(&module.as_str()) {
                let allowed = HEADS.join(", ");
                return Err(Error::config(
                    "modules_to_save",
                    module,
                    format!("is no head; allowed: {allowed}"),
                ));
            }
            names.extend(["weight", "bias"].map(|part| format!("{module}.{part}")));
        }
        Ok(names)
    }
}

/// The tensors of a tuning by name, with the specification that says how they are used.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// What the tensors are for.
    pub spec: TuneSpec,
    /// Factors, gates, context and heads.
    pub tensors: Tensors,
}

impl Tuned {
    /// The start of a tuning: factors by their rules, heads as the backbone has them. In flavour aurora the tuned
    /// model equals the backbone to the bit.
    pub fn start(spec: TuneSpec, backbone: &Backbone, seed: u64, device: &Device) -> Result<Self> {
        let mut tensors = Tensors::new();
        for slot in spec.slots(&backbone.config)? {
            tensors.insert(slot.name.clone(), slot.start(seed, device)?);
        }
        for (name, _) in spec.wanted(&backbone.config)? {
            if let Entry::Vacant(vacant) = tensors.entry(name) {
                let weight = get(&backbone.tensors, vacant.key())?.detach().copy()?;
                vacant.insert(weight);
            }
        }
        Ok(Self { spec, tensors })
    }

    /// Tensors that came from elsewhere, checked strictly against what the specification wants.
    pub fn from_tensors(
        spec: TuneSpec,
        config: &BlipConfig,
        what: &str,
        tensors: Tensors,
    ) -> Result<Self> {
        check(what, &tensors, &spec.wanted(config)?)?;
        Ok(Self { spec, tensors })
    }

    /// What the tensor of this name is.
    pub fn part(name: &str) -> Part {
        if name == context::BANK || Vera::shared(name) {
            Part::Buffer
        } else if HEADS.iter().any(|head| name.starts_with(head)) {
            Part::Head
        } else if name == context::GATE || gate::is_name(name) {
            Part::Gate
        } else if ["aurora_", ".lora_", ".vera_"].iter().any(|mark| name.contains(mark)) {
            Part::Factor
        } else {
            Part::Backbone
        }
    }

    /// The model these tensors are for: the `frozen` one, shared, unless this tuning has backbone weights of its own.
    pub fn model(&self, frozen: &Arc<Blip>) -> Result<Arc<Blip>> {
        if self.spec.kind != AdapterKind::Full {
            return Ok(frozen.clone());
        }
        Ok(Arc::new(Blip::new(frozen.config(), &self.tensors)?))
    }

    /// The model's view of these tensors as they are now: form it once per step, share it between all passes.
    ///
    /// `rank_mask` (rank), when given, scales the rank components: dropout of components, one draw a step.
    pub fn prepare(&self, blip: &Blip, rank_mask: Option<&Tensor>) -> Result<Prepared> {
        let mut prepared = blip.bare()?;
        if let Some(heads) = &mut prepared.heads {
            for head in HEADS {
                heads.replace(head, &self.tensors)?;
            }
        }
        if let Some(adapter) = self.spec.adapter() {
            for site in blip.sites() {
                let mut delta = adapter.low_rank(site, &self.tensors)?;
                if let Some(mask) = rank_mask {
                    let a = delta.a().broadcast_mul(&mask.unsqueeze(1)?)?;
                    delta = aurora_kernels::LowRank::new(a, delta.b().clone())?;
                }
                prepared.deltas.insert(site.path.clone(), delta);
            }
        }
        if self.spec.gate {
            let gates = gate::layers(blip.config()).into_iter().map(|layer| {
                let gate = gate::Gate::new(&layer, self.spec.flavour, &self.tensors)?;
                Ok((layer, gate))
            });
            prepared.gates = gates.collect::<Result<_>>()?;
        }
        if self.spec.has_context(blip.config()) {
            prepared.context = Some(context::Context::new(self.spec.flavour, &self.tensors)?);
        }
        prepared.frame_aware = match (self.spec.frame_aware, self.spec.flavour) {
            (false, _) => FrameAware::Never,
            (true, Flavour::Released) => FrameAware::InTraining,
            (true, Flavour::Aurora) => FrameAware::Always,
        };
        Ok(prepared)
    }

    /// The same tuning over variables: everything but buffers is copied into a variable of its own, to be trained.
    pub fn into_variables(self) -> Result<(Self, Vec<(String, Var)>)> {
        let mut variables = Vec::new();
        let mut tensors = Tensors::new();
        for (name, tensor) in self.tensors {
            let tensor = if Self::part(&name) == Part::Buffer {
                tensor.detach()
            } else {
                let var = Var::from_tensor(&tensor.detach().copy()?)?;
                variables.push((name.clone(), var.clone()));
                var.as_tensor().clone()
            };
            tensors.insert(name, tensor);
        }
        Ok((Self { spec: self.spec, tensors }, variables))
    }

    /// The tensors as they are now, in memory of their own, without graph: a checkpoint.
    pub fn snapshot(&self) -> Result<Self> {
        let copied =
            self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.detach().copy()?)));
        Ok(Self { spec: self.spec.clone(), tensors: copied.collect::<Result<_>>()? })
    }

    /// The same tensors without graph, their memory shared: for passes that nobody differentiates.
    pub fn detached(&self) -> Self {
        Self { spec: self.spec.clone(), tensors: crate::tensors::detached(&self.tensors) }
    }

    /// The context bank after a training step has seen these text `[CLS]` vectors (texts, width); nothing where there
    /// is no bank. The new bank is a new tensor under the same name.
    pub fn absorb(&mut self, text_cls: &Tensor) -> Result<()> {
        if let Some(bank) = self.tensors.get_mut(context::BANK) {
            *bank = context::update(bank, text_cls)?;
        }
        Ok(())
    }

    /// Mean over the sites of |dW| / |W| (Frobenius): how far the tuning has moved the maps it may move. 0 where
    /// only heads are tuned.
    pub fn mean_relative_delta(&self, blip: &Blip, backbone: &Tensors) -> Result<f64> {
        let norm = |tensor: &Tensor| -> Result<f64> {
            let squares = tensor.detach().sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?;
            Ok(squares.to_scalar::<f64>()?.sqrt())
        };
        let detached = crate::tensors::detached(&self.tensors);
        let adapter = self.spec.adapter();
        let mut sum = 0.0;
        for site in blip.sites() {
            let name = format!("{}.weight", site.path);
            let frozen = get(backbone, &name)?;
            let delta = match (&adapter, detached.get(&name)) {
                (Some(adapter), _) => adapter.delta(site, &detached)?,
                (None, Some(tuned)) => (tuned - &frozen)?,
                (None, None) => return Ok(0.0),
            };
            sum += norm(&delta)? / norm(&frozen)?.max(f64::MIN_POSITIVE);
        }
        Ok(sum / blip.sites().len().max(1) as f64)
    }
}
