//! Adapted parameters: adapter factors, gates, context and the trained heads, kept apart from the frozen backbone.

use crate::adapter::{Lora, Vera, init_tensors};
use crate::adapter_config::{HEADS, Variant};
use crate::heads::Heads;
use crate::tensors::{Tensors, check, get};
use crate::video::FrameAware;
use crate::{AdapterConfig, Backbone, Blip, BlipConfig, BoundModel, Result, context, gate};
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Parameter group of a tuned tensor: it decides the learning rate, and whether the tensor is trained at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamGroup {
    /// Factors of the weight deltas.
    Factor,
    /// Gated query transformation, and the gate of the context.
    Gate,
    /// Heads of the backbone.
    Head,
    /// Tensors of the backbone below the heads.
    Backbone,
    /// Buffers: saved with the adapter, never trained.
    Buffer,
}

/// Tensors of an adapter by name, with the configuration that says how they are used.
#[derive(Debug, Clone)]
pub struct AdaptedParams {
    /// Configuration of the adapter.
    pub adapter_config: AdapterConfig,
    /// Factors, gates, context and heads.
    pub tensors: Tensors,
}

impl AdaptedParams {
    /// Initial parameters: factors by their initialization, heads as in the backbone. In variant paper the adapted
    /// model equals the backbone to the bit.
    pub fn init(
        adapter_config: AdapterConfig,
        backbone: &Backbone,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut tensors =
            init_tensors(&adapter_config.gate_and_context_specs(&backbone.config), seed, device)?;
        let wanted = adapter_config.param_shapes(&backbone.config)?;
        if let Some(adapter) = adapter_config.adapter() {
            let sites = adapter_config.sites(&backbone.config)?;
            tensors.extend(adapter.init_params(&sites, &backbone.tensors, seed, device)?);
        }
        for (name, _) in wanted {
            if let Entry::Vacant(vacant) = tensors.entry(name) {
                let weight = get(&backbone.tensors, vacant.key())?.detach().copy()?;
                vacant.insert(weight);
            }
        }
        Ok(Self { adapter_config, tensors })
    }

    /// Parameters from given tensors, checked strictly against the names and shapes of the configuration.
    pub fn from_tensors(
        adapter_config: AdapterConfig,
        config: &BlipConfig,
        what: &str,
        tensors: Tensors,
    ) -> Result<Self> {
        check(what, &tensors, &adapter_config.param_shapes(config)?)?;
        Ok(Self { adapter_config, tensors })
    }

    /// Parameter group of the tensor with this name.
    pub fn param_group(name: &str) -> ParamGroup {
        if name == context::BANK || Vera::shared(name) || Lora::is_init(name) {
            ParamGroup::Buffer
        } else if HEADS.iter().any(|head| name.starts_with(head)) {
            ParamGroup::Head
        } else if name == context::GATE || gate::is_name(name) {
            ParamGroup::Gate
        } else if ["aurora_", ".lora_", ".vera_", ".ia3_"].iter().any(|mark| name.contains(mark)) {
            ParamGroup::Factor
        } else {
            ParamGroup::Backbone
        }
    }

