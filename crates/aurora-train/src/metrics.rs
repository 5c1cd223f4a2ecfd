//! What a measurement says in numbers, whatever the task.

use serde::{Deserialize, Serialize};

use crate::accuracy::AccuracyReport;
use crate::recall::RetrievalReport;

/// The metrics of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaskMetrics {
    /// Of retrieval.
    Recall(RetrievalReport),
    /// Of question answering.
    Accuracy(AccuracyReport),
}

impl TaskMetrics {
    /// What the figure is called that a run is chosen by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Recall(_) => "mean recall",
            Self::Accuracy(_) => "accuracy",
        }
    }

    /// That figure, in percent.
    pub fn primary(&self) -> f64 {
        match self {
            Self::Recall(report) => report.mean(),
            Self::Accuracy(report) => report.accuracy,
        }
    }
}
