//! Tuning: one step of a frozen backbone with trained additions, whatever the task.
//!
//! What a step minimizes is its objective's; parameters, schedule and memory are everybody's. Retrieval has a state of
//! its own beside the online model (`retrieval.rs`): momentum model, queue and temperature. `state.rs` is what all of it comes
//! to between two steps.

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

/// What a step measured.
#[derive(Debug)]
pub struct StepOutput {
    /// The loss that was minimized.
    pub loss: f64,
    /// Its parts by name.
    pub parts: Vec<(&'static str, f64)>,
    /// What the step did to the parameters.
    pub stats: StepStats,
}

/// What one step looks at.
#[derive(Debug, Clone, Copy)]
pub enum TaskBatch<'a> {
    /// For retrieval.
    Retrieval(ImageTextBatch<'a>),
    /// For question answering.
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

/// A tuning under way.
#[derive(Debug)]
pub struct Trainer {
    online: OnlineModel,
    objective: Objective,
    optimizer: OptimizerStep,
}

/// What is minimized, with what it needs from one step to the next.
#[derive(Debug)]
enum Objective {
    Retrieval(Box<Retrieval>),
    Vqa,
}

/// A loss with its parts, and what retrieval keeps of the step for those to come.
struct Losses {
    total: Tensor,
    parts: Vec<(&'static str, f64)>,
    deferred: Option<DeferredUpdate>,
}

/// The one value of a tensor.
fn value(tensor: &Tensor) -> Result<f64> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}

impl Trainer {
    /// A tuning at its start.
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

    /// Number of trainable values.
    pub fn trainable_parameters(&self) -> usize {
        self.optimizer.parameters()
    }

    /// The frozen model that online and momentum model share.
    pub fn frozen(&self) -> &Arc<Blip> {
        &self.online.frozen
    }

    /// The online tensors; they change with every step.
    pub fn online(&self) -> &AdaptedParams {
        &self.online.tuned
    }

    /// Puts a queue in the place of the one this tuning has, for instance that of a BLIP checkpoint.
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

    /// Mean |dW| / |W| over what is adapted: how far the tuning has moved the weights it may move.
    ///
    /// # Errors
    /// What candle reports.
    pub fn mean_relative_delta(&self) -> Result<f64> {
        let OnlineModel { tuned, frozen, backbone, .. } = &self.online;
        Ok(tuned.mean_relative_delta(frozen, backbone)?)
    }

    /// One step: losses, gradients, parameters, and what the objective keeps.
    ///
    /// # Errors
    /// Examples of another task, shapes that do not fit the model, a loss that is not a number, a parameter without
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
            // The loss looked at the queue's own memory, so only now.
            retrieval.enqueue(&deferred, pairs.ids)?;
            self.online.tuned.update_context_bank(&deferred.text_cls)?;
        }
        Ok(StepOutput { loss: value(&total)?, parts, stats })
    }
}

/// The loss of answers; as in the reference code there is no momentum model.
fn vqa_losses(online: &OnlineModel, batch: &VqaBatch, step: u64) -> Result<Losses> {
    let bound = online.bind(&TaskBatch::Vqa(*batch), step)?;
    let questions = encode_questions(&online.blip, &bound, batch.images, &batch.questions)?;
    let total = answer_loss((&online.blip, &bound), &questions, &batch.answers)?;
    Ok(Losses { total, parts: Vec::new(), deferred: None })
}
