//! MSR-VTT and DiDeMo annotations: clips by name.
//!
//! ```text
//! msrvtt/
//!   videos/video0.mp4 ...                     or the frames of each: videos/video0/000.jpg ...
//!   annotations/msrvtt_train.jsonl            {"clip_name": "video0", "caption": ".."}
//! didemo/
//!   videos/12090392@N02_13482799053_87ef417396.mov ...
//!   annotations/didemo_train.jsonl            {"clip_name": "12090392@N02_..mov", "caption": ".. (a paragraph)"}
//! ```
//!
//! A clip is a folder of frames of its name, a file of exactly its name, or a file of its name and
//! an extension of videos. A row is a sample of its own, so that an epoch passes every caption
//! once; the captions of one clip are positives of each other.

use super::records::AnnotationRecord;
use super::{Entry, ImageLookup, required};

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    let clip = required(&row.clip_name, "clip_name", "MSR-VTT and DiDeMo")?;
    required(&row.caption, "caption", "MSR-VTT and DiDeMo")?;
    let media = images.clip(clip)?;
    let mut record = row.record();
    record.concept.get_or_insert_with(|| clip.clone());
    Ok(Entry { key: clip.clone(), media, record, together: false })
}
