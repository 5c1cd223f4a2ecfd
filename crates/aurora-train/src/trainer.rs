//! Training step of a frozen backbone with an adapter, for any task.
//!
//! The objective defines the loss; parameters, schedule and memory are common to all tasks. Retrieval has state of its
//! own beside the online model (`retrieval.rs`): momentum model, queue and temperature. `state.rs` saves and restores
//! all of it between two steps.

mod online;
mod retrieval;
mod state;

use aurora_layers::{AdaptedParams, Architecture, Backbone, Blip};
use candle_core::{Device, Tensor, Var};
use std::sync::Arc;

use crate::config::{Config, LearningRates, Task};
use crate::error::{Error, Result};
use crate::optimizer::step::{OptimizerStep, StepStats};
use crate::queue::FeatureQueue;
use crate::retrieval::ImageTextBatch;
use crate::vqa::{VqaBatch, answer_loss, encode_questions};

use online::OnlineModel;
use retrieval::{DeferredUpdate, Retrieval};

/// Output of a training step.
#[derive(Debug)]
pub struct StepOutput {
    /// Loss of the step.
    pub loss: f64,
    /// Loss terms by name.
    pub parts: Vec<(&'static str, f64)>,
    /// Statistics of the parameter update.
    pub stats: StepStats,
}

/// Batch of one training step, by task.
#[derive(Debug, Clone, Copy)]
pub enum TaskBatch<'a> {
    /// Retrieval.
    Retrieval(ImageTextBatch<'a>),
    /// Question answering.
    Vqa(VqaBatch<'a>),
}

impl<'a> From<&ImageTextBatch<'a>> for TaskBatch<'a> {
    fn from(pairs: &ImageTextBatch<'a>) -> Self {
        Self::Retrieval(*pairs)
    }
}

impl<'a> From<&VqaBatch<'a>> for TaskBatch<'a> {
    fn from(batch: &VqaBatch<'a>) -> Self {
        Self::Vqa(*batch)
    }
}

/// Trainer of a frozen backbone with an adapter.
#[derive(Debug)]
pub struct Trainer {
    online: OnlineModel,
    objective: Objective,
    optimizer: OptimizerStep,
}

/// Training objective, with its state between steps.
#[derive(Debug)]
enum Objective {
    Retrieval(Box<Retrieval>),
    Vqa,
}

/// Loss with its terms, and the update that retrieval defers to the end of the step.
struct Losses {
    total: Tensor,
    parts: Vec<(&'static str, f64)>,
    deferred: Option<DeferredUpdate>,
}

/// Value of a scalar tensor.
fn value(tensor: &Tensor) -> Result<f64> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}

impl Trainer {
    /// Builds a trainer at step 0.
    ///
    /// # Errors
    /// An adapter that this backbone cannot take, a backbone that is for another task.
    pub fn new(config: &Config, backbone: &Backbone, device: &Device) -> Result<Self> {
        let architecture = backbone.config.architecture;
        let fits = match config.task {
            Task::Retrieval => architecture == Architecture::Retrieval,
            Task::Vqa => matches!(architecture, Architecture::QuestionAnswering(_)),
        };
        if !fits {
            return Err(Error::ModelTaskMismatch {
                architecture: architecture.to_string(),
                task: config.task.name(),
            });
        }
        let (online, variables) = OnlineModel::new(config, backbone, device)?;
        let mut parameters: Vec<(String, Var, &str)> = variables
            .into_iter()
            .filter_map(|(name, var)| {
                let group = LearningRates::group(AdaptedParams::param_group(&name))?;
                Some((name, var, group))
            })
            .collect();
        let objective = match config.task {
            Task::Retrieval => {
                let retrieval = Retrieval::new(config, &online, device)?;
                let temperature = retrieval.temperature_var();
                parameters.extend(
                    temperature.map(|var| ("temperature".into(), var.clone(), "temperature")),
                );
                Objective::Retrieval(Box::new(retrieval))
            }
            Task::Vqa => Objective::Vqa,
        };
        if parameters.is_empty() {
            let kind = config.adapter.kind.name();
            return Err(Error::NothingToTrain { kind, architecture: architecture.to_string() });
        }
        let groups = config.optimizer.lr.groups(config.adapter.kind, config.optimizer.weight_decay);
        let optimizer =
            OptimizerStep::new(parameters, groups, &config.optimizer, &config.schedule)?;
        Ok(Self { online, objective, optimizer })
    }

