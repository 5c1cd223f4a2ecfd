//! Questions about images, and how much each of their answers weighs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::caption::{MAX_QUESTION_WORDS, clean_question};

/// The name that a set of questions has for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "a whole number or a text was expected")]
pub enum QuestionId {
    /// A number, as most sets have it.
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

/// A question about an image or clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its name, for the answers that are handed in.
    pub id: Option<QuestionId>,
    /// The question, cleaned (see [`crate::caption::clean_question`]).
    pub text: String,
    /// The different answers and how much each weighs: the share of the annotators who gave it.
    /// Empty where the answer is to be found.
    pub answers: Vec<(String, f32)>,
    /// What kind of answer it has, in the words of the set, where that says so: VQAv2's `yes/no`,
    /// `number` and `other`.
    pub answer_type: Option<String>,
}

impl Question {
    /// A question with its text cleaned and equal answers brought together; none if no word of it
    /// is left.
    pub fn new(id: Option<QuestionId>, text: &str, answers: AnswerSet) -> Option<Self> {
        let text = clean_question(text, MAX_QUESTION_WORDS);
        (!text.is_empty()).then(|| Self {
            id,
            text,
            answers: answers.weighted(),
            answer_type: None,
        })
    }

    /// The same with a kind of answer; an empty one is none.
    #[must_use]
    pub fn with_answer_type(self, answer_type: Option<String>) -> Self {
        Self { answer_type: answer_type.filter(|kind| !kind.trim().is_empty()), ..self }
    }
}

/// Answers as files have them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text, a list of texts or a list of answers with their weights was expected"
)]
pub enum AnswerSet {
    /// One answer, which weighs 1.
    One(String),
    /// What each annotator said; an answer weighs the share of those who gave it.
    Annotators(Vec<String>),
    /// Answers whose weights are given.
    Weighted(Vec<WeightedAnswer>),
}

/// An answer with its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedAnswer {
    /// The answer.
    pub answer: String,
    /// What it weighs in the loss.
    pub weight: f32,
}

impl Default for AnswerSet {
    fn default() -> Self {
        Self::Annotators(Vec::new())
    }
}

impl AnswerSet {
    /// The different answers, in the order in which they first occur, with their weights. Answers
    /// are compared as they stand, without white space around them; empty ones are left out.
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
