//! Training curves of a run, drawn from its `metrics.jsonl`.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::exit_code::bad_input;
use crate::page::{Chart, Highlight, ReferenceLine, Series};

/// Parsed lines of a `metrics.jsonl`.
#[derive(Debug, Clone, Default)]
pub struct MetricsLog {
    records: Vec<Value>,
}

impl MetricsLog {
    /// Reads a `metrics.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be read; a line that is not JSON, by its number.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|(line, reason)| {
            bad_input(format!("{}, line {line}: not a record: {reason}", path.display()))
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let records = lines
            .map(|(index, line)| serde_json::from_str(line).map_err(|e| (index + 1, e.to_string())))
            .collect::<Result<_, _>>()?;
        Ok(Self { records })
    }

    /// `(step, value)` of every record of `event` that has the key, in the file's order.
    pub fn points(&self, event: &str, key: &str) -> Vec<(f64, f64)> {
        let point = |record: &Value| {
            let number = |key: &str| record.get(key).and_then(Value::as_f64);
            let of_event = record.get("event").and_then(Value::as_str) == Some(event);
            of_event.then_some(())?;
            Some((number("step")?, number(key)?))
        };
        self.records.iter().filter_map(point).collect()
    }

    fn series(&self, name: &str, event: &str, key: &str) -> Option<Series> {
        let points = self.points(event, key);
        (!points.is_empty()).then(|| Series { name: name.to_owned(), points })
    }

    /// Charts of a tuning run.
    pub fn charts(&self) -> Vec<Chart> {
        [self.losses(), self.validation(), self.change(), self.learning_rate()]
            .into_iter()
            .filter(|chart| !chart.series.is_empty())
            .collect()
    }

    fn losses(&self) -> Chart {
        let itc = self.series("contrastive (ITC)", "train", "itc");
        let itm = self.series("matching (ITM)", "train", "itm");
        // A loss with a single term equals that term.
        let answers = match itc.is_none() {
            true => self.series("answers", "train", "loss"),
            false => None,
        };
        Chart {
            title: "Losses".to_owned(),
            note: "On training batches, so they are noisy.".to_owned(),
            x_label: "step".to_owned(),
            y_label: "loss".to_owned(),
            series: itc.into_iter().chain(itm).chain(answers).collect(),
            ..Chart::default()
        }
    }

    fn validation(&self) -> Chart {
        let recall = self.series("validation", "validation", "mean_recall");
        let answers = recall.is_none();
        let series = recall.or_else(|| self.series("validation", "validation", "accuracy"));
        let points = series.as_ref().map(|s| s.points.as_slice()).unwrap_or_default();
        // The first among equals, as the run itself chooses.
        let best = points.iter().copied().reduce(|best, p| if p.1 > best.1 { p } else { best });
        let untuned = points.first().filter(|point| point.0 == 0.0);
        Chart {
            title: format!("{} on validation", if answers { "Accuracy" } else { "Recall" }),
            note: match answers {
                true => "The mean score of the answers; the adapter of the best step is kept.",
                false => {
                    "The mean of R@1, R@5 and R@10 both ways; the adapter of the best step is kept."
                }
            }
            .to_owned(),
            x_label: "step".to_owned(),
            y_label: if answers { "accuracy, %" } else { "mean recall, %" }.to_owned(),
            reference: untuned
                .map(|point| ReferenceLine { label: "untuned".to_owned(), value: point.1 }),
            highlight: best
                .filter(|_| points.len() > 1)
                .map(|at| Highlight { label: format!("kept: step {}", at.0), at }),
            series: series.into_iter().collect(),
        }
    }

    fn change(&self) -> Chart {
        let key = "mean_relative_delta";
        let series = self
            .series("mean |ΔW| / |W|", "train", key)
            .or_else(|| self.series("mean |ΔW| / |W|", "validation", key));
        Chart {
            title: "Change of the adapted weights".to_owned(),
            note: "How far the adapter has moved the maps it adapts, in proportion to them."
                .to_owned(),
            x_label: "step".to_owned(),
            y_label: "mean |ΔW| / |W|".to_owned(),
            // All zeros where nothing but heads is trained: nothing to draw.
            series: series.filter(|s| s.points.iter().any(|p| p.1 != 0.0)).into_iter().collect(),
            ..Chart::default()
        }
    }

    fn learning_rate(&self) -> Chart {
        let series = self.series("learning rate", "train", "learning_rate_factor");
        Chart {
            title: "Learning rate".to_owned(),
            note: "The schedule's factor on the rates in the configuration.".to_owned(),
            x_label: "step".to_owned(),
            y_label: "factor".to_owned(),
            series: series.into_iter().collect(),
            ..Chart::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
{"event":"validation","step":0,"mean_recall":5.0}
{"event":"train","step":1,"itc":4.0,"itm":0.7,"learning_rate_factor":0.5,"seconds":1}
{"event":"train","step":2,"itc":null,"itm":0.6,"learning_rate_factor":1.0,"seconds":1}
{"event":"validation","step":2,"mean_recall":9.0}
{"event":"validation","step":4,"mean_recall":9.0}
"#;

    #[test]
    fn points_are_of_one_event_and_numbers_only() {
        let metrics = MetricsLog::parse(TEXT).unwrap();
        assert_eq!(metrics.points("train", "itc"), [(1.0, 4.0)]);
        assert_eq!(metrics.points("train", "itm"), [(1.0, 0.7), (2.0, 0.6)]);
        assert!(metrics.points("train", "mean_recall").is_empty());
    }

    #[test]
    fn charts_without_records_are_left_out() {
        let charts = MetricsLog::parse(TEXT).unwrap().charts();
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["Losses", "Recall on validation", "Learning rate"]);
        assert_eq!(charts[1].reference.as_ref().unwrap().value, 5.0);
        assert_eq!(charts[1].highlight.as_ref().unwrap().label, "kept: step 2");
        assert!(MetricsLog::default().charts().is_empty());
    }

    #[test]
    fn accuracy_has_its_own_titles() {
        let text = r#"
{"event":"validation","step":0,"accuracy":5.0}
{"event":"train","step":1,"loss":4.0}
{"event":"validation","step":1,"accuracy":9.0}
"#;
        let charts = MetricsLog::parse(text).unwrap().charts();
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["Losses", "Accuracy on validation"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = MetricsLog::parse("{}\n{\"event\":").unwrap_err();
        assert_eq!(error.0, 2);
    }
}
