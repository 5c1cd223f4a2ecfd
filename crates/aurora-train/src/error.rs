//! What can go wrong in a run, in words that say what was allowed and what to do.

use std::path::{Path, PathBuf};

use crate::config::{ConfigDiff, ConfigError, RESUMABLE_KEYS};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that stops a run.
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
        /// What was tried, as a verb ("create", "write", ...).
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The folder for a new run already holds one.
    #[error(
        "{} already holds a run ({found} is there): give another folder with --out, or remove this one; `aurora train --resume` goes \
         on with a tuning that was cut off",
        path.display()
    )]
    RunExists {
        /// The folder.
        path: PathBuf,
        /// The file or folder that gives it away.
        found: &'static str,
    },

    /// A folder in which no run has begun.
    #[error(
        "{} holds no run (config.toml is not there): begin one there with `aurora train --out {}`",
        path.display(), path.display()
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
    },

    /// A run that cannot go on because it is at its end.
    #[error(
        "the run in {} has finished (summary.json is there), so there is nothing to go on with; its result is in adapter/",
        path.display()
    )]
    RunFinished {
        /// The folder.
        path: PathBuf,
    },

    /// A run of which no state was saved.
    #[error(
        "{} has no checkpoint to go on from: the run ended before the first (`checkpoint.every` says after how many steps, 0 \
         for never); begin it again with `aurora train --config {} --out` and another folder",
        path.display(), path.join("config.toml").display()
    )]
    NoCheckpoint {
        /// The run's folder.
        path: PathBuf,
    },

    /// A saved state that cannot be gone on from.
    #[error("cannot go on from {}: {reason}", folder.display())]
    Checkpoint {
        /// The state's folder.
        folder: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },

    /// A configuration that is another than the run began with.
    #[error(
        "cannot go on from {}: `{}` was {} when it was saved and is {} now; what may change is {}. For anything else begin a \
         new run",
        folder.display(), diff.key, diff.saved, diff.now, RESUMABLE_KEYS.join(", ")
    )]
    OtherConfig {
        /// The state's folder.
        folder: PathBuf,
        /// What is another.
        diff: ConfigDiff,
    },

    /// A `metrics.jsonl` that does not have what was written.
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
        /// What is wrong with it.
        reason: String,
    },

    /// A backbone without a vocabulary.
    #[error(
        "there is no vocabulary: {} {} not there; put the vocab.txt of bert-base-uncased beside the weights, or name a \
         file with `model.tokenizer`",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "),
        if looked.len() == 1 { "is" } else { "are" }
    )]
    NoTokenizer {
        /// The files that were looked for.
        looked: Vec<PathBuf>,
    },

    /// A vocabulary that is another model's.
    #[error(
        "{}: the vocabulary has {pieces} word pieces, but the backbone has embeddings for {rows}; give the vocabulary that \
         it was trained with, as `model.tokenizer`",
        path.display()
    )]
    VocabSizeMismatch {
        /// The vocabulary.
        path: PathBuf,
        /// Its pieces.
        pieces: usize,
        /// The backbone's word embeddings.
        rows: usize,
    },

    /// A model for one task where another is asked for.
    #[error(
        "the backbone is a model for {architecture}, and `task` is {task:?}: {}",
        match *task {
            "vqa" => "give a backbone with a decoder, or set `model.decoder` to \"from_encoder\", which begins one from the \
                            text encoder of a model for retrieval",
            _ => "give a model for retrieval, or set `task` to \"vqa\"",
        }
    )]
    ModelTaskMismatch {
        /// What the model is for.
        architecture: String,
        /// The task.
        task: &'static str,
    },

    /// Data of one task where another is asked for.
    #[error("{given} are given to a tuning whose task is {task}")]
    BatchTaskMismatch {
        /// What is given.
        given: &'static str,
        /// The task.
        task: &'static str,
    },

    /// Validation questions that nobody has answered.
    #[error(
        "none of the {questions} samples of `data.validation` has a question with an answer, so no checkpoint could be chosen: \
         give questions whose answers are known"
    )]
    UnlabeledValidation {
        /// Samples there are.
        questions: usize,
    },

    /// An adapter that trains no tensor.
    #[error(
        "adapter.kind {kind:?} trains nothing of a model for {architecture}: take another kind, or name modules in \
         `adapter.modules_to_save`"
    )]
    NothingToTrain {
        /// The kind.
        kind: &'static str,
        /// What the model is for.
        architecture: String,
    },

    /// A trainable tensor that the backward pass did not reach.
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

    /// A value that is infinite or not a number.
    #[error(
        "{what} is {value}: the run has diverged; lower the learning rate or the clipping norm"
    )]
    NotFinite {
        /// Which value.
        what: String,
        /// The value.
        value: f64,
    },

    /// A parameter that names a group the optimizer does not have.
    #[error("parameter {parameter} is in group {group:?}, but the groups are {groups:?}")]
    UnknownGroup {
        /// Name of the parameter.
        parameter: String,
        /// The group it names.
        group: String,
        /// The groups there are.
        groups: Vec<String>,
    },

    /// Two things with one name.
    #[error("{kind} {name:?} is given twice")]
    Duplicate {
        /// Kind of thing.
        kind: &'static str,
        /// The name.
        name: String,
    },

    /// An element type that is not supported.
    #[error("{operation}: {name} is {found}, expected {expected}")]
    DType {
        /// Operation.
        operation: &'static str,
        /// Name of the tensor.
        name: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },

    /// A tensor whose shape does not fit.
    #[error("{operation}: {name} has shape {found:?}, expected {expected}")]
    Shape {
        /// Operation.
        operation: &'static str,
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What would fit.
        expected: String,
    },

    /// A number of items that does not fit.
    #[error("{operation}: {found} {name}, expected {expected}")]
    Count {
        /// Operation.
        operation: &'static str,
        /// What was counted.
        name: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },

    /// Saved state that does not belong to what it is loaded into.
    #[error("cannot load the {what} state: missing {missing:?}, unexpected {unexpected:?}")]
    State {
        /// Whose state it is.
        what: &'static str,
        /// Tensors that should be there and are not.
        missing: Vec<String>,
        /// Tensors that are there and should not be.
        unexpected: Vec<String>,
    },

    /// A batch that has no negative for one of its pairs.
    #[error(
        "hard negatives: pair {row} (id {id}) has no negative, every pair of the batch of {batch} has its id; use a larger batch or more concepts"
    )]
    NoNegative {
        /// The pair.
        row: usize,
        /// Its id.
        id: i64,
        /// Pairs in the batch.
        batch: usize,
    },

    /// A query without anything right to find.
    #[error("recall: {kind} {index} (id {id}) has no {other} with its id, so it cannot be found")]
    NoGroundTruth {
        /// "image" or "text".
        kind: &'static str,
        /// Position of the query.
        index: usize,
        /// Its id.
        id: i64,
        /// What is searched for: "text" or "image".
        other: &'static str,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source }
    }
}
