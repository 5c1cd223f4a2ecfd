//! Measuring a model at a run's task, whatever that is.

use aurora_data::Dataset;
use aurora_layers::{Blip, BoundModel};

use super::answers::{VqaEval, answer, candidates};
use super::feed::Feed;
use super::measure::{Evaluation, measure};
use crate::config::{Config, EvaluationSection, Task};
use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;
use crate::progress::Progress;

/// What was measured.
#[derive(Debug, Clone)]
pub enum Measurement {
    /// Of retrieval.
    Retrieval(Evaluation),
    /// Of question answering.
    Vqa(VqaEval),
}

impl Measurement {
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
pub struct Measurer {
    feed: Feed,
    section: EvaluationSection,
    /// What questions are answered with; empty for retrieval.
    candidates: Vec<String>,
}

impl Measurer {
    /// For a configuration's task. `train` opens the training data, where answers come from it.
    ///
    /// # Errors
    /// As [`candidates`].
    pub fn new(
        config: &Config,
        feed: Feed,
        train: impl FnOnce() -> Result<Dataset>,
    ) -> Result<Self> {
        let candidates = match config.task {
            Task::Retrieval => Vec::new(),
            Task::Vqa => candidates(&config.data, train)?,
        };
        Ok(Self { feed, section: config.evaluation.clone(), candidates })
    }

    /// How the data is seen.
    pub fn feed(&self) -> &Feed {
        &self.feed
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
    /// As [`measure`] and [`answer`].
    pub fn measure(
        &self,
        model: (&Blip, &BoundModel),
        dataset: &Dataset,
        similarity_weight: Option<f64>,
        progress: &mut dyn Progress,
    ) -> Result<Measurement> {
        Ok(match self.feed.task {
            Task::Retrieval => Measurement::Retrieval(measure(
                model,
                dataset,
                &self.feed,
                &self.section,
                similarity_weight,
                progress,
            )?),
            Task::Vqa => Measurement::Vqa(answer(
                model,
                dataset,
                &self.feed,
                &self.candidates,
                self.section.k_test,
                progress,
            )?),
        })
    }

    /// That `dataset` can choose among checkpoints: with task vqa, that right answers are known.
    ///
    /// # Errors
    /// [`Error::NothingKnown`].
    pub fn check_validation(&self, dataset: &Dataset) -> Result<()> {
        let known = |sample: &aurora_data::Sample| {
            sample.question.as_ref().is_some_and(|question| !question.answers.is_empty())
        };
        match self.feed.task == Task::Vqa && !dataset.samples().any(known) {
            true => Err(Error::NothingKnown { questions: dataset.len() }),
            false => Ok(()),
        }
    }
}
