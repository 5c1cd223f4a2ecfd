//! Tuning: one step of a frozen backbone with trained additions, whatever the task.
//!
//! What a step minimises is its objective's; parameters, schedule and memory are everybody's. Retrieval has a state of
//! its own beside the live model (`retrieval.rs`): momentum model, queue and temperature. `state.rs` is what all of it comes
//! to between two steps.

mod live;
mod retrieval;
mod state;

use aurora_layers::{AdaptedParams, Architecture, Backbone, Blip};
use candle_core::{Device, Tensor, Var};
use std::sync::Arc;

use crate::config::{Config, LearningRates, Task};
use crate::error::{Error, Result};
use crate::optimizer::step::{OptimizerStep, StepStats};
use crate::queue::FeatureQueue;
use crate::retrieval::Pairs;
use crate::vqa::{VqaBatch, answer_loss, encode_questions};

use live::Live;
use retrieval::{Followed, Retrieval};

/// What a step measured.
#[derive(Debug)]
pub struct Trained {
    /// The loss that was minimised.
    pub loss: f64,
    /// Its parts by name.
    pub parts: Vec<(&'static str, f64)>,
    /// What the step did to the parameters.
    pub stats: StepStats,
}

/// What one step looks at.
#[derive(Debug, Clone, Copy)]
pub enum Examples<'a> {
    /// For retrieval.
    Pairs(Pairs<'a>),
    /// For question answering.
    Questions(VqaBatch<'a>),
}

impl<'a> From<&Pairs<'a>> for Examples<'a> {
    fn from(pairs: &Pairs<'a>) -> Self {
        Self::Pairs(*pairs)
    }
}

impl<'a> From<&VqaBatch<'a>> for Examples<'a> {
    fn from(asked: &VqaBatch<'a>) -> Self {
        Self::Questions(*asked)
    }
}

/// A tuning under way.
#[derive(Debug)]
pub struct Trainer {
    live: Live,
    objective: Objective,
    optimizer: OptimizerStep,
}

/// What is minimised, with what it needs from one step to the next.
#[derive(Debug)]
enum Objective {
    Retrieval(Box<Retrieval>),
    Vqa,
}

/// A loss with its parts, and what retrieval keeps of the step for those to come.
struct Losses {
    total: Tensor,
    parts: Vec<(&'static str, f64)>,
    followed: Option<Followed>,
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
            return Err(Error::OtherForm {
                architecture: architecture.to_string(),
                task: config.task.name(),
            });
        }
        let (live, variables) = Live::new(config, backbone, device)?;
        let mut parameters: Vec<(String, Var, &str)> = variables
            .into_iter()
            .filter_map(|(name, var)| {
                let group = LearningRates::group(AdaptedParams::param_group(&name))?;
                Some((name, var, group))
            })
            .collect();
        let objective = match config.task {
            Task::Retrieval => {
                let retrieval = Retrieval::new(config, &live, device)?;
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
        let groups =
            config.learning_rates.groups(config.adapter.kind, config.optimizer.weight_decay);
        let optimizer =
            OptimizerStep::new(parameters, groups, &config.optimizer, &config.schedule)?;
        Ok(Self { live, objective, optimizer })
    }

    /// Number of trainable values.
    pub fn trainable_parameters(&self) -> usize {
        self.optimizer.parameters()
    }

    /// The frozen model that live and momentum model share.
    pub fn frozen(&self) -> &Arc<Blip> {
        &self.live.frozen
    }

    /// The live tensors; they change with every step.
    pub fn live(&self) -> &AdaptedParams {
        &self.live.tuned
    }

    /// Puts a queue in the place of the one this tuning has, for instance that of a BLIP checkpoint.
    ///
    /// # Errors
    /// Features of another length; a task without a queue.
    pub fn set_queue(&mut self, queue: FeatureQueue) -> Result<()> {
        match &mut self.objective {
            Objective::Retrieval(retrieval) => retrieval.set_queue(queue),
            Objective::Vqa => {
                Err(Error::OtherExamples { given: "a queue of features", task: Task::Vqa.name() })
            }
        }
    }

    /// Mean |dW| / |W| over what is adapted: how far the tuning has moved the weights it may move.
    ///
    /// # Errors
    /// What candle reports.
    pub fn mean_relative_delta(&self) -> Result<f64> {
        let Live { tuned, frozen, backbone, .. } = &self.live;
        Ok(tuned.mean_relative_delta(frozen, backbone)?)
    }

    /// One step: losses, gradients, parameters, and what the objective keeps.
    ///
    /// # Errors
    /// Examples of another task, shapes that do not fit the model, a loss that is not a number, a parameter without
    /// gradient.
    pub fn step<'a>(&mut self, examples: impl Into<Examples<'a>>, step: u64) -> Result<Trained> {
        let examples = examples.into();
        let Losses { total, parts, followed } = match (&self.objective, &examples) {
            (Objective::Retrieval(retrieval), Examples::Pairs(pairs)) => {
                retrieval.losses(&self.live, pairs, step)?
            }
            (Objective::Vqa, Examples::Questions(asked)) => vqa_losses(&self.live, asked, step)?,
            (Objective::Retrieval(_), Examples::Questions(_)) => {
                return Err(Error::OtherExamples {
                    given: "questions",
                    task: Task::Retrieval.name(),
                });
            }
            (Objective::Vqa, Examples::Pairs(_)) => {
                return Err(Error::OtherExamples {
                    given: "pairs without questions",
                    task: Task::Vqa.name(),
                });
            }
        };
        let stats = self.optimizer.step(&total, step)?;
        if let (Objective::Retrieval(retrieval), Examples::Pairs(pairs), Some(followed)) =
            (&mut self.objective, &examples, followed)
        {
            // The loss looked at the queue's own memory, so only now.
            retrieval.enqueue(&followed, pairs.ids)?;
            self.live.tuned.update_context_bank(&followed.text_cls)?;
        }
        Ok(Trained { loss: value(&total)?, parts, stats })
    }
}

/// The loss of answers; as in the reference code there is no momentum model.
fn vqa_losses(live: &Live, asked: &VqaBatch, step: u64) -> Result<Losses> {
    let bound = live.bind(&Examples::Questions(*asked), step)?;
    let questions = encode_questions(&live.blip, &bound, asked.images, &asked.questions)?;
    let total = answer_loss((&live.blip, &bound), &questions, &asked.answers)?;
    Ok(Losses { total, parts: Vec::new(), followed: None })
}
