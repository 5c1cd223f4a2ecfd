//! Optimizer step: backward pass, gradient audit, clipping, learning-rate schedule and AdamW.

use candle_core::{Tensor, Var};
use std::collections::BTreeMap;

use crate::config::{OptimizerSection, ScheduleSection};
use crate::error::{Error, Result};
use crate::optimizer::{AdamW, Group, Parameter, clip_gradients};
use crate::schedule::Schedule;

/// Statistics of one optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct StepStats {
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Schedule's factor on every learning rate.
    pub learning_rate_factor: f64,
}

/// Optimizer, schedule and clipping norm of a run.
#[derive(Debug)]
pub struct OptimizerStep {
    optimizer: AdamW,
    schedule: Schedule,
    max_norm: f64,
}

impl OptimizerStep {
    /// Builds the optimizer; `parameters` are (name, variable, group).
    ///
    /// # Errors
    /// A name given twice, a group that does not exist.
    pub fn new(
        parameters: Vec<(String, Var, &str)>,
        groups: Vec<Group>,
        optimizer: &OptimizerSection,
        schedule: &ScheduleSection,
    ) -> Result<Self> {
        let parameters = parameters
            .into_iter()
            .map(|(name, var, group)| Parameter::new(name, var, group))
            .collect();
        Ok(Self {
            optimizer: AdamW::new(parameters, groups, optimizer.options())?,
            schedule: schedule.schedule(),
            max_norm: optimizer.max_norm(),
        })
    }

    /// Number of trainable parameters.
    pub fn parameters(&self) -> usize {
        self.optimizer.element_count()
    }

    /// Parameters with their names.
    pub fn named(&self) -> &[Parameter] {
        self.optimizer.parameters()
    }

    /// Optimizer state, as [`AdamW::state`].
    ///
    /// # Errors
    /// Any candle error.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.optimizer.state()
    }

    /// Restores the optimizer state.
    ///
    /// # Errors
    /// As [`AdamW::load_state`].
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.optimizer.load_state(state)
    }

    /// Runs the backward pass of `loss` and updates every parameter.
    ///
    /// # Errors
    /// A loss that is not a number; a parameter without gradient: all are named, and nothing is updated.
    pub fn step(&mut self, loss: &Tensor, step: u64) -> Result<StepStats> {
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(Error::NotFinite { what: format!("the loss of step {step}"), value });
        }
        let mut grads = loss.backward()?;
        let gradient_norm = clip_gradients(&mut grads, self.optimizer.parameters(), self.max_norm)?;
        let learning_rate_factor = self.schedule.factor(step);
        self.optimizer.step(&grads, learning_rate_factor)?;
        Ok(StepStats { gradient_norm, learning_rate_factor })
    }
}
