//! The run folder: what a run leaves behind, and in which order.
//!
//! ```text
//! config.toml     the configuration as resolved, so that the run can be repeated
//! metrics.jsonl   one JSON object a line, appended and flushed as the run goes
//! adapter/        the best adapter
//! summary.json    before, after and what it took
//! skipped.jsonl   pictures and rows that were left out, where some were
//! answers.json    task answering: how the tuned model answers the test questions
//! ```
//!
//! Files and folders are written aside and renamed, so that what carries its final name is whole.
//! A folder that already holds a run is refused. In `metrics.jsonl` wall times stand under the one
//! key `seconds`, the last of a line: two runs with one seed differ in nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use aurora_data::Skipped;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::recall::RetrievalReport;

/// Names whose presence says that a folder holds a run.
const TRACES: [&str; 5] =
    ["config.toml", "metrics.jsonl", "summary.json", "adapter", "checkpoints"];

/// A folder for one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, or takes an existing one that holds no run.
    ///
    /// # Errors
    /// [`Error::RunExists`], or a folder that cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if let Some(found) = TRACES.into_iter().find(|name| path.join(name).exists()) {
            return Err(Error::RunExists { path, found });
        }
        fs::create_dir_all(&path).map_err(|e| Error::io("create folder", &path, e))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file, aside first.
    ///
    /// # Errors
    /// What the system reports.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let (path, aside) = (self.join(name), self.join(format!(".{name}.part")));
        fs::write(&aside, contents).map_err(|e| Error::io("write", &aside, e))?;
        fs::rename(&aside, &path).map_err(|e| Error::io("rename into place", &path, e))
    }

    /// Lets `fill` write a folder aside, then puts it in place of `name`, which may exist.
    ///
    /// # Errors
    /// What `fill` or the system reports; the old folder then still stands.
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
    /// What the system reports.
    pub fn write_config(&self, toml: &str) -> Result<()> {
        self.write("config.toml", toml)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// What the system reports.
    pub fn write_summary(&self, summary: &Summary) -> Result<()> {
        let mut text = serde_json::to_string_pretty(summary)
            .map_err(|e| Error::io("write", self.join("summary.json"), e.into()))?;
        text.push('\n');
        self.write("summary.json", text)
    }

    /// Writes `skipped.jsonl`, one line for each thing that was left out; nothing where nothing was.
    ///
    /// # Errors
    /// What the system reports.
    pub fn write_skipped(&self, skipped: &[Skipped]) -> Result<()> {
        if skipped.is_empty() {
            return Ok(());
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

    /// Opens `metrics.jsonl` for appending.
    ///
    /// # Errors
    /// What the system reports.
    pub fn metrics(&self) -> Result<Metrics> {
        let path = self.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        Ok(Metrics { file, path })
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| Error::io("remove folder", path, e))?;
    }
    Ok(())
}

/// What a run gained and took, as `summary.json`. Recalls and accuracies are in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The bare backbone on the test split.
    pub before: Figures,
    /// The tuned model on the test split.
    pub after: Figures,
    /// Values that were trained.
    pub trainable_parameters: u64,
    /// Values of the backbone.
    pub backbone_parameters: u64,
    /// Size of the adapter's tensors on disk, bytes.
    pub adapter_bytes: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Samples of the test split: pictures or clips with their texts, or questions.
    pub test_pairs: u64,
    /// Pictures, clips and rows that were left out as `data.on_error` says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Wall time of the whole run.
    pub seconds: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The open `metrics.jsonl`.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
}

impl Metrics {
    /// Appends one line and flushes it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let fail = |e| Error::io("append to", &self.path, e);
        let mut line = serde_json::to_string(record).map_err(|e| fail(e.into()))?;
        line.push('\n');
        // One write per line: a reader that follows the file sees whole lines.
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush()).map_err(fail)
    }
}

/// One line of `metrics.jsonl`: `event`, `step`, then values in the order given, `seconds` last.
///
/// ```
/// use aurora_train::run::Record;
///
/// let record = Record::new("train", 3).with("loss", 0.5).seconds(0.25);
/// assert_eq!(
///     serde_json::to_string(&record).unwrap(),
///     r#"{"event":"train","step":3,"loss":0.5,"seconds":0.25}"#,
/// );
/// ```
#[derive(Debug, Clone)]
pub struct Record {
    values: Vec<(String, serde_json::Value)>,
    seconds: Option<f64>,
}