    /// Tensors of the backbone below the heads that this adapter trains.
    fn of_backbone<'a>(&'a self, blip: &'a Blip) -> impl Iterator<Item = (&'a String, &'a Tensor)> {
        let own = |name: &str| Self::param_group(name) == ParamGroup::Backbone;
        self.tensors
            .iter()
            .filter(move |(name, _)| own(name) && blip.tensors().contains_key(name.as_str()))
    }

    /// Model for these parameters: `frozen` itself, shared, or a model with this adapter's own backbone tensors in
    /// place of the frozen ones, all others shared.
    pub fn model(&self, frozen: &Arc<Blip>) -> Result<Arc<Blip>> {
        let mut own = self.of_backbone(frozen).peekable();
        if own.peek().is_none() {
            return Ok(frozen.clone());
        }
        let mut tensors = frozen.tensors().clone();
        tensors.extend(own.map(|(name, tensor)| (name.clone(), tensor.clone())));
        Ok(Arc::new(Blip::new(frozen.config(), &tensors)?))
    }

    /// Binds the parameters, as they are now, to the model: once per step, shared by all passes.
    ///
    /// `rank_mask` (rank) scales the rank components: dropout of components, one draw per step.
    pub fn bind(&self, blip: &Blip, rank_mask: Option<&Tensor>) -> Result<BoundModel> {
        let mut bound = blip.bind_frozen()?;
        bound.heads = self.heads(blip)?;
        if let Some(adapter) = self.adapter_config.adapter() {
            let sites = self.adapter_config.targets.sites(blip.sites())?;
            for site in &sites {
                let weight = get(blip.tensors(), &format!("{}.weight", site.path))?;
                let mut layer_delta = adapter.layer_delta(site, &weight, &self.tensors)?;
                if let Some(mask) = rank_mask {
                    layer_delta = layer_delta.masked(mask)?;
                }
                bound.deltas.insert(site.path.clone(), layer_delta);
            }
            bound.parallel = adapter.parallel(&sites, &self.tensors)?;
        }
        if self.adapter_config.gated_query {
            let gates = gate::layers(blip.config()).into_iter().map(|layer| {
                let gate = gate::Gate::new(&layer, self.adapter_config.variant, &self.tensors)?;
                Ok((layer, gate))
            });
            bound.gates = gates.collect::<Result<_>>()?;
        }
        if self.adapter_config.has_context(blip.config()) {
            bound.context =
                Some(context::Context::new(self.adapter_config.variant, &self.tensors)?);
        }
        bound.frame_aware = match (self.adapter_config.frame_aware, self.adapter_config.variant) {
            (false, _) => FrameAware::Never,
            (true, Variant::Reference) => FrameAware::InTraining,
            (true, Variant::Paper) => FrameAware::Always,
        };
        Ok(bound)
    }

    /// Heads of the model, if it has any, with those of this adapter in place of its own.
    fn heads(&self, blip: &Blip) -> Result<Option<Heads>> {
        let mut tensors = Tensors::new();
        for (name, _) in crate::heads::param_shapes(blip.config()) {
            let own = self.tensors.get(&name).cloned();
            tensors.insert(name.clone(), own.map_or_else(|| get(blip.tensors(), &name), Ok)?);
        }
        Heads::new(blip.config(), &tensors)
    }

    /// Trainable parameters: every tensor but buffers is copied into a variable of its own.
    pub fn into_variables(self) -> Result<(Self, Vec<(String, Var)>)> {
        let mut variables = Vec::new();
        let mut tensors = Tensors::new();
        for (name, tensor) in self.tensors {
            let tensor = if Self::param_group(&name) == ParamGroup::Buffer {
                tensor.detach()
            } else {
                let var = Var::from_tensor(&tensor.detach().copy()?)?;
                variables.push((name.clone(), var.clone()));
                var.as_tensor().clone()
            };
            tensors.insert(name, tensor);
        }
        Ok((Self { adapter_config: self.adapter_config, tensors }, variables))
    }

    /// Snapshot of the parameters: a copy in memory of its own, without graph.
    pub fn snapshot(&self) -> Result<Self> {
        let copied =
            self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.detach().copy()?)));
        Ok(Self {
            adapter_config: self.adapter_config.clone(),
            tensors: copied.collect::<Result<_>>()?,
        })
    }

    /// Parameters without graph, memory shared: for passes without gradient.
    pub fn detached(&self) -> Self {
        Self {
            adapter_config: self.adapter_config.clone(),
            tensors: crate::tensors::detached(&self.tensors),
        }
    }

    /// Updates the context bank with the text `[CLS]` vectors (texts, width) of a training step; without a bank it does
    /// nothing. The new bank is a new tensor under the same name.
    pub fn update_context_bank(&mut self, text_cls: &Tensor) -> Result<()> {
        if let Some(bank) = self.tensors.get_mut(context::BANK) {
            *bank = context::update(bank, text_cls)?;
        }
        Ok(())
    }

    /// Mean over the sites of |dW| / |W| (Frobenius norms): how far the adapter has moved its weights. 0 where no
    /// site's weight is tuned.
    pub fn mean_relative_delta(&self, blip: &Blip, backbone: &Tensors) -> Result<f64> {
        let norm = |tensor: &Tensor| -> Result<f64> {
            let squares = tensor.detach().sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?;
            Ok(squares.to_scalar::<f64>()?.sqrt())
        };
        let detached = crate::tensors::detached(&self.tensors);
        let adapter = self.adapter_config.adapter();
        let sites = match adapter {
            Some(_) => self.adapter_config.targets.sites(blip.sites())?,
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
