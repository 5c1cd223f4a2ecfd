//! Evaluation of a model on a run's task.

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

/// Result of an evaluation.
#[derive(Debug, Clone)]
pub enum EvalResult {
    /// Retrieval.
    Retrieval(RetrievalEval),
    /// Question answering.
    Vqa(VqaEval),
}

impl EvalResult {
    /// Metrics of the task.
    pub fn metrics(&self) -> TaskMetrics {
        match self {
            Self::Retrieval(found) => TaskMetrics::Recall(found.report),
            Self::Vqa(found) => TaskMetrics::Accuracy(found.report.clone()),
        }
    }

    /// Similarity weight chosen on validation, for the test; `None` for question answering.
    pub fn similarity_weight(&self) -> Option<f64> {
        match self {
            Self::Retrieval(found) => Some(found.similarity_weight),
            Self::Vqa(_) => None,
        }
    }
}

/// Evaluator of models on a task.
#[derive(Debug)]
pub struct Evaluator {
    data_module: DataModule,
    section: EvaluationSection,
    /// Answer candidates; empty for retrieval.
    candidates: Vec<String>,
}

impl Evaluator {
    /// Builds the evaluator of a configuration. `train` opens the training data, if answer candidates come from it.
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

    /// Data module of the evaluator.
    pub fn data_module(&self) -> &DataModule {
        &self.data_module
    }

    /// Fingerprint of the answer candidates, in their order.
    pub fn fingerprint(&self) -> String {
        aurora_data::fingerprint(&self.candidates)
    }

    /// Number of answer candidates.
    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    /// Evaluates a model on a dataset. Of several similarity weights the best on this dataset is taken, unless one is
    /// given.
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

    /// Checks that `dataset` can select the best state: with task vqa, that right answers are known.
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
