//! VQA accuracy: the score of an answer against its annotators' answers, and the mean over questions.
//!
//! The score is `min(1, matches / 3)` (Antol et al. 2015, arXiv:1505.00468), as far as the annotators' shares tell.
//! With ten annotators, as in VQAv2, an answer that three gave scores 1, one that two gave 2/3, and one that one gave
//! 1/3. (The official measure takes the mean over the ten sets of nine annotators, so that it is 0.9 instead of 1 for
//! three matches, 0.6 for two and 0.3 for one.) A question with one answer, as in MSRVTT-QA, is scored by exact match.
//!
//! Answers are compared up to case and white space.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Annotators of a question in VQAv2.
const ANNOTATORS: f32 = 10.0;

/// Matching annotators that give the full score.
const ENOUGH: f32 = 3.0;

/// Mean score over questions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Mean score, percent.
    pub accuracy: f64,
    /// Number of questions with known answers.
    pub questions: u64,
}

impl Accuracy {
    fn add(&mut self, score: f64) {
        self.questions += 1;
        self.accuracy += (100.0 * score - self.accuracy) / self.questions as f64;
    }
}

/// Accuracy over a set of questions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyReport {
    /// Mean score of all questions, percent.
    pub accuracy: f64,
    /// Number of questions with known answers.
    pub questions: u64,
    /// Oracle accuracy: mean score of the best candidate of each question, percent.
    pub reachable: f64,
    /// Accuracy by answer type: the one that the data names, else "yes/no", "number" or "other".
    pub by_type: BTreeMap<String, Accuracy>,
}

impl AccuracyReport {
    /// Accuracy and oracle accuracy, percent; `None` where no right answer is known.
    pub fn known(&self) -> Option<[f64; 2]> {
        (self.questions > 0).then_some([self.accuracy, self.reachable])
    }

    /// Adds a question: the score of its answer, the best score of a candidate, and the answer type.
    pub fn add(&mut self, score: f64, best: f64, kind: &str) {
        self.questions += 1;
        let count = self.questions as f64;
        self.accuracy += (100.0 * score - self.accuracy) / count;
        self.reachable += (100.0 * best - self.reachable) / count;
        self.by_type.entry(kind.to_owned()).or_default().add(score);
    }
}

/// Canonical form of an answer for comparison: lower case, single spaces.
pub fn normalize_answer(answer: &str) -> String {
    answer.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// VQA score of `answer`, 0 to 1; `right` are the annotators' answers with their weights.
pub fn score(answer: &str, right: &[(String, f32)]) -> f64 {
    let all: f32 = right.iter().map(|(_, weight)| weight).sum();
    let answer = normalize_answer(answer);
    let given = right.iter().filter(|(known, _)| normalize_answer(known) == answer);
    let given: f32 = given.map(|(_, weight)| weight).sum();
    if all <= 0.0 {
        return 0.0;
    }
    // Slack for rounding: three tenths, added up, are not always 0.3.
    f64::from((given / all * ANNOTATORS / ENOUGH + 1e-6).min(1.0) * f32::from(given > 0.0))
}

/// Answer type of a question, by the answer that most annotators gave; the first among equals.
pub fn kind(right: &[(String, f32)]) -> &'static str {
    let most = right.iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
    let answer = most.map(|(answer, _)| normalize_answer(answer)).unwrap_or_default();
    match answer.as_str() {
        "yes" | "no" => "yes/no",
        number if number.parse::<f64>().is_ok_and(f64::is_finite) => "number",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten(answers: &[(&str, u32)]) -> Vec<(String, f32)> {
        answers.iter().map(|(answer, count)| ((*answer).into(), *count as f32 * 0.1)).collect()
    }

    #[test]
    fn three_of_ten_annotators_make_an_answer_right() {
        let right = ten(&[("yes", 5), ("no", 3), ("maybe", 2)]);
        assert_eq!(score("yes", &right), 1.0);
        assert_eq!(score(" No ", &right), 1.0);
        assert!((score("maybe", &right) - 2.0 / 3.0).abs() < 1e-5);
        assert_eq!(score("never", &right), 0.0);
        assert!((score("one", &ten(&[("one", 1), ("two", 9)])) - 1.0 / 3.0).abs() < 1e-5);
    }

    #[test]
    fn one_answer_is_matched_exactly() {
        let right = [("a Dog".to_owned(), 1.0)];
        assert_eq!((score("a dog", &right), score("dog", &right)), (1.0, 0.0));
        // A single answer scores 1 at any weight.
        assert_eq!(score("a dog", &[("a dog".to_owned(), 0.2)]), 1.0);
        assert_eq!(score("a dog", &[]), 0.0);
    }

    #[test]
    fn kinds_are_told_by_the_commonest_answer() {
        assert_eq!(kind(&ten(&[("red", 2), ("yes", 8)])), "yes/no");
        assert_eq!(kind(&ten(&[("3", 5), ("three", 5)])), "number");
        assert_eq!(kind(&ten(&[("blue", 9)])), "other");
    }

    #[test]
    fn a_report_is_a_mean_by_kind_and_over_all() {
        let mut report = AccuracyReport::default();
        for (score, best, kind) in [(1.0, 1.0, "other"), (0.0, 1.0, "other"), (0.5, 0.5, "number")]
        {
            report.add(score, best, kind);
        }
        assert_eq!((report.accuracy, report.questions), (50.0, 3));
        assert_eq!(report.by_type["other"], Accuracy { accuracy: 50.0, questions: 2 });
        assert!((report.reachable - 250.0 / 3.0).abs() < 1e-9);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<AccuracyReport>(&text).unwrap(), report);
    }
}
