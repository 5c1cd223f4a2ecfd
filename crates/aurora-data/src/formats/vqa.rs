//! VQAv2 annotations, with Visual Genome or without.
//!
//! ```text
//! vqa/                      image_root = ["vqa", "visual-genome"]
//!   train2014/, val2014/, test2015/
//!   annotations/vqa_train.json    [{"question_id": 1, "image": "val2014/..", "question": "..", "answer": ["..", ..], "dataset": "vqa"}]
//!   annotations/vg_qa.json        [{"question_id": 2, "image": "VG_100K/2.jpg", "question": "..", "answer": "..", "dataset": "vg"}]
//!   annotations/vqa_test.json     [{"question_id": 3, "image": "test2015/..", "question": ".."}]
//!   annotations/answer_list.json  ["yes", "no", ..]
//! visual-genome/
//!   VG_100K/
//! ```
//!
//! `answer_type` (`yes/no`, `number`, `other`) is kept where a row has it, as VQA's own annotations do; accuracy is then
//! counted by it.
//!
//! Every question is a sample. An answer of VQA weighs the share of the annotators who gave it; an
//! answer of Visual Genome weighs 0.2.

use std::path::Path;

use super::records::{self, AnnotationRecord};
use super::{Entry, ImageLookup, required};
use crate::question::{AnswerSet, WeightedAnswer};
use crate::{Error, Result};

/// Weight of an answer of Visual Genome, which no other annotators confirmed.
pub const VISUAL_GENOME_WEIGHT: f32 = 0.2;

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    let image = required(&row.image, "image", "VQA")?;
    required(&row.question, "question", "VQA")?;
    let media = images.image(&[image])?;
    let mut record = row.record();
    if row.dataset.as_deref() == Some("vg") {
        let weighted = |answer| WeightedAnswer { answer, weight: VISUAL_GENOME_WEIGHT };
        record.answers = AnswerSet::Weighted(match record.answers {
            AnswerSet::One(answer) => vec![weighted(answer)],
            AnswerSet::Annotators(answers) => answers.into_iter().map(weighted).collect(),
            AnswerSet::Weighted(answers) => answers,
        });
    }
    Ok(Entry { key: image.clone(), media, record, together: false })
}

/// Reads the answer list for answer ranking: a JSON list of texts.
///
/// # Errors
/// A file that cannot be read, is not such a list, or has no answer.
pub fn answer_list(path: &Path) -> Result<Vec<String>> {
    let text = records::text(path)?;
    let bad = |line, reason: String| Error::annotations(path, line, &reason);
    let answers: Vec<String> = serde_json::from_str(&text).map_err(|e| {
        let reason = format!("{e}; a JSON list of answers was expected: [\"yes\", \"no\"]");
        bad(Some(e.line() as u64), reason)
    })?;
    match answers.iter().position(|answer| answer.trim().is_empty()) {
        Some(at) => Err(bad(None, format!("answer {} is empty", at + 1))),
        None if answers.is_empty() => Err(bad(None, "it holds no answer".to_string())),
        None => Ok(answers),
    }
}
