//! Custom tables: one row for each caption or question.
//!
//! ```text
//! my-images/
//!   captions.csv        image,caption,split
//!   red/apple.jpg       red/apple.jpg,a red apple,train
//!   walk/000.jpg ...    walk,somebody walks,train
//! ```
//!
//! `image` (or `picture`, `file_name`, `path`, `clip`) names an image, a video (GIF, APNG, animated
//! WebP, MP4) or a folder; a folder named in a row is a clip, and the images in it are its frames,
//! in numeric order. Text columns are `caption` or `captions`, or `question` with `answer` or
//! `answers`, `answer_type` and `question_id`; `split`, `concept`, `keywords` and `source` are
//! optional. Captions of one image are merged, from a list or from several rows; every question is
//! a sample. In CSV and TSV, `|` separates several captions, answers or keywords of a cell.

use super::records::AnnotationRecord;
use super::{Entry, ImageLookup};

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    let Some(name) = row.image.as_ref().or(row.clip_name.as_ref()) else {
        return Err("it names no image; put its path under `image`".to_string());
    };
    if row.caption.is_none() && row.question.is_none() {
        return Err(format!(
            "nothing is said about {name}; put words under `caption`, or `question` and `answer`"
        ));
    }
    let media = match &row.image {
        Some(_) => images.anything(name)?,
        None => images.clip(name)?,
    };
    let together = row.question.is_none() && row.image_id.is_none();
    Ok(Entry { key: name.clone(), media, record: row.image_record(), together })
}
