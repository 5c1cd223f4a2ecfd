//! BLIP's caption and question clean-up, and composition of captions with keywords.

use aurora_kernels::random::Stream;
use serde::{Deserialize, Serialize};

/// Word limit of an image caption.
pub const MAX_IMAGE_WORDS: usize = 30;
/// Word limit of a video caption.
pub const MAX_VIDEO_WORDS: usize = 40;
/// Word limit of a question.
pub const MAX_QUESTION_WORDS: usize = 50;

/// Characters removed by the clean-up.
const REMOVED: &str = ".!\"()*#:;~";

/// BLIP's `pre_caption` clean-up: lower case, each of `.!"()*#:;~` and every run of white space
/// replaced by one space, at most `max_words` words.
///
/// ```
/// assert_eq!(aurora_data::caption::clean("A *Red*  Apple.", 30), "a red apple");
/// ```
pub fn clean(text: &str, max_words: usize) -> String {
    let text = text.to_lowercase();
    let words = text.split(|c: char| c.is_whitespace() || REMOVED.contains(c));
    words.filter(|w| !w.is_empty()).take(max_words).collect::<Vec<_>>().join(" ")
}

/// BLIP's `pre_question` clean-up: lower case, the characters of [`clean`] dropped instead of
/// replaced by spaces, at most `max_words` words.
///
/// ```
/// assert_eq!(aurora_data::caption::clean_question("What's  that (red) thing?", 50), "what's that red thing?");
/// ```
pub fn clean_question(text: &str, max_words: usize) -> String {
    let text: String = text.to_lowercase().chars().filter(|c| !REMOVED.contains(*c)).collect();
    text.split_whitespace().take(max_words).collect::<Vec<_>>().join(" ")
}

/// Use of a sample's keywords in its caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keywords {
    /// No keywords.
    #[default]
    Never,
    /// A random subset in random order; each keyword with probability 1/2. For training.
    Sample,
    /// All keywords, in their order.
    All,
}

/// Joins a caption with keywords: "caption, keyword, keyword". Only [`Keywords::Sample`] draws from
/// `stream`.
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
