//! What a look at data found, as plain numbers and lists.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::on_error::Skipped;

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was looked at.
    pub paths: Vec<String>,
    /// Rows of a training: images, clips or questions about them.
    pub samples: usize,
    /// Different files of images.
    pub images: usize,
    /// Different clips.
    pub clips: usize,
    /// Frames of the clips that are folders of frames.
    pub frames: usize,
    /// Captions.
    pub captions: usize,
    /// Questions.
    pub questions: usize,
    /// What each split holds; where no sample is marked and several files were named, each file.
    pub parts: BTreeMap<String, SplitCounts>,
    /// What cannot be used. Each would end a training whose policy is to stop.
    pub problems: Vec<Skipped>,
    /// Images with a side shorter than [`super::MIN_SIDE`] pixels.
    pub tiny: Vec<SmallImage>,
    /// Files of the same bytes.
    pub same_image: Duplicates,
    /// Images with the same caption.
    pub same_caption: Duplicates,
    /// Sizes of images.
    pub sizes: Sizes,
    /// Lengths of captions and questions.
    pub lengths: Lengths,
    /// What the vocabulary does not know.
    pub unknown: UnknownTokens,
}

impl Report {
    /// Whether a training whose policy is to stop would stop.
    pub fn stops(&self) -> bool {
        !self.problems.is_empty()
    }
}

/// What a part holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SplitCounts {
    /// Rows of a training.
    pub samples: usize,
    /// Captions.
    pub captions: usize,
    /// Questions.
    pub questions: usize,
}

/// An image that is too small to show much.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SmallImage {
    /// Which.
    pub what: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// What is there more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Inside of one part or across parts: who shares what.
    pub duplicates: Vec<DuplicateGroup>,
    /// Across parts: what is learned in one is asked in another.
    pub leaks: Vec<DuplicateGroup>,
}

/// Those that share something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DuplicateGroup {
    /// What they share: a caption, or the SHA-256 of a file.
    pub shared: String,
    /// Who: for duplicates every one, for leaks the first of each part.
    pub members: Vec<String>,
}

/// Sizes of images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Images by their shorter side.
    pub shorter_side: Vec<Bin>,
    /// The smallest shorter side.
    pub smallest: usize,
    /// The largest longer side.
    pub largest: usize,
}

/// A column of a histogram: values from `from` up to, not including, `to`; without `to`, and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The lowest value.
    pub from: usize,
    /// The first value that is too high.
    pub to: Option<usize>,
    /// How many there are.
    pub count: usize,
}

/// Lengths of texts in tokens, `[CLS]` and `[SEP]` included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Longest text that a model takes whole.
    pub limit: usize,
    /// Texts by their length.
    pub histogram: BTreeMap<usize, usize>,
    /// Texts that are longer than the limit, and cut.
    pub cut: usize,
}

impl Lengths {
    /// Texts in all.
    pub fn texts(&self) -> usize {
        self.histogram.values().sum()
    }

    /// The longest.
    pub fn longest(&self) -> usize {
        self.histogram.keys().next_back().copied().unwrap_or(0)
    }
}

/// What the vocabulary has no pieces for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UnknownTokens {
    /// Tokens in all, `[CLS]` and `[SEP]` left out.
    pub tokens: usize,
    /// Those that are `[UNK]`.
    pub unknown: usize,
    /// The same by the script of the word, the most frequent script first.
    pub scripts: Vec<ScriptWords>,
}

/// Words of one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScriptWords {
    /// Its name in Unicode; `Common` for words without a letter.
    pub script: String,
    /// Words.
    pub words: usize,
    /// Tokens they are made of.
    pub tokens: usize,
    /// Those that are `[UNK]`.
    pub unknown: usize,
}

/// Groups from who has what in which part: `(shared, part, member)`.
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
