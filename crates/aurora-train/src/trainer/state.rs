//! The state of a tuning between two steps, as tensors by name: all that the next step depends on.
//!
//! ```text
//! online.NAME      what is trained or kept beside it
//! optimizer.NAME   the optimizer's means and its step
//! momentum.NAME    averages of what is trained (retrieval)
//! queue.NAME       the feature queue, in the layout of BLIP checkpoints (retrieval)
//! temperature      where it is trained (retrieval)
//! ```
//!
//! What a configuration, a backbone and a seed give is not part of it: frozen weights, what the momentum model shares.

use aurora_layers::tensors::{Tensors, check};
use aurora_layers::{AdaptedParams, GradientCheckpointing, ParamGroup};
use candle_core::Shape;

use super::retrieval::Retrieval;
use super::{Objective, Trainer};
use crate::error::{Error, Result};
use crate::queue::FeatureQueue;

impl Trainer {
    /// The state after the last step. Tensors that are trained share the trainer's memory: write them or copy them
    /// before the next step.
    ///
    /// # Errors
    /// What candle reports.
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

    /// Takes up what [`Self::state`] gave, in a trainer of the same configuration, backbone and seed. On an error about
    /// names, shapes or types nothing is changed. `what` names the tensors' file.
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
            // The temperature is nobody's tensor but the objective's.
            let name = match self.online.tuned.tensors.contains_key(&parameter.name) {
                true => format!("online.{}", parameter.name),
                false => parameter.name.clone(),
            };
            if let Some(saved) = state.get(&name) {
                parameter.var.set(&saved.to_device(parameter.var.device())?)?;
            }
        }
        for (name, tensor) in &mut self.online.tuned.tensors {
            // A bank of contexts is a new tensor after every step.
            if let (ParamGroup::Buffer, Some(saved)) =
                (AdaptedParams::param_group(name), state.get(&format!("online.{name}")))
            {
                *tensor = saved.to_device(tensor.device())?;
            }
        }
        Ok(())
    }

    /// What the steps keep for their backward passes, once the first has chosen.
    pub fn checkpointing(&self) -> Option<GradientCheckpointing> {
        self.online.fixed_checkpointing()
    }

    /// Keeps to that choice, whatever memory is left now. Of no effect once a step has chosen.
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

    /// The temperature is taken up with the other parameters.
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

/// Names below a prefix.
fn under(
    prefix: &'static str,
    tensors: Tensors,
) -> impl Iterator<Item = (String, candle_core::Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
}

/// The tensors below a prefix, without it.
fn part(state: &Tensors, prefix: &str) -> Tensors {
    let short = |name: &str| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned());
    state.iter().filter_map(|(name, tensor)| Some((short(name)?, tensor.clone()))).collect()
}
