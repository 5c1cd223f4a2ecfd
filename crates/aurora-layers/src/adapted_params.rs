//! Everything that tuning adds to a frozen backbone: adapter factors, gates, context, and the heads it trains.

use crate::adapter::{Lora, Vera, starts};
use crate::adapter_config::{Flavour, HEADS};
use crate::heads::Heads;
use crate::tensors::{Tensors, check, get};
use crate::video::FrameAware;
use crate::{Backbone, Blip, BlipConfig, Prepared, Result, TuneSpec, context, gate};
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::sync::Arc;

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
    /// A tensor of the backbone below the heads.
    Backbone,
    /// Kept with the adapter, never trained.
    Buffer,
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
        let mut tensors = starts(&spec.beside_slots(&backbone.config), seed, device)?;
        let wanted = spec.wanted(&backbone.config)?;
        if let Some(adapter) = spec.adapter() {
            let sites = spec.sites(&backbone.config)?;
            tensors.extend(adapter.start(&sites, &backbone.tensors, seed, device)?);
        }
        for (name, _) in wanted {
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
        if name == context::BANK || Vera::shared(name) || Lora::is_start(name) {
            Part::Buffer
        } else if HEADS.iter().any(|head| name.starts_with(head)) {
            Part::Head
        } else if name == context::GATE || gate::is_name(name) {
            Part::Gate
        } else if ["aurora_", ".lora_", ".vera_", ".ia3_"].iter().any(|mark| name.contains(mark)) {
            Part::Factor
        } else {
            Part::Backbone
        }
    }

    /// The backbone's own tensors below the heads that are part of this tuning.
    fn of_backbone<'a>(&'a self, blip: &'a Blip) -> impl Iterator<Item = (&'a String, &'a Tensor)> {
        let own = |name: &str| Self::part(name) == Part::Backbone;
        self.tensors
            .iter()
            .filter(move |(name, _)| own(name) && blip.tensors().contains_key(name.as_str()))
    }

    /// The model these tensors are for: the `frozen` one, shared, or one that differs from it in those tensors of the
    /// backbone which this tuning has of its own, and shares all others.
    pub fn model(&self, frozen: &Arc<Blip>) -> Result<Arc<Blip>> {
        let mut own = self.of_backbone(frozen).peekable();
        if own.peek().is_none() {
            return Ok(frozen.clone());
        }
        let mut tensors = frozen.tensors().clone();
        tensors.extend(own.map(|(name, tensor)| (name.clone(), tensor.clone())));
        Ok(Arc::new(Blip::new(frozen.config(), &tensors)?))
    }

    /// The model's view of these tensors as they are now: form it once per step, share it between all passes.
    ///
    /// `rank_mask` (rank), when given, scales the rank components: dropout of components, one draw a step.
    pub fn prepare(&self, blip: &Blip, rank_mask: Option<&Tensor>) -> Result<Prepared> {
        let mut prepared = blip.bare()?;
        prepared.heads = self.heads(blip)?;
        if let Some(adapter) = self.spec.adapter() {
            let sites = self.spec.targets.sites(blip.sites())?;
            for site in &sites {
                let weight = get(blip.tensors(), &format!("{}.weight", site.path))?;
                let mut change = adapter.change(site, &weight, &self.tensors)?;
                if let Some(mask) = rank_mask {
                    change = change.masked(mask)?;
                }
                prepared.changes.insert(site.path.clone(), change);
            }
            prepared.beside = adapter.beside(&sites, &self.tensors)?;
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

    /// The model's heads, if it has any, with those of this tuning in place of its own.
    fn heads(&self, blip: &Blip) -> Result<Option<Heads>> {
        let mut tensors = Tensors::new();
        for (name, _) in crate::heads::wanted(blip.config()) {
            let own = self.tensors.get(&name).cloned();
            tensors.insert(name.clone(), own.map_or_else(|| get(blip.tensors(), &name), Ok)?);
        }
        Heads::new(blip.config(), &tensors)
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

    /// Mean over the sites of |dW| / |W| (Frobenius): how far the tuning has moved the maps it may move. 0 where no
    /// weight of a site is tuned.
    pub fn mean_relative_delta(&self, blip: &Blip, backbone: &Tensors) -> Result<f64> {
        let norm = |tensor: &Tensor| -> Result<f64> {
            let squares = tensor.detach().sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?;
            Ok(squares.to_scalar::<f64>()?.sqrt())
        };
        let detached = crate::tensors::detached(&self.tensors);
        let adapter = self.spec.adapter();
        let sites = match adapter {
            Some(_) => self.spec.targets.sites(blip.sites())?,
            None => blip.sites().to_vec(),
        };
        let (mut sum, mut count) = (0.0, 0usize);
        for site in &sites {
            let name = format!("{}.weight", site.path);
            let frozen = get(backbone, &name)?;
            let delta = match (&adapter, detached.get(&name)) {
                (Some(adapter), _) => adapter.delta(site, &frozen, &detached)?,
                (None, Some(tuned)) => (tuned - &frozen)?,
                (None, None) => continue,
            };
            sum += norm(&delta)? / norm(&frozen)?.max(f64::MIN_POSITIVE);
            count += 1;
        }
        Ok(sum / count.max(1) as f64)
    }
}