impl Record {
    /// A line about `event` ("train", "validation", ...) after `step` steps.
    pub fn new(event: &str, step: u64) -> Self {
        let values = vec![("event".to_owned(), event.into()), ("step".to_owned(), step.into())];
        Self { values, seconds: None }
    }

    /// Adds a number or a text; a number that is infinite or not a number becomes `null`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.values.push((key.to_owned(), value.into()));
        self
    }

    /// Adds the six recalls and their mean: `i2t_r1` ... `t2i_r10`, `mean_recall`.
    #[must_use]
    pub fn with_recall(mut self, report: &RetrievalReport) -> Self {
        for (way, recall) in [("i2t", report.i2t), ("t2i", report.t2i)] {
            for (k, value) in [("r1", recall.r1), ("r5", recall.r5), ("r10", recall.r10)] {
                self = self.with(&format!("{way}_{k}"), value);
            }
        }
        self.with("mean_recall", report.mean())
    }

    /// Adds the figures of a task: as [`Record::with_recall`], or `accuracy`, `reachable` and `questions`.
    #[must_use]
    pub fn with_figures(self, figures: &Figures) -> Self {
        match figures {
            Figures::Recall(report) => self.with_recall(report),
            Figures::Accuracy(report) => self
                .with("accuracy", report.accuracy)
                .with("reachable", report.reachable)
                .with("questions", report.questions),
        }
    }

    /// Sets the wall time; it is written last.
    #[must_use]
    pub fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.values {
            map.serialize_entry(key, value)?;
        }
        if let Some(seconds) = self.seconds {
            map.serialize_entry("seconds", &seconds)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recall::Recall;

    #[test]
    fn a_second_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/run");
        let run = RunFolder::create(&path).unwrap();
        // A folder with something else in it is no run.
        fs::write(path.join("notes.txt"), "mine").unwrap();
        RunFolder::create(&path).unwrap();
        run.write_config("seed = 1\n").unwrap();
        let e = RunFolder::create(&path).unwrap_err().to_string();
        assert!(e.contains("deep/run") && e.contains("config.toml") && e.contains("--out"), "{e}");
        let e = RunFolder::create(path.join("notes.txt/x")).unwrap_err().to_string();
        assert!(e.contains("cannot create folder") && e.contains("notes.txt/x"), "{e}");
    }

    #[test]
    fn lines_are_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let mut metrics = run.metrics().unwrap();
        let third = 1.0 / 3.0;
        let record = Record::new("train", 1).with("z", third).with("a", f64::NAN).seconds(2.5);
        metrics.append(&record).unwrap();
        let recall = Recall { r1: 1.0, r5: 2.0, r10: 3.0 };
        let report = RetrievalReport { i2t: recall, t2i: recall };
        metrics.append(&Record::new("test", 1).with_recall(&report)).unwrap();
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert_eq!(
            text,
            "{\"event\":\"train\",\"step\":1,\"z\":0.3333333333333333,\"a\":null,\"seconds\":2.5}\n\
             {\"event\":\"test\",\"step\":1,\"i2t_r1\":1.0,\"i2t_r5\":2.0,\"i2t_r10\":3.0,\
             \"t2i_r1\":1.0,\"t2i_r5\":2.0,\"t2i_r10\":3.0,\"mean_recall\":2.0}\n"
        );
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
            before: Figures::Recall(RetrievalReport::default()),
            after: Figures::Recall(RetrievalReport::default()),
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
            "after",
            "backbone_parameters",
            "before",
            "seconds",
            "seed",
            "test_pairs",
            "trainable_parameters",
        ];
        assert_eq!(keys, expected);
        assert!(value["before"]["i2t"]["r10"].is_number());
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        let mut report = crate::accuracy::AccuracyReport::default();
        report.add(1.0, 1.0, "other");
        let answered = Summary { after: Figures::Accuracy(report), skipped: 2, ..summary };
        let text = serde_json::to_string(&answered).unwrap();
        assert!(text.contains("\"skipped\":2"), "{text}");
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), answered);
    }
}
