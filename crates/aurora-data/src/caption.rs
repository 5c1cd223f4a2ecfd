//! Captions: the clean-up, and putting keywords behind them.

use aurora_kernels::random::Stream;
use serde::{Deserialize, Serialize};

/// Words a caption of an image keeps.
pub const MAX_IMAGE_WORDS: usize = 30;
/// Words a caption of a video keeps.
pub const MAX_VIDEO_WORDS: usize = 40;
/// Words a question keeps.
pub const MAX_QUESTION_WORDS: usize = 50;

/// The characters that the clean-up takes out.
const REMOVED: &str = ".!\"()*#:;~";

/// BLIP's caption clean-up: lower case, each of `.!"()*#:;~` and every run of white space one
/// space, at most `max_words` words.
///
/// ```
/// assert_eq!(aurora_data::caption::clean("A *Red*  Apple.", 30), "a red apple");
/// ```
pub fn clean(text: &str, max_words: usize) -> String {
    let text = text.to_lowercase();
    let words = text.split(|c: char| c.is_whitespace() || REMOVED.contains(c));
    words.filter(|w| !w.is_empty()).take(max_words).collect::<Vec<_>>().join(" ")
}

/// BLIP's clean-up of a question: lower case, the same characters dropped (not turned into
/// spaces), at most `max_words` words.
///
/// ```
/// assert_eq!(aurora_data::caption::clean_question("What's  that (red) thing?", 50), "what's that red thing?");
/// ```
pub fn clean_question(text: &str, max_words: usize) -> String {
    let text: String = text.to_lowercase().chars().filter(|c| !REMOVED.contains(*c)).collect();
    text.split_whitespace().take(max_words).collect::<Vec<_>>().join(" ")
}

/// Whether a sample's keywords follow its caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keywords {
    /// The caption alone.
    #[default]
    Never,
    /// A random subset in a random order: each keyword with probability one half. For training.
    Sample,
    /// All of them, in the order they are in.
    All,
}

/// "caption, keyword, keyword". `stream` is used by [`Keywords::Sample`] only.
pub fn compose(caption: &str, keywords: &[String], mode: Keywords, stream: &mut Stream) -> String {
    let mut chosen: Vec<&str> = match mode {
        Keywords::Never => Vec::new(),
        Keywords::All => keywords.iter().map(String::as_str).collect(),
        Keywords::Sample => {
            keywords.iter().filter(|_| stream.uniform() < 0.5).map(String::as_str).collect()
        }
    };
    if mode == Keywords::Sample {
        stream.shuffle(&mut chosen);
    }
    chosen.insert(0, caption);
    chosen.join(", ")
}