    /// Number of trainable parameters.
    pub fn trainable_parameters(&self) -> usize {
        self.optimizer.parameters()
    }

    /// Frozen model, shared by online and momentum model.
    pub fn frozen(&self) -> &Arc<Blip> {
        &self.online.frozen
    }

    /// Online tensors; they change with every step.
    pub fn online(&self) -> &AdaptedParams {
        &self.online.tuned
    }

    /// Replaces the feature queue, for instance by that of a BLIP checkpoint.
    ///
    /// # Errors
    /// Features of another length; a task without a queue.
    pub fn set_queue(&mut self, queue: FeatureQueue) -> Result<()> {
        match &mut self.objective {
            Objective::Retrieval(retrieval) => retrieval.set_queue(queue),
            Objective::Vqa => Err(Error::BatchTaskMismatch {
                given: "a queue of features",
                task: Task::Vqa.name(),
            }),
        }
    }

    /// Mean |dW| / |W| over the adapted weights: how far tuning has moved the weights it may move.
    ///
    /// # Errors
    /// Any candle error.
    pub fn mean_relative_delta(&self) -> Result<f64> {
        let OnlineModel { tuned, frozen, backbone, .. } = &self.online;
        Ok(tuned.mean_relative_delta(frozen, backbone)?)
    }

    /// Runs one step: loss, gradients, parameter update, and the state of the objective.
    ///
    /// # Errors
    /// A batch of another task, shapes that do not fit the model, a loss that is not a number, a parameter without
    /// gradient.
    pub fn step<'a>(&mut self, batch: impl Into<TaskBatch<'a>>, step: u64) -> Result<StepOutput> {
        let batch = batch.into();
        let Losses { total, parts, deferred } = match (&self.objective, &batch) {
            (Objective::Retrieval(retrieval), TaskBatch::Retrieval(pairs)) => {
                retrieval.losses(&self.online, pairs, step)?
            }
            (Objective::Vqa, TaskBatch::Vqa(batch)) => vqa_losses(&self.online, batch, step)?,
            (Objective::Retrieval(_), TaskBatch::Vqa(_)) => {
                return Err(Error::BatchTaskMismatch {
                    given: "questions",
                    task: Task::Retrieval.name(),
                });
            }
            (Objective::Vqa, TaskBatch::Retrieval(_)) => {
                return Err(Error::BatchTaskMismatch {
                    given: "pairs without questions",
                    task: Task::Vqa.name(),
                });
            }
        };
        let stats = self.optimizer.step(&total, step)?;
        if let (Objective::Retrieval(retrieval), TaskBatch::Retrieval(pairs), Some(deferred)) =
            (&mut self.objective, &batch, deferred)
        {
            // Only now, after the backward pass: the loss reads the queue's own memory.
            retrieval.enqueue(&deferred, pairs.ids)?;
            self.online.tuned.update_context_bank(&deferred.text_cls)?;
        }
        Ok(StepOutput { loss: value(&total)?, parts, stats })
    }
}

/// VQA loss; as in the reference code there is no momentum model.
fn vqa_losses(online: &OnlineModel, batch: &VqaBatch, step: u64) -> Result<Losses> {
    let bound = online.bind(&TaskBatch::Vqa(*batch), step)?;
    let questions = encode_questions(&online.blip, &bound, batch.images, &batch.questions)?;
    let total = answer_loss((&online.blip, &bound), &questions, &batch.answers)?;
    Ok(Losses { total, parts: Vec::new(), deferred: None })
}
