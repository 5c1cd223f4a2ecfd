//! Error type of the crate.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error that names the shard or folder, the image, and the expected content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // I/O.
    /// Missing shard or folder.
    #[error("no shard, folder or annotations at {}; a shard is a .tar or .tar.gz file, a folder holds PNG, JPEG or WebP images, annotations are .json, .jsonl, .csv or .tsv", path.display())]
    Missing {
        /// Path as given.
        path: PathBuf,
    },
    /// Read error.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// I/O error of the system.
        source: std::io::Error,
    },
    /// Write error.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// I/O error of the system.
        source: std::io::Error,
    },
    /// Folder of shards that does not match its manifest.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest, the shard, or the folder.
        path: PathBuf,
        /// Reason and remedy.
        reason: String,
    },
    /// Folder without images.
    #[error("{} holds no image (looked below it for PNG, JPEG and WebP files, by content)", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },

    // Content of shards.
    /// Bytes that are not a tar archive.
    #[error("shard {shard} is not a tar archive: {reason}")]
    NotTar {
        /// The shard.
        shard: String,
        /// Reason, from the header.
        reason: String,
    },
    /// Truncated shard.
    #[error("shard {shard} is truncated {place}: {reason}; copy or download it again")]
    Truncated {
        /// The shard.
        shard: String,
        /// Last entry begun.
        place: String,
        /// Missing part.
        reason: String,
    },
    /// Shard without images.
    #[error("shard {shard} holds no image")]
    EmptyShard {
        /// The shard.
        shard: String,
    },
    /// Image without a caption.
    #[error(
        "{shard}: image {key} has no caption; put it in {key}.json (\"caption\" or \"captions\") or {key}.txt (one a line)"
    )]
    NoCaption {
        /// The shard or folder.
        shard: String,
        /// Key of the image.
        key: String,
    },
    /// Image without the question or answers that the task needs.
    #[error(
        "{shard}: image {key} has no {what}; put \"question\" and \"answers\" in {key}.json, or take another split"
    )]
    NotAsked {
        /// The shard or folder.
        shard: String,
        /// Key of the image.
        key: String,
        /// Missing field: the question, or its answers.
        what: &'static str,
    },
    /// Caption without an image.
    #[error("{shard}: caption {key} has no image ({key}.webp, .png, .jpg or .jpeg)")]
    NoImage {
        /// The shard or folder.
        shard: String,
        /// Key of the caption.
        key: String,
    },
    /// Two images with the same key.
    #[error("{shard}: image {key} is there twice")]
    Duplicate {
        /// The shard or folder.
        shard: String,
        /// Shared key.
        key: String,
    },
    /// Invalid record beside an image.
    #[error("{shard}: {file} cannot be used: {reason}")]
    Record {
        /// The shard or folder.
        shard: String,
        /// File in the shard or folder.
        file: String,
        /// Reason and place.
        reason: String,
    },
    /// Image that does not decode.
    #[error("{shard}: image {key} does not decode: {reason}")]
    Decode {
        /// The shard or folder.
        shard: String,
        /// Key of the image.
        key: String,
        /// Message of the decoder.
        reason: String,
    },

    /// Annotation file that cannot be read as a whole.
    #[error("{}{}: {reason}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Annotations {
        /// The file.
        file: PathBuf,
        /// Line, counted from 1, if one is to blame.
        line: Option<u64>,
        /// Reason and expected content.
        reason: String,
    },
    /// Annotation row that cannot be used.
    #[error("{}, {place}: {reason}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Line or row number, counted from 1.
        place: String,
        /// Reason and expected content.
        reason: String,
    },
    /// More skipped samples than the limit.
    #[error(
        "{skipped} broken images or records were left out already, and no more than {limit} may be; the next: {last}"
    )]
    TooManySkipped {
        /// Number of skipped samples.
        skipped: usize,
        /// Limit of skipped samples.
        limit: usize,
        /// Error of the next sample.
        last: String,
    },

    // Tokenizer.
    /// Invalid vocabulary, or one without the special pieces.
    #[error("{file}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Vocabulary {
        /// The file.
        file: String,
        /// Line, counted from 1, if one is to blame.
        line: Option<usize>,
        /// Reason and expected content.
        reason: String,
    },
    /// Text refused by the tokenizer.
    #[error("cannot tokenize {text:?}: {reason}")]
    Tokenize {
        /// The text.
        text: String,
        /// Message of the tokenizer.
        reason: String,
    },
    /// Token limit without room for a piece between `[CLS]` and `[SEP]`.
    #[error("a text of at most {max_len} tokens has no room for a word; allow 3 or more")]
    TooShort {
        /// Requested length.
        max_len: usize,
    },

    // Batches.
    /// Empty dataset or subset.
    #[error("{what} is empty: {reason}")]
    Empty {
        /// Requested subset.
        what: String,
        /// Reason why it is empty.
        reason: String,
    },
    /// Index past the end.
    #[error("sample {index} of a dataset of {count}")]
    OutOfRange {
        /// The index.
        index: usize,
        /// Number of samples.
        count: usize,
    },
    /// Loader state of other batches.
    #[error(
        "the saved state is of other batches: {what} was {saved} and is {now} now; go on with what the run began with, or begin a new one"
    )]
    State {
        /// Name of the value that differs.
        what: &'static str,
        /// Saved value.
        saved: String,
        /// Current value.
        now: String,
    },
    /// Invalid option value.
    #[error("{option} = {value}: {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: String,
        /// Allowed values.
        allowed: &'static str,
    },
    /// Image that cannot be resized.
    #[error("cannot scale a {width} x {height} image to {size} x {size}: {reason}")]
    Resize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Requested side in pixels.
        size: usize,
        /// Message of the resampler.
        reason: String,
    },
    /// Loader thread that could not be started, or panicked.
    #[error("a loader thread failed at step {step}: {reason}")]
    Worker {
        /// Step of the batch that was due.
        step: u64,
        /// Known cause.
        reason: String,
    },
    /// Error of candle.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Self::Annotations`], with text quoted from the file made printable.
    pub(crate) fn annotations(file: &Path, line: Option<u64>, reason: &str) -> Self {
        Self::Annotations { file: file.to_path_buf(), line, reason: quoting(reason) }
    }

    /// [`Self::Row`], with text quoted from the file made printable.
    pub(crate) fn row(file: &Path, place: String, reason: &str) -> Self {
        Self::Row { file: file.to_path_buf(), place, reason: quoting(reason) }
    }

    /// True if the error concerns a single image or record, so that the rest can be used.
    pub fn is_of_one_sample(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::NoCaption { .. }
                | Self::NotAsked { .. }
                | Self::NoImage { .. }
                | Self::Duplicate { .. }
                | Self::Record { .. }
                | Self::Decode { .. }
                | Self::Row { .. }
        )
    }
}

/// Escapes control characters of untrusted text for a message, so that it cannot move a terminal's
/// cursor or end its line.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    Cow::Owned(out)
}

/// Limit in characters of a quoted reason.
const LETTERS: usize = 600;

/// Untrusted text, [`printable`] and truncated to 600 characters.
pub fn quoting(reason: &str) -> String {
    let reason = printable(reason);
    match reason.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{} ...", reason.get(..end).unwrap_or_default()),
        None => reason.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{LETTERS, printable, quoting};

    #[test]
    fn a_reason_has_an_end() {
        assert_eq!(quoting("short"), "short");
        let long = quoting(&"ö".repeat(LETTERS + 1));
        assert_eq!(long.chars().count(), LETTERS + 4);
        assert_eq!(quoting(&"ö".repeat(LETTERS)).chars().count(), LETTERS);
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(printable("größe, 大 \"x\""), "größe, 大 \"x\"");
        assert_eq!(printable("a\n\u{1b}[2Jb"), "a\\n\\u{1b}[2Jb");
    }
}
