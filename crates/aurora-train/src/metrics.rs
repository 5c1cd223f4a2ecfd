//! Evaluation metrics of any task.

use serde::{Deserialize, Serialize};

use crate::accuracy::AccuracyReport;
use crate::recall::RetrievalReport;

/// Metrics of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaskMetrics {
    /// Retrieval.
    Recall(RetrievalReport),
    /// Question answering.
    Accuracy(AccuracyReport),
}

impl TaskMetrics {
    /// Name of the primary metric, by which the best state is selected.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recall(_) => "mean recall",
            Self::Accuracy(_) => "accuracy",
        }
    }

    /// Primary metric, percent.
    pub fn primary(&self) -> f64 {
        match self {
            Self::Recall(report) => report.mean(),
            Self::Accuracy(report) => report.accuracy,
        }
    }
}
