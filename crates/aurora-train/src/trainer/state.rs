//! Training state between two steps, as tensors by name: all that the next step depends on.
//!
//! ```text
//! online.NAME      trained tensors and buffers
//! optimizer.NAME   AdamW's moments and step
//! momentum.NAME    averages of what is trained (retrieval)
//! queue.NAME       the feature queue, in the layout of BLIP checkpoints (retrieval)
//! temperature      if it is trained (retrieval)
//! ```
//!
//! Tensors that follow from configuration, backbone and seed are not part of it: frozen weights, tensors that the
//! momentum model shares.

use aurora_layers::tensors::{Tensors, check};
use aurora_layers::{AdaptedParams, GradientCheckpointing, ParamGroup};
use candle_core::Shape;

use super::retrieval::Retrieval;
use super::{Objective, Trainer};
use crate::error::{Error, Result};
use crate::queue::FeatureQueue;

impl Trainer {
    /// State after the last step. Trained tensors share the trainer's memory: write them or copy them before the next
    /// step.
    ///
    /// # Errors
    /// Any candle error.
    pub fn state(&self) -> Result<Tensors> {
        let mut state = Tensors::new();
        let online = &self.online.tuned.tensors;
        state.extend(
            online.iter().map(|(name, tensor)| (format!("online.{name}"), tensor.detach())),
        );
        state.extend(under("optimizer", self.optimizer.state()?));
        if let Objective::Retrieval(retrieval) = &self.objective {
            state.extend(retrieval.state()?);
        }
        Ok(state)
    }

    /// Restores the tensors of [`Self::state`], in a trainer of the same configuration, backbone and seed. On an error
    /// about names, shapes or types nothing is changed. `what` names the tensors' file.
    ///
    /// # Errors
    /// Tensors missing or left over, of another shape or type; a queue whose pointer is outside of it.
    pub fn load_state(&mut self, what: &str, state: &Tensors) -> Result<()> {
        let wanted = self.state()?;
        let shapes: Vec<(String, Shape)> =
            wanted.iter().map(|(name, tensor)| (name.clone(), tensor.shape().clone())).collect();
        check(what, state, &shapes)?;
        for ((name, wanted), found) in wanted.iter().zip(state.values()) {
            if found.dtype() != wanted.dtype() {
                return Err(Error::DType {
                    operation: "take up a saved state",
                    name: name.clone(),
                    found: found.dtype().as_str(),
                    expected: wanted.dtype().as_str(),
                });
            }
        }
        if let Objective::Retrieval(retrieval) = &mut self.objective {
            retrieval.load_state(state)?;
        }
        self.optimizer.load_state(&part(state, "optimizer"))?;
        for parameter in self.optimizer.named() {
            // The temperature belongs to the objective, not to the online model.
            let name = match self.online.tuned.tensors.contains_key(&parameter.name) {
                true => format!("online.{}", parameter.name),
                false => parameter.name.clone(),
            };
            if let Some(saved) = state.get(&name) {
                parameter.var.set(&saved.to_device(parameter.var.device())?)?;
            }
        }
        for (name, tensor) in &mut self.online.tuned.tensors {
            // The context bank is a new tensor after every step.
            if let (ParamGroup::Buffer, Some(saved)) =
                (AdaptedParams::param_group(name), state.get(&format!("online.{name}")))
            {
                *tensor = saved.to_device(tensor.device())?;
            }
        }
        Ok(())
    }

    /// Gradient checkpointing of the steps, once the first has chosen.
    pub fn checkpointing(&self) -> Option<GradientCheckpointing> {
        self.online.fixed_checkpointing()
    }

    /// Fixes that choice, whatever memory is left now. No effect once a step has chosen.
    pub fn fix_checkpointing(&self, chosen: GradientCheckpointing) {
        self.online.fix_checkpointing(chosen);
    }
}

impl Retrieval {
    fn state(&self) -> Result<Tensors> {
        let mut state: Tensors = under("momentum", self.momentum.averaged()).collect();
        state.extend(under("queue", self.queue.state()?));
        if let Some(temperature) = self.temperature_var() {
            state.insert("temperature".to_owned(), temperature.as_detached_tensor());
        }
        Ok(state)
    }

    /// The temperature is restored with the other parameters.
    fn load_state(&mut self, state: &Tensors) -> Result<()> {
        let device = self.temperature().device().clone();
        let mut queue = part(state, "queue");
        for tensor in queue.values_mut() {
            *tensor = tensor.to_device(&device)?;
        }
        self.set_queue(FeatureQueue::from_state(&queue)?)?;
        self.momentum.set_averages(&part(state, "momentum"))
    }
}

/// Tensors renamed below a prefix.
fn under(
    prefix: &'static str,
    tensors: Tensors,
) -> impl Iterator<Item = (String, candle_core::Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
}

/// Tensors below a prefix, without it.
fn part(state: &Tensors, prefix: &str) -> Tensors {
    let short = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned());
    state.iter().filter_map(|(name, tensor)| Some((short(name)?, tensor.clone()))).collect()
}
