//! Report of a data check, as plain numbers and lists.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::on_error::Skipped;

/// Report of a data check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Checked paths.
    pub paths: Vec<String>,
    /// Training rows: images, clips or questions about them.
    pub samples: usize,
    /// Distinct image files.
    pub images: usize,
    /// Distinct clips.
    pub clips: usize,
    /// Frames of the clips stored as frames.
    pub frames: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of questions.
    pub questions: usize,
    /// Counts of each split, or of each file where no sample has a split and several files were
    /// given.
    pub parts: BTreeMap<String, SplitCounts>,
    /// Unusable items. Each would end a training with the policy `stop`.
    pub problems: Vec<Skipped>,
    /// Images with a side shorter than [`super::MIN_SIDE`] pixels.
    pub tiny: Vec<SmallImage>,
    /// Byte-identical files.
    pub same_image: Duplicates,
    /// Images that share a caption.
    pub same_caption: Duplicates,
    /// Image sizes.
    pub sizes: Sizes,
    /// Token lengths of captions and questions.
    pub lengths: Lengths,
    /// Tokens unknown to the vocabulary.
    pub unknown: UnknownTokens,
}

impl Report {
    /// True if a training with the policy `stop` would end.
    pub fn stops(&self) -> bool {
        !self.problems.is_empty()
    }
}

/// Counts of a split or file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SplitCounts {
    /// Training rows.
    pub samples: usize,
    /// Number of captions.
    pub captions: usize,
    /// Number of questions.
    pub questions: usize,
}

/// Image below the minimum side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SmallImage {
    /// Name of the image.
    pub what: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// Duplicates within and across splits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Duplicates within or across splits.
    pub duplicates: Vec<DuplicateGroup>,
    /// Leaks: duplicates across splits.
    pub leaks: Vec<DuplicateGroup>,
}

/// Members of a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DuplicateGroup {
    /// Shared value: a caption, or the SHA-256 of a file.
    pub shared: String,
    /// Names: all for duplicates, the first of each split for leaks.
    pub members: Vec<String>,
}

/// Image sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Histogram of shorter sides.
    pub shorter_side: Vec<Bin>,
    /// Minimum of the shorter sides.
    pub smallest: usize,
    /// Maximum of the longer sides.
    pub largest: usize,
}

/// Histogram bin `from..to`, open-ended without `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Lower bound, inclusive.
    pub from: usize,
    /// Upper bound, exclusive.
    pub to: Option<usize>,
    /// Count of the bin.
    pub count: usize,
}

/// Text lengths in tokens, `[CLS]` and `[SEP]` included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Token limit of the model.
    pub limit: usize,
    /// Number of texts by length.
    pub histogram: BTreeMap<usize, usize>,
    /// Texts above the limit, which are truncated.
    pub cut: usize,
}

impl Lengths {
    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.histogram.values().sum()
    }

    /// Maximum length.
    pub fn longest(&self) -> usize {
        self.histogram.keys().next_back().copied().unwrap_or(0)
    }
}

/// Unknown tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UnknownTokens {
    /// Number of tokens, `[CLS]` and `[SEP]` excluded.
    pub tokens: usize,
    /// Number of `[UNK]`.
    pub unknown: usize,
    /// Counts by the script of the word, the most frequent script first.
    pub scripts: Vec<ScriptWords>,
}

/// Counts of one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScriptWords {
    /// Unicode name of the script; `Common` for words without a letter.
    pub script: String,
    /// Number of words.
    pub words: usize,
    /// Number of their tokens.
    pub tokens: usize,
    /// Number of `[UNK]`.
    pub unknown: usize,
}

/// Duplicate groups of `(shared value, split, member)` triples.
pub(super) fn find_duplicates<'a>(
    owners: impl Iterator<Item = (String, &'a str, String)>,
) -> Duplicates {
    let mut by_shared: BTreeMap<String, BTreeMap<String, &'a str>> = BTreeMap::new();
    let mut leaks: BTreeMap<String, BTreeMap<&'a str, String>> = BTreeMap::new();
    for (shared, part, member) in owners {
        leaks.entry(shared.clone()).or_default().entry(part).or_insert_with(|| member.clone());
        by_shared.entry(shared).or_default().insert(member, part);
    }
    let several = |(_, members): &(String, BTreeMap<String, &str>)| members.len() > 1;
    let duplicates = by_shared
        .into_iter()
        .filter(several)
        .map(|(shared, members)| DuplicateGroup { shared, members: members.into_keys().collect() });
    let across = |(_, parts): &(String, BTreeMap<&str, String>)| parts.len() > 1;
    let leaks = leaks.into_iter().filter(across).map(|(shared, parts)| DuplicateGroup {
        shared,
        members: parts.into_iter().map(|(part, member)| format!("{part}: {member}")).collect(),
    });
    Duplicates { duplicates: duplicates.collect(), leaks: leaks.collect() }
}
