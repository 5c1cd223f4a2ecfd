//! MSRVTT-QA annotations: questions about the clips of MSR-VTT, in both layouts.
//!
//! ```text
//! msrvtt/
//!   videos/video0.mp4 ...                     or the frames of each: videos/video0/000.jpg ...
//!   annotations/train_qa.json     [{"id": 0, "video_id": 0, "question": "..", "answer": "..", ..}]
//!   annotations/train.jsonl       {"video_id": "video0", "question": "..", "answer": "..", "answer_type": "what"}
//! ```
//!
//! The first is the authors' layout, in which a clip is a number; the second ClipBERT's, in which
//! it is a name. Every question is a sample, and its one answer weighs 1.

use super::records::AnnotationRecord;
use super::{Entry, ImageLookup, required};
use crate::QuestionId;

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    required(&row.question, "question", "MSRVTT-QA")?;
    let clip = match required(&row.video_id, "video_id", "MSRVTT-QA")? {
        QuestionId::Number(number) => format!("video{number}"),
        QuestionId::Name(name) => name.clone(),
    };
    let media = images.clip(&clip)?;
    Ok(Entry { key: clip, media, record: row.record(), together: false })
}
