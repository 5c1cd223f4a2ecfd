//! Questions about images and their weighted answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caption::{MAX_QUESTION_WORDS, clean_question};

/// Question id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "a whole number or a text was expected")]
pub enum QuestionId {
    /// A number, as in most datasets.
    Number(u64),
    /// A text.
    Name(String),
}

impl fmt::Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Question about an image or clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Id, for answer submissions.
    pub id: Option<QuestionId>,
    /// Question text, cleaned (see [`crate::caption::clean_question`]).
    pub text: String,
    /// Distinct answers with their weights: the share of the annotators who gave each. Empty where
    /// the answer is unknown.
    pub answers: Vec<(String, f32)>,
    /// Answer type in the terms of the dataset, if given: VQAv2's `yes/no`, `number` and `other`.
    pub answer_type: Option<String>,
}

impl Question {
    /// Question with its text cleaned and equal answers merged; `None` if no word is left.
    pub fn new(id: Option<QuestionId>, text: &str, answers: AnswerSet) -> Option<Self> {
        let text = clean_question(text, MAX_QUESTION_WORDS);
        (!text.is_empty()).then(|| Self {
            id,
            text,
            answers: answers.weighted(),
            answer_type: None,
        })
    }

    /// Sets the answer type; an empty one counts as none.
    #[must_use]
    pub fn with_answer_type(self, answer_type: Option<String>) -> Self {
        Self { answer_type: answer_type.filter(|kind| !kind.trim().is_empty()), ..self }
    }
}

/// Answers as files give them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text, a list of texts or a list of answers with their weights was expected"
)]
pub enum AnswerSet {
    /// One answer of weight 1.
    One(String),
    /// One answer per annotator; an answer weighs the share of those who gave it.
    Annotators(Vec<String>),
    /// Answers with given weights.
    Weighted(Vec<WeightedAnswer>),
}

/// Answer with its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedAnswer {
    /// Answer text.
    pub answer: String,
    /// Weight in the loss.
    pub weight: f32,
}

impl Default for AnswerSet {
    fn default() -> Self {
        Self::Annotators(Vec::new())
    }
}

impl AnswerSet {
    /// Distinct answers in order of first occurrence, with their weights. Answers are compared
    /// verbatim, without surrounding white space; empty ones are dropped.
    fn weighted(self) -> Vec<(String, f32)> {
        let said: Vec<(String, f32)> = match self {
            Self::One(answer) => vec![(answer, 1.0)],
            Self::Annotators(answers) => {
                let share = 1.0 / answers.len().max(1) as f32;
                answers.into_iter().map(|answer| (answer, share)).collect()
            }
            Self::Weighted(answers) => answers.into_iter().map(|a| (a.answer, a.weight)).collect(),
        };
        let mut out: Vec<(String, f32)> = Vec::new();
        for (answer, weight) in said {
            let answer = answer.trim();
            match out.iter_mut().find(|(known, _)| known == answer) {
                Some((_, sum)) => *sum += weight,
                None if answer.is_empty() => {}
                None => out.push((answer.to_string(), weight)),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_weigh_their_share() {
        let parse = |json: &str| serde_json::from_str::<AnswerSet>(json).unwrap().weighted();
        assert_eq!(parse(r#""red""#), [("red".to_string(), 1.0)]);
        let shares = parse(r#"["red", "blue", "red ", "red"]"#);
        assert_eq!(shares, [("red".to_string(), 0.75), ("blue".to_string(), 0.25)]);
        assert_eq!(parse(r#"[{"answer": "a", "weight": 0.2}]"#), [("a".to_string(), 0.2)]);
        assert_eq!(parse("[]"), []);
        assert!(serde_json::from_str::<AnswerSet>("[1]").is_err());
    }

    #[test]
    fn questions_are_cleaned() {
        let question = Question::new(None, "What's  (this)?", AnswerSet::default()).unwrap();
        assert_eq!(question.text, "what's this?");
        assert_eq!(Question::new(None, " .. ", AnswerSet::default()), None);
    }
}
