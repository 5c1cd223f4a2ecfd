//! Training checkpoint: `state.json` with its metadata, and `state.safetensors`.

use std::path::{Path, PathBuf};

use aurora_data::{LoaderState, Skipped};
use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{GradientCheckpointing, Tensors, tensors};
use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::run::RunFolder;

const META: &str = "state.json";
const TENSORS: &str = "state.safetensors";

/// Format version. Another one is refused, since its tensors may mean something else.
pub(super) const VERSION: u64 = 2;

/// Training checkpoint to resume from. Its tensors are read when it is restored.
#[derive(Debug)]
pub struct TrainingCheckpoint {
    folder: PathBuf,
    pub(super) meta: CheckpointMeta,
}

/// Contents of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointMeta {
    pub(super) version: u64,
    /// Steps done.
    pub(super) step: u64,
    /// Wall time of the run so far, seconds.
    pub(super) seconds: f64,
    /// Number of lines of `metrics.jsonl`.
    pub(super) metrics_lines: usize,
    /// Best state by validation so far.
    pub(super) best: Option<BestMeta>,
    /// Gradient checkpointing of the steps.
    pub(super) gradient_checkpointing: SavedCheckpointing,
    /// Samples skipped so far.
    pub(super) skipped: Vec<Skipped>,
    /// Position in the training data.
    pub(super) loader_state: LoaderState,
    pub(super) inputs: InputFingerprints,
    /// Fingerprint of `state.safetensors`.
    pub(super) tensors: String,
    /// Configuration of the run.
    pub(super) config: Value,
}

/// Fingerprints of a run's inputs, beside its configuration and its training data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputFingerprints {
    /// Fingerprint of the frozen weights.
    pub(super) backbone: String,
    /// Device, "cpu" or "gpu", which round differently.
    pub(super) device: String,
    /// Fingerprint of the tokenizer's vocabulary.
    pub(super) tokenizer: String,
    /// Fingerprint of the answer candidates; of an empty list for retrieval.
    pub(super) answers: String,
    pub(super) validation: LoaderState,
    pub(super) test: LoaderState,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BestMeta {
    pub(super) primary: f64,
    pub(super) similarity_weight: Option<f64>,
}

/// Serialized [`GradientCheckpointing`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SavedCheckpointing {
    None,
    Block,
}

impl From<GradientCheckpointing> for SavedCheckpointing {
    fn from(checkpointing: GradientCheckpointing) -> Self {
        match checkpointing {
            GradientCheckpointing::None => Self::None,
            GradientCheckpointing::Block => Self::Block,
        }
    }
}

impl From<SavedCheckpointing> for GradientCheckpointing {
    fn from(gradient_checkpointing: SavedCheckpointing) -> Self {
        match gradient_checkpointing {
            SavedCheckpointing::None => Self::None,
            SavedCheckpointing::Block => Self::Block,
        }
    }
}

