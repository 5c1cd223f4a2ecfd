//! Run folder: its files, and the order in which they are written.
//!
//! ```text
//! config.toml     resolved configuration, so that the run can be repeated
//! metrics.jsonl   one JSON object a line, appended and flushed during the run
//! checkpoints/    training checkpoints to resume from, until the run is finished
//! adapter/        best adapter
//! summary.json    baseline and tuned metrics, sizes and wall time
//! skipped.jsonl   skipped images and rows, if any
//! answers.json    task vqa: the tuned model's answers to the test questions
//! ```
//!
//! Files and folders are written aside and renamed, so that a final name means complete contents.
//! A folder that already holds a run is refused. In `metrics.jsonl` wall times stand under the one
//! key `seconds`, the last of a line: two runs with one seed differ in nothing else.

mod checkpoint_store;
mod metrics;

use std::fs;
use std::path::{Path, PathBuf};

use aurora_data::Skipped;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;

pub use checkpoint_store::CheckpointStore;
pub use metrics::{MetricsLog, MetricsRecord};

/// Names whose presence marks a folder as a run's.
const RUN_MARKERS: [&str; 5] =
    ["config.toml", "metrics.jsonl", "summary.json", "adapter", "checkpoints"];

/// Folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Creates the folder, or takes an existing one that holds no run.
    ///
    /// # Errors
    /// [`Error::RunExists`], or a folder that cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if let Some(found) = RUN_MARKERS.into_iter().find(|name| path.join(name).exists()) {
            return Err(Error::RunExists { path, found });
        }
        fs::create_dir_all(&path).map_err(|e| Error::io("create folder", &path, e))?;
        Ok(Self { path })
    }

    /// Opens the folder of a run to resume it.
    ///
    /// # Errors
    /// [`Error::NoRun`] if none has begun, [`Error::RunFinished`] if it is finished.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.join("config.toml").is_file() {
            return Err(Error::NoRun { path });
        }
        match path.join("summary.json").exists() {
            true => Err(Error::RunFinished { path }),
            false => Ok(Self { path }),
        }
    }

    /// Training checkpoints of the run.
    pub fn checkpoints(&self) -> CheckpointStore {
        CheckpointStore::new(Self { path: self.join("checkpoints") })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of an entry of the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file atomically: aside, then renamed.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let (path, aside) = (self.join(name), self.join(format!(".{name}.part")));
        fs::write(&aside, contents).map_err(|e| Error::io("write", &aside, e))?;
        fs::rename(&aside, &path).map_err(|e| Error::io("rename into place", &path, e))
    }

    /// Writes a folder aside with `fill`, then replaces `name`, which may exist.
    ///
    /// # Errors
    /// An error of `fill` or an I/O error; the old folder then still stands.
    pub fn write_folder<E: From<Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let (path, aside) = (self.join(name), self.join(format!(".{name}.part")));
        remove_folder(&aside)?;
        fs::create_dir_all(&aside).map_err(|e| Error::io("create folder", &aside, e))?;
        fill(&aside)?;
        remove_folder(&path)?;
        fs::rename(&aside, &path).map_err(|e| Error::io("rename into place", &path, e))?;
        Ok(())
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_config(&self, toml: &str) -> Result<()> {
        self.write("config.toml", toml)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_summary(&self, summary: &Summary) -> Result<()> {
        let mut text = serde_json::to_string_pretty(summary)
            .map_err(|e| Error::io("write", self.join("summary.json"), e.into()))?;
        text.push('\n');
        self.write("summary.json", text)
    }

    /// Writes `skipped.jsonl`, one line per skipped item; no file if there is none.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn write_skipped(&self, skipped: &[Skipped]) -> Result<()> {
        if skipped.is_empty() {
            let path = self.join("skipped.jsonl");
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &path, e))
                }
                _ => Ok(()),
            };
        }
        let mut text = String::new();
        for one in skipped {
            let line = serde_json::to_string(one)
                .map_err(|e| Error::io("write", self.join("skipped.jsonl"), e.into()))?;
            text.push_str(&line);
            text.push('\n');
        }
        self.write("skipped.jsonl", text)
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| Error::io("remove folder", path, e))?;
    }
    Ok(())
}

/// Contents of `summary.json`. Recalls and accuracies are in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Metrics of the bare backbone on the test split.
    pub baseline: TaskMetrics,
    /// Metrics of the tuned model on the test split.
    pub tuned: TaskMetrics,
    /// Number of trained parameters.
    pub trainable_parameters: u64,
    /// Number of parameters of the backbone.
    pub backbone_parameters: u64,
    /// Size of the adapter's tensors on disk, bytes.
    pub adapter_bytes: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Samples of the test split: images or clips with their texts, or questions.
    pub test_pairs: u64,
    /// Images, clips and rows skipped under `data.on_error`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Wall time of the whole run, seconds.
    pub seconds: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recall::RetrievalReport;

    #[test]
    fn a_second_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/run");
        let run = RunFolder::create(&path).unwrap();
        // A folder with other contents holds no run.
        fs::write(path.join("notes.txt"), "mine").unwrap();
        RunFolder::create(&path).unwrap();
        run.write_config("seed = 1\n").unwrap();
        let e = RunFolder::create(&path).unwrap_err().to_string();
        assert!(e.contains("deep/run") && e.contains("config.toml") && e.contains("--out"), "{e}");
        let e = RunFolder::create(path.join("notes.txt/x")).unwrap_err().to_string();
        assert!(e.contains("cannot create folder") && e.contains("notes.txt/x"), "{e}");
    }

    #[test]
    fn folders_are_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let write = |text: &'static str, fail: bool| {
            run.write_folder("adapter", |aside| {
                fs::write(aside.join(text), text).map_err(|e| Error::io("write", aside, e))?;
                if fail {
                    Err(Error::io("write", aside, std::io::Error::other("full")))
                } else {
                    Ok(())
                }
            })
        };
        write("one", false).unwrap();
        assert!(write("two", true).is_err());
        assert!(run.join("adapter/one").exists() && !run.join("adapter/two").exists());
        write("three", false).unwrap();
        assert!(!run.join("adapter/one").exists() && run.join("adapter/three").exists());
        assert!(!run.join(".adapter.part").exists());
    }

    #[test]
    fn the_summary_has_exactly_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let summary = Summary {
            baseline: TaskMetrics::Recall(RetrievalReport::default()),
            tuned: TaskMetrics::Recall(RetrievalReport::default()),
            trainable_parameters: 1,
            backbone_parameters: 2,
            adapter_bytes: 3,
            seed: 4,
            test_pairs: 5,
            skipped: 0,
            seconds: 6.5,
        };
        run.write_summary(&summary).unwrap();
        let text = fs::read_to_string(run.join("summary.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let expected = [
            "adapter_bytes",
            "backbone_parameters",
            "baseline",
            "seconds",
            "seed",
            "test_pairs",
            "trainable_parameters",
            "tuned",
        ];
        assert_eq!(keys, expected);
        assert!(value["baseline"]["i2t"]["r10"].is_number());
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        let mut report = crate::accuracy::AccuracyReport::default();
        report.add(1.0, 1.0, "other");
        let answered = Summary { tuned: TaskMetrics::Accuracy(report), skipped: 2, ..summary };
        let text = serde_json::to_string(&answered).unwrap();
        assert!(text.contains("\"skipped\":2"), "{text}");
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), answered);
    }
}
