//! Measuring a model at a run's task, whatever that is.

pub(super) mod retrieval;
pub(super) mod vqa;

use aurora_data::Dataset;
use aurora_layers::{Blip, BoundModel};

use super::data_module::DataModule;
use crate::config::{Config, EvaluationSection, Task};
use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;
use crate::progress::Progress;
use retrieval::{RetrievalEval, evaluate_retrieval};
use vqa::{VqaEval, answer_candidates, evaluate_vqa};

/// What was measured.
#[derive(Debug, Clone)]
pub enum EvalResult {
    /// Of retrieval.
    Retrieval(RetrievalEval),
    /// Of question answering.
    Vqa(VqaEval),
}

impl EvalResult {
    /// Its metrics.
    pub fn metrics(&self) -> TaskMetrics {
        match self {
            Self::Retrieval(found) => TaskMetrics::Recall(found.report),
            Self::Vqa(found) => TaskMetrics::Accuracy(found.report.clone()),
        }
    }

    /// What it chose beside the checkpoint, for the test: the weight of the similarity.
    pub fn similarity_weight(&self) -> Option<f64> {
        match self {
            Self::Retrieval(found) => Some(found.similarity_weight),
            Self::Vqa(_) => None,
        }
    }
}

/// Measures models at a task.
#[derive(Debug)]
pub struct Evaluator {
    data_module: DataModule,
    section: EvaluationSection,
    /// What questions are answered with; empty for retrieval.
    candidates: Vec<String>,
}

impl Evaluator {
    /// For a configuration's task. `train` opens the training data, where answers come from it.
    ///
    /// # Errors
    /// As [`answer_candidates`].
    pub fn new(
        config: &Config,
        data_module: DataModule,
        train: impl FnOnce() -> Result<Dataset>,
    ) -> Result<Self> {
        let candidates = match config.task {
            Task::Retrieval => Vec::new(),
            Task::Vqa => answer_candidates(&config.data, train)?,
        };
        Ok(Self { data_module, section: config.evaluation.clone(), candidates })
    }

    /// How the data is seen.
    pub fn data_module(&self) -> &DataModule {
        &self.data_module
    }

    /// Fingerprint of the answers to choose from, in their order.
    pub fn fingerprint(&self) -> String {
        aurora_data::fingerprint(&self.candidates)
    }

    /// Number of answers to choose from.
    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    /// A model over a dataset. Of several candidates of beta the best on this dataset is taken, unless one is given.
    ///
    /// # Errors
    /// As [`evaluate_retrieval`] and [`evaluate_vqa`].
    pub fn evaluate(
        &self,
        model: (&Blip, &BoundModel),
        dataset: &Dataset,
        similarity_weight: Option<f64>,
        progress: &mut dyn Progress,
    ) -> Result<EvalResult> {
        Ok(match self.data_module.task {
            Task::Retrieval => EvalResult::Retrieval(evaluate_retrieval(
                model,
                dataset,
                &self.data_module,
                &self.section,
                similarity_weight,
                progress,
            )?),
            Task::Vqa => EvalResult::Vqa(evaluate_vqa(
                model,
                dataset,
                &self.data_module,
                &self.candidates,
                self.section.k_test,
                progress,
            )?),
        })
    }

    /// That `dataset` can choose among checkpoints: with task vqa, that right answers are known.
    ///
    /// # Errors
    /// [`Error::UnlabeledValidation`].
    pub fn check_validation(&self, dataset: &Dataset) -> Result<()> {
        let known = |sample: &aurora_data::Sample| {
            sample.question.as_ref().is_some_and(|question| !question.answers.is_empty())
        };
        match self.data_module.task == Task::Vqa && !dataset.samples().any(known) {
            true => Err(Error::UnlabeledValidation { questions: dataset.len() }),
            false => Ok(()),
        }
    }
}
