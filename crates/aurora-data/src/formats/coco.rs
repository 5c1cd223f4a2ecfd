//! COCO annotations in Karpathy's split.
//!
//! ```text
//! coco/
//!   train2014/COCO_train2014_000000000009.jpg ...
//!   val2014/COCO_val2014_000000000042.jpg ...
//!   annotations/coco_karpathy_train.json   [{"image": "val2014/..", "caption": "..", "image_id": "coco_42"}]
//!   annotations/coco_karpathy_val.json     [{"image": "val2014/..", "caption": ["..", ".." (five)]}]
//! ```
//!
//! A training row is a sample of its own, so that an epoch passes every caption once; `image_id`
//! makes the captions of one image positives of each other. An evaluation row has all captions.

use super::records::AnnotationRecord;
use super::{Entry, ImageLookup, required};

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    let image = required(&row.image, "image", "COCO")?;
    required(&row.caption, "caption", "COCO")?;
    let media = images.image(&[image])?;
    let record = row.image_record();
    Ok(Entry { key: image.clone(), media, record, together: row.image_id.is_none() })
}