impl TrainingCheckpoint {
    /// Newest checkpoint of a run.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] if there is none, [`Error::Checkpoint`] if it is damaged or of another version.
    pub fn newest(run: &RunFolder) -> Result<Self> {
        let newest = run.checkpoints().newest()?;
        let folder = newest.ok_or_else(|| Error::NoCheckpoint { path: run.path().to_owned() })?;
        let damaged = |reason: String| damaged(&folder, &reason);
        let value: Value = read_json(&folder, META)?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            found => {
                let found =
                    found.map_or("no version".to_owned(), |found| format!("version {found}"));
                return Err(damaged(format!(
                    "{META} has {found}, and this program goes on from {VERSION}"
                )));
            }
        }
        let meta = serde_json::from_value(value).map_err(|e| damaged(format!("{META}: {e}")))?;
        Ok(Self { folder, meta })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.meta.step
    }

    /// Checks that `config` is that of the run, as far as results depend on it.
    ///
    /// # Errors
    /// [`Error::OtherConfig`], which names the key.
    pub fn check(&self, config: &Config) -> Result<()> {
        match config.diff(&self.meta.config) {
            Some(diff) => Err(Error::OtherConfig { folder: self.folder.clone(), diff }),
            None => Ok(()),
        }
    }

    /// Samples skipped so far, under their current paths: data may have moved since the run began.
    pub(super) fn skipped(&self, config: &Config) -> Vec<Skipped> {
        let now = serde_json::to_value(&config.data).unwrap_or_default();
        let mut moved = Vec::new();
        for key in ["train", "validation", "test", "image_root"] {
            let paths = |data: Option<&Value>| match data.and_then(|data| data.get(key)) {
                Some(Value::Array(many)) => many.clone(),
                Some(one) => vec![one.clone()],
                None => Vec::new(),
            };
            let pairs = paths(self.meta.config.get("data")).into_iter().zip(paths(Some(&now)));
            moved.extend(pairs.filter_map(|(then, now)| match (then.as_str(), now.as_str()) {
                (Some(then), Some(now)) if then != now => Some((then.to_owned(), now.to_owned())),
                _ => None,
            }));
        }
        // A folder's path also begins those of the folders in it: the longest match is the nearest.
        moved.sort_by_key(|(then, _)| std::cmp::Reverse(then.len()));
        let renamed = |one: &Skipped| {
            let place = moved.iter().find(|(then, _)| one.what.starts_with(then.as_str()));
            place.map(|(then, now)| Skipped {
                what: one.what.replacen(then, now, 1),
                reason: one.reason.replace(then, now),
            })
        };
        let skipped = self.meta.skipped.iter();
        skipped.map(|one| renamed(one).unwrap_or_else(|| one.clone())).collect()
    }

    /// Tensors of the checkpoint.
    pub(super) fn tensors(&self) -> Result<Tensors> {
        read_tensors(&self.tensors_path(), DType::F32, &Device::Cpu)
            .map_err(|error| damaged(&self.folder, &error.to_string()))
    }

    /// Checks by fingerprint that tensors of the right names, shapes and types are those that were saved, to the bit.
    pub(super) fn check_values(&self, fingerprint: &str) -> Result<()> {
        if fingerprint == self.meta.tensors {
            return Ok(());
        }
        Err(damaged(&self.folder, &format!("{TENSORS} has other values than were saved")))
    }

    pub(super) fn tensors_path(&self) -> PathBuf {
        self.folder.join(TENSORS)
    }

    /// Error about an input that is not the run's.
    pub(super) fn refuse(&self, reason: String) -> Error {
        Error::Checkpoint { folder: self.folder.clone(), reason }
    }

    /// Error about a damaged checkpoint.
    pub(super) fn damaged(&self, error: &Error) -> Error {
        damaged(&self.folder, &error.to_string())
    }
}

/// Writes a checkpoint into a folder.
pub(super) fn write(folder: &Path, meta: &CheckpointMeta, state: &Tensors) -> Result<()> {
    tensors::write(state, &folder.join(TENSORS))?;
    write_json(folder, META, meta)
}

/// Error about a folder whose content cannot be used, with the way out.
pub(super) fn damaged(folder: &Path, reason: &str) -> Error {
    let reason = format!(
        "{reason}; without that folder the run goes on from what was saved before it, or, where nothing was, has to be begun \
         again"
    );
    Error::Checkpoint { folder: folder.to_owned(), reason }
}

/// Writes indented JSON.
pub(super) fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = folder.join(name);
    let failed = |e| Error::io("write", &path, e);
    let text = serde_json::to_string_pretty(value).map_err(|e| failed(e.into()))?;
    std::fs::write(&path, text + "\n").map_err(failed)
}

/// Reads a JSON file.
pub(super) fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    serde_json::from_str(&text)
        .map_err(|e| damaged(folder, &format!("{name} is cut or damaged: {e}")))
}
