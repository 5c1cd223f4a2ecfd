//! Embedded images and vocabulary.
//!
//! `assets/manifest.tsv` gives package, version, file, license and hash of every image,
//! `assets/LICENSES` the licenses' texts; `cargo xtask pack` rebuilds all of it. Both packs are
//! split by concept. No training caption or keyword of either names an emoji that Noto holds for
//! validation or test, and openclipart's training part names no concept of its own validation.

use crate::{Result, Sample, Tokenizer, shard};

/// Openclipart drawings, 96 pixels, as a gzipped tar shard.
pub const OPENCLIPART: &[u8] = include_bytes!("../assets/openclipart.tar.gz");
/// Noto emoji, 64 pixels, with their CLDR names, as a gzipped tar shard.
pub const NOTO: &[u8] = include_bytes!("../assets/noto.tar.gz");
/// 3,600 word pieces of bert-base-uncased, one a line.
pub const VOCABULARY: &str = include_str!("../assets/vocab.txt");
/// Source and license of every image, tab-separated with a header.
pub const MANIFEST: &str = include_str!("../assets/manifest.tsv");

/// Public domain drawings with cleaned titles: training and validation.
///
/// # Errors
/// Those of [`shard::parse`].
pub fn openclipart() -> Result<Vec<Sample>> {
    shard::parse("embedded openclipart.tar.gz", OPENCLIPART)
}

/// Noto emoji with their English names and keywords: training, validation and test.
///
/// # Errors
/// Those of [`shard::parse`].
pub fn noto() -> Result<Vec<Sample>> {
    shard::parse("embedded noto.tar.gz", NOTO)
}

/// Tokenizer of the embedded vocabulary.
///
/// # Errors
/// Those of [`Tokenizer::new`].
pub fn vocabulary() -> Result<Tokenizer> {
    Tokenizer::new(VOCABULARY)
}
