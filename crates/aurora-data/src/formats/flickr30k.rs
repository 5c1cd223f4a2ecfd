//! Flickr30K annotations in Karpathy's split.
//!
//! ```text
//! flickr30k/
//!   1000092795.jpg ...
//!   annotations/flickr30k_train.json   [{"image": "flickr30k-images/1000092795.jpg", "caption": "..", "image_id": 0}]
//!   annotations/flickr30k_test.json    [{"image": "flickr30k-images/1007129816.jpg", "caption": ["..", ".." (five)]}]
//! ```
//!
//! As COCO, except that the images lie in one folder, whatever folder `image` names: only its
//! base name counts.

use super::records::AnnotationRecord;
use super::{Entry, ImageLookup, required};

pub(super) fn entry(row: &AnnotationRecord, images: &ImageLookup) -> Result<Entry, String> {
    let image = required(&row.image, "image", "Flickr30K")?;
    required(&row.caption, "caption", "Flickr30K")?;
    let media = images.image(&[base_name(image)])?;
    let (key, record) = (base_name(image).to_string(), row.image_record());
    Ok(Entry { key, media, record, together: row.image_id.is_none() })
}

/// Base name: the part after the last slash.
pub(super) fn base_name(image: &str) -> &str {
    image.rsplit(['/', '\\']).next().unwrap_or(image)
}
