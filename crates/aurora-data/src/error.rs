//! What can go wrong between a file and a batch.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names the shard or folder, the image, and what was expected of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // What the disk says.
    /// No such shard or folder.
    #[error("no shard, folder or annotations at {}; a shard is a .tar or .tar.gz file, a folder holds PNG, JPEG or WebP images, annotations are .json, .jsonl, .csv or .tsv", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// Reading failed for another reason.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder of shards that is not what its manifest says.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest, the shard, or the folder.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// A folder without one image in it.
    #[error("{} holds no image (looked below it for PNG, JPEG and WebP files, by content)", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },

    // What a shard holds.
    /// The bytes are not a tar archive.
    #[error("shard {shard} is not a tar archive: {reason}")]
    NotTar {
        /// The shard.
        shard: String,
        /// What was wrong with its header.
        reason: String,
    },
    /// The shard ends too early.
    #[error("shard {shard} is truncated {place}: {reason}; copy or download it again")]
    Truncated {
        /// The shard.
        shard: String,
        /// Where, by the last entry that was begun.
        place: String,
        /// What was missing.
        reason: String,
    },
    /// A shard without one image.
    #[error("shard {shard} holds no image")]
    EmptyShard {
        /// The shard.
        shard: String,
    },
    /// An image that nothing says anything about.
    #[error(
        "{shard}: image {key} has no caption; put it in {key}.json (\"caption\" or \"captions\") or {key}.txt (one a line)"
    )]
    NoCaption {
        /// The shard or folder.
        shard: String,
        /// The image's key.
        key: String,
    },
    /// An image without the question, or the question without the answer, that a task is about.
    #[error(
        "{shard}: image {key} has no {what}; put \"question\" and \"answers\" in {key}.json, or take another split"
    )]
    NotAsked {
        /// The shard or folder.
        shard: String,
        /// The image's key.
        key: String,
        /// The question, or its answers.
        what: &'static str,
    },
    /// A caption whose image is not there.
    #[error("{shard}: caption {key} has no image ({key}.webp, .png, .jpg or .jpeg)")]
    NoImage {
        /// The shard or folder.
        shard: String,
        /// The caption's key.
        key: String,
    },
    /// Two images of one key.
    #[error("{shard}: image {key} is there twice")]
    Duplicate {
        /// The shard or folder.
        shard: String,
        /// The key.
        key: String,
    },
    /// The words beside an image are not as they should be.
    #[error("{shard}: {file} cannot be used: {reason}")]
    Record {
        /// The shard or folder.
        shard: String,
        /// The file in it.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// An image that is none.
    #[error("{shard}: image {key} does not decode: {reason}")]
    Decode {
        /// The shard or folder.
        shard: String,
        /// The image's key.
        key: String,
        /// What the decoder said.
        reason: String,
    },

    /// A file of annotations that cannot be read as a whole.
    #[error("{}{}: {reason}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Annotations {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1, where one is to blame.
        line: Option<u64>,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A row of annotations that cannot be used.
    #[error("{}, {place}: {reason}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// The line or the number of the row, counted from 1.
        place: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// More than the policy allows was left out.
    #[error(
        "{skipped} broken images or records were left out already, and no more than {limit} may be; the next: {last}"
    )]
    TooManySkipped {
        /// How many were left out.
        skipped: usize,
        /// How many may be.
        limit: usize,
        /// The error of the next.
        last: String,
    },

    // Words.
    /// A vocabulary that is none, or lacks what every text needs.
    #[error("{file}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Vocabulary {
        /// The file.
        file: String,
        /// The line, counted from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The tokenizer refused a text.
    #[error("cannot tokenize {text:?}: {reason}")]
    Tokenize {
        /// The text.
        text: String,
        /// What it said.
        reason: String,
    },
    /// No room for a word between `[CLS]` and `[SEP]`.
    #[error("a text of at most {max_len} tokens has no room for a word; allow 3 or more")]
    TooShort {
        /// The length asked for.
        max_len: usize,
    },

    // Batches.
    /// A dataset, or the part of it that was asked for, is empty.
    #[error("{what} is empty: {reason}")]
    Empty {
        /// What was asked for.
        what: String,
        /// Why there is nothing.
        reason: String,
    },
    /// An index past the end.
    #[error("sample {index} of a dataset of {count}")]
    OutOfRange {
        /// The index.
        index: usize,
        /// The samples there are.
        count: usize,
    },
    /// The state of a loader that makes other batches.
    #[error(
        "the saved state is of other batches: {what} was {saved} and is {now} now; go on with what the run began with, or begin a new one"
    )]
    State {
        /// What differs.
        what: &'static str,
        /// What it was.
        saved: String,
        /// What it is.
        now: String,
    },
    /// An option with a value that cannot work.
    #[error("{option} = {value}: {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// An image could not be scaled.
    #[error("cannot scale a {width} x {height} image to {size} x {size}: {reason}")]
    Resize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// The side asked for.
        size: usize,
        /// What the scaler said.
        reason: String,
    },
    /// A loader thread could not be started, or ended without a word.
    #[error("a loader thread failed at step {step}: {reason}")]
    Worker {
        /// The step of the batch that was due.
        step: u64,
        /// What is known.
        reason: String,
    },
    /// The tensor library's own error.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Self::Annotations`] with what the reason quotes of the file made printable.
    pub(crate) fn annotations(file: &Path, line: Option<u64>, reason: &str) -> Self {
        Self::Annotations { file: file.to_path_buf(), line, reason: quoting(reason) }
    }

    /// [`Self::Row`], likewise.
    pub(crate) fn row(file: &Path, place: String, reason: &str) -> Self {
        Self::Row { file: file.to_path_buf(), place, reason: quoting(reason) }
    }

    /// Whether the error is about one image or record, without which the rest can be used.
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

/// A text from outside, for a message: what would move a terminal's cursor or end its line is written out.
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

/// Letters of a reason that quotes what stands in a file: enough for any that a person wrote.
const LETTERS: usize = 600;

/// A text from outside, [`printable`] and of 600 letters at most.
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
