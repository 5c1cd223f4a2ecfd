//! Errors of a run; a message says what was allowed and what to do.

use std::path::{Path, PathBuf};

use crate::config::{ConfigDiff, ConfigError, RESUMABLE_KEYS};

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),

    /// Images or captions could not be read.
    #[error(transparent)]
    Data(#[from] aurora_data::Error),

    /// The model could not be put together or run.
    #[error(transparent)]
    Model(#[from] aurora_layers::Error),

    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Attempted action, as a verb ("create", "write", ...).
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Cause, from the system.
        source: std::io::Error,
    },

    /// The output folder already holds a run.
    #[error(
        "{} already holds a run ({found} is there): give another folder with --out, or remove this one; `aurora train --resume` goes \
         on with a tuning that was cut off",
        path.display()
    )]
    RunExists {
        /// The folder.
        path: PathBuf,
        /// File or folder that gives it away.
        found: &'static str,
    },

    /// The folder holds no run.
    #[error(
        "{} holds no run (config.toml is not there): begin one there with `aurora train --out {}`",
        path.display(), path.display()
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
    },

    /// The run is finished and cannot be resumed.
    #[error(
        "the run in {} has finished (summary.json is there), so there is nothing to go on with; its result is in adapter/",
        path.display()
    )]
    RunFinished {
        /// The folder.
        path: PathBuf,
    },

    /// The run has no checkpoint to resume from.
    #[error(
        "{} has no checkpoint to go on from: the run ended before the first (`checkpoint.every` says after how many steps, 0 \
         for never); begin it again with `aurora train --config {} --out` and another folder",
        path.display(), path.join("config.toml").display()
    )]
    NoCheckpoint {
        /// Folder of the run.
        path: PathBuf,
    },

    /// The checkpoint cannot be resumed from.
    #[error("cannot go on from {}: {reason}", folder.display())]
    Checkpoint {
        /// Folder of the checkpoint.
        folder: PathBuf,
        /// Cause, and the way out.
        reason: String,
    },

    /// The configuration is not the one that the run began with.
    #[error(
        "cannot go on from {}: `{}` was {} when it was saved and is {} now; what may change is {}. For anything else begin a \
         new run",
        folder.display(), diff.key, diff.saved, diff.now, RESUMABLE_KEYS.join(", ")
    )]
    OtherConfig {
        /// Folder of the checkpoint.
        folder: PathBuf,
        /// Key that differs.
        diff: ConfigDiff,
    },

    /// `metrics.jsonl` does not hold what was written.
    #[error(
        "{}, line {line}: {reason}; a run goes on only where its metrics are whole up to its checkpoint, so begin it again \
         in another folder",
        path.display()
    )]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Cause.
        reason: String,
    },

    /// The backbone has no tokenizer.
    #[error(
        "there is no vocabulary: {} {} not there; put the vocab.txt of bert-base-uncased beside the weights, or name a \
         file with `model.tokenizer`",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "),
        if looked.len() == 1 { "is" } else { "are" }
    )]
    NoTokenizer {
        /// Files that were looked for.
        looked: Vec<PathBuf>,
    },

    /// The vocabulary is another model's.
    #[error(
        "{}: the vocabulary has {pieces} word pieces, but the backbone has embeddings for {rows}; give the vocabulary that \
         it was trained with, as `model.tokenizer`",
        path.display()
    )]
    VocabSizeMismatch {
        /// File of the vocabulary.
        path: PathBuf,
        /// Number of its word pieces.
        pieces: usize,
        /// Rows of the backbone's word embeddings.
        rows: usize,
    },

    /// The backbone is for another task.
    #[error(
        "the backbone is a model for {architecture}, and `task` is {task:?}: {}",
        match *task {
            "vqa" => "give a backbone with a decoder, or set `model.decoder` to \"from_encoder\", which begins one from the \
                            text encoder of a model for retrieval",
            _ => "give a model for retrieval, or set `task` to \"vqa\"",
        }
    )]
    ModelTaskMismatch {
        /// Architecture of the backbone.
        architecture: String,
        /// The task.
        task: &'static str,
    },

    /// The batch is for another task.
    #[error("{given} are given to a tuning whose task is {task}")]
    BatchTaskMismatch {
        /// Contents of the batch.
        given: &'static str,
        /// The task.
        task: &'static str,
    },

    /// No validation question has an answer.
    #[error(
        "none of the {questions} samples of `data.validation` has a question with an answer, so no checkpoint could be chosen: \
         give questions whose answers are known"
    )]
    UnlabeledValidation {
        /// Number of samples.
        questions: usize,
    },

    /// The adapter trains no tensor.
    #[error(
        "adapter.kind {kind:?} trains nothing of a model for {architecture}: take another kind, or name modules in \
         `adapter.modules_to_save`"
    )]
    NothingToTrain {
        /// Adapter kind.
        kind: &'static str,
        /// Architecture of the backbone.
        architecture: String,
    },

    /// The backward pass did not reach a trainable tensor.
    #[error(
        "no gradient for {} of {total} trainable tensors: {}; each must take part in the loss, or be frozen",
        names.len(),
        names.join(", ")
    )]
    MissingGradient {
        /// Names of the tensors.
        names: Vec<String>,
        /// Number of trainable tensors.
        total: usize,
    },

    /// A value is infinite or NaN.
    #[error(
        "{what} is {value}: the run has diverged; lower the learning rate or the clipping norm"
    )]
    NotFinite {
        /// Name of the value.
        what: String,
        /// The value.
        value: f64,
    },

    /// A parameter names a group that the optimizer does not have.
    #[error("parameter {parameter} is in group {group:?}, but the groups are {groups:?}")]
    UnknownGroup {
        /// Name of the parameter.
        parameter: String,
        /// Group that it names.
        group: String,
        /// Groups of the optimizer.
        groups: Vec<String>,
    },

    /// A name is given twice.
    #[error("{kind} {name:?} is given twice")]
    Duplicate {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
    },

    /// The element type is not supported.
    #[error("{operation}: {name} is {found}, expected {expected}")]
    DType {
        /// Operation.
        operation: &'static str,
        /// Name of the tensor.
        name: String,
        /// Element type found.
        found: &'static str,
        /// Element type expected.
        expected: &'static str,
    },

    /// The shape of a tensor does not fit.
    #[error("{operation}: {name} has shape {found:?}, expected {expected}")]
    Shape {
        /// Operation.
        operation: &'static str,
        /// Name of the tensor.
        name: String,
        /// Shape found.
        found: Vec<usize>,
        /// Shape expected.
        expected: String,
    },

    /// The number of items does not fit.
    #[error("{operation}: {found} {name}, expected {expected}")]
    Count {
        /// Operation.
        operation: &'static str,
        /// Name of the items.
        name: &'static str,
        /// Number found.
        found: usize,
        /// Number expected.
        expected: usize,
    },

    /// Saved state has missing or unexpected tensors.
    #[error("cannot load the {what} state: missing {missing:?}, unexpected {unexpected:?}")]
    State {
        /// Owner of the state.
        what: &'static str,
        /// Missing tensors.
        missing: Vec<String>,
        /// Unexpected tensors.
        unexpected: Vec<String>,
    },

    /// A pair of the batch has no hard negative.
    #[error(
        "hard negatives: pair {row} (id {id}) has no negative, every pair of the batch of {batch} has its id; use a larger batch or more concepts"
    )]
    NoNegative {
        /// Row of the pair.
        row: usize,
        /// Id of the pair.
        id: i64,
        /// Pairs in the batch.
        batch: usize,
    },

    /// A query has no right candidate.
    #[error("recall: {kind} {index} (id {id}) has no {other} with its id, so it cannot be found")]
    NoGroundTruth {
        /// "image" or "text".
        kind: &'static str,
        /// Position of the query.
        index: usize,
        /// Id of the query.
        id: i64,
        /// Kind of the candidates: "text" or "image".
        other: &'static str,
    },
}

impl Error {
    /// Builds an [`Error::Io`] about `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source }
    }
}
