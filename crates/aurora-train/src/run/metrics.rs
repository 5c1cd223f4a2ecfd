//! `metrics.jsonl`: one JSON object a line, appended during a run.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::RunFolder;
use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;
use crate::recall::RetrievalReport;

/// File name.
const NAME: &str = "metrics.jsonl";

impl RunFolder {
    /// Opens `metrics.jsonl` for appending.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn metrics(&self) -> Result<MetricsLog> {
        let path = self.join(NAME);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        Ok(MetricsLog { file, path })
    }

    /// Truncates `metrics.jsonl` to its first `count` lines and returns them: later lines belong to steps that will be
    /// repeated.
    ///
    /// # Errors
    /// Fewer lines; a line that is no record, by its number.
    pub fn cut_metrics(&self, count: usize) -> Result<Vec<MetricsRecord>> {
        let path = self.join(NAME);
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let lines: Vec<&str> = text.split_inclusive('\n').take(count).collect();
        let wrong =
            |line: usize, reason: String| Error::Metrics { path: path.clone(), line, reason };
        if lines.len() < count || lines.last().is_some_and(|line| !line.ends_with('\n')) {
            let reason = format!("the file ends here, and {count} lines were written");
            return Err(wrong(lines.len(), reason));
        }
        let parsed = lines.iter().enumerate().map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| wrong(index + 1, error.to_string()))
        });
        let records = parsed.collect::<Result<_>>()?;
        self.write(NAME, lines.concat())?;
        Ok(records)
    }
}

/// Open `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
}

impl MetricsLog {
    /// Syncs appended lines to disk, so that a crash loses none of them.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn to_disk(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))
    }

    /// Appends one record.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn append(&mut self, record: &MetricsRecord) -> Result<()> {
        let fail = |e| Error::io("append to", &self.path, e);
        let mut line = serde_json::to_string(record).map_err(|e| fail(e.into()))?;
        line.push('\n');
        // One write per line: a reader that follows the file sees whole lines.
        self.file.write_all(line.as_bytes()).map_err(fail)
    }
}

/// Record of `metrics.jsonl`: `event`, `step`, then values in the order given, `seconds` last.
///
/// ```
/// use aurora_train::run::MetricsRecord;
///
/// let record = MetricsRecord::new("train", 3).with("loss", 0.5).seconds(0.25);
/// assert_eq!(
///     serde_json::to_string(&record).unwrap(),
///     r#"{"event":"train","step":3,"loss":0.5,"seconds":0.25}"#,
/// );
/// ```
#[derive(Debug, Clone)]
pub struct MetricsRecord {
    values: Vec<(String, Value)>,
    seconds: Option<f64>,
}

impl MetricsRecord {
    /// Builds a record of `event` ("train", "validation", ...) after `step` steps.
    pub fn new(event: &str, step: u64) -> Self {
        let values = vec![("event".to_owned(), event.into()), ("step".to_owned(), step.into())];
        Self { values, seconds: None }
    }

    /// Adds a number or a text; a number that is infinite or NaN becomes `null`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
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

    /// Adds the metrics of a task: as [`MetricsRecord::with_recall`], or `accuracy`, `reachable` and `questions`.
    #[must_use]
    pub fn with_metrics(self, metrics: &TaskMetrics) -> Self {
        match metrics {
            TaskMetrics::Recall(report) => self.with_recall(report),
            TaskMetrics::Accuracy(report) => self
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

impl Serialize for MetricsRecord {
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

impl<'de> Deserialize<'de> for MetricsRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Line)
    }
}

/// Visitor that reads a record with its values in their order.
struct Line;

impl<'de> Visitor<'de> for Line {
    type Value = MetricsRecord;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with event and step")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetricsRecord, A::Error> {
        let mut record = MetricsRecord { values: Vec::new(), seconds: None };
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            match key.as_str() {
                "seconds" => record.seconds = value.as_f64(),
                _ => record.values.push((key, value)),
            }
        }
        match record.values.as_slice() {
            [(event, Value::String(_)), (step, Value::Number(_)), ..]
                if event == "event" && step == "step" =>
            {
                Ok(record)
            }
            _ => Err(A::Error::custom("it does not begin with event and step")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recall::Recall;
    use proptest::prelude::*;

    #[test]
    fn lines_are_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let mut metrics = run.metrics().unwrap();
        let third = 1.0 / 3.0;
        let record =
            MetricsRecord::new("train", 1).with("z", third).with("a", f64::NAN).seconds(2.5);
        metrics.append(&record).unwrap();
        let recall = Recall { r1: 1.0, r5: 2.0, r10: 3.0 };
        let report = RetrievalReport { i2t: recall, t2i: recall };
        metrics.append(&MetricsRecord::new("test", 1).with_recall(&report)).unwrap();
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert_eq!(
            text,
            "{\"event\":\"train\",\"step\":1,\"z\":0.3333333333333333,\"a\":null,\"seconds\":2.5}\n\
             {\"event\":\"test\",\"step\":1,\"i2t_r1\":1.0,\"i2t_r5\":2.0,\"i2t_r10\":3.0,\
             \"t2i_r1\":1.0,\"t2i_r5\":2.0,\"t2i_r10\":3.0,\"mean_recall\":2.0}\n"
        );
    }

    #[test]
    fn lines_past_a_number_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let mut metrics = run.metrics().unwrap();
        for step in 1..=3 {
            metrics
                .append(&MetricsRecord::new("train", step).with("loss", 0.1).seconds(1.0))
                .unwrap();
        }
        let path = run.join(NAME);
        let whole = fs::read_to_string(&path).unwrap();
        // A process killed while writing leaves this.
        fs::write(&path, format!("{whole}{{\"event\":\"tr")).unwrap();
        assert_eq!(run.cut_metrics(2).unwrap().len(), 2);
        let cut = fs::read_to_string(&path).unwrap();
        assert!(whole.starts_with(&cut) && cut.lines().count() == 2);
        let error = run.cut_metrics(3).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl, line 2") && error.contains("3 lines"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), cut, "nothing is cut on an error");
        for broken in
            ["{\"event\":\"train\"}\n", "{\"step\":1,\"event\":\"train\"}\n", "[]\n", "x\n"]
        {
            fs::write(&path, format!("{cut}{broken}")).unwrap();
            let error = run.cut_metrics(3).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl, line 3"), "{error}");
        }
        assert!(run.cut_metrics(0).unwrap().is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_as_it_was_written(
            values in prop::collection::vec(("[a-z_]{1,8}", any::<f64>()), 0..6),
            seconds in prop::option::of(0.0f64..1e6),
        ) {
            let mut record = MetricsRecord::new("train", 7);
            for (key, value) in values.iter().filter(|(key, _)| key != "seconds") {
                record = record.with(key, *value);
            }
            record.seconds = seconds;
            let text = serde_json::to_string(&record).unwrap();
            let back: MetricsRecord = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&back.values, &record.values);
            prop_assert_eq!(back.seconds, seconds);
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
