//! Captions from titles, descriptions and file names, written by hundreds of people over years.

use std::collections::BTreeSet;

use super::super::vocabulary::Pieces;
use super::super::words::{singular, tidy, words};
use super::foreign::translate;
use super::lists::{ABOUT_FILES, FOLDERS, FOREIGN, SORTING, TRADE_MARKS, VARIANTS};
use super::metadata::Metadata;

/// Frequency of a drawing's title and description in the whole package.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Number of drawings with this title.
    pub title: usize,
    /// Number of drawings with this description.
    pub description: usize,
}

/// Texts kept for one drawing.
pub struct Words {
    /// Concept, the unit of the splits.
    pub concept: String,
    /// The caption.
    pub caption: String,
    /// Keywords that add to the caption.
    pub keywords: Vec<String>,
}

/// Number of drawings above which a title names a collection.
const COLLECTION: usize = 6;

/// Builds the texts of a drawing, or gives the reason why it has none.
pub fn compose(
    name: &str,
    metadata: &Metadata,
    common: Common,
    pieces: &Pieces,
) -> Result<Words, &'static str> {
    if FOLDERS.iter().any(|f| name.starts_with(f)) {
        return Err("in a folder of trade marks or number series");
    }
    let said = words(&format!("{} {}", name.replace('_', " "), metadata.title));
    if said.iter().any(|w| TRADE_MARKS.contains(&w.as_str())) {
        return Err("names a trade mark");
    }
    let stem = from_stem(name.rsplit('/').next().unwrap_or(name), &metadata.authors);
    let lower = metadata.title.to_lowercase();
    let about_file = ABOUT_FILES.iter().any(|mark| lower.contains(mark));
    let mut title = from_title(&metadata.title);
    if about_file || common.title > COLLECTION || title.is_empty() {
        title.clone_from(&stem);
    }
    // A flag's title is often the bare country.
    if name.contains("/flags/") && !title.contains("flag") && !name.contains("semaphore") {
        title = format!("flag of {title}");
    }
    if name.contains("/smilies/") && !title.contains("smil") {
        title = format!("smiley {title}");
    }
    if !english(&title, pieces, 0.75) {
        return Err(if about_file || common.title > COLLECTION {
            "the title names a collection, the file name is not English words"
        } else {
            "the title is not English words"
        });
    }
    let caption = with_description(&title, &metadata.description, common, pieces);
    let concept = concept(&title);
    if concept.is_empty() {
        return Err("nothing but a number or a color in the title");
    }
    let keywords = keywords(&metadata.keywords, &caption, pieces);
    Ok(Words { concept, caption, keywords })
}

/// Title without numbering, side remarks of the collection, and camel case.
fn from_title(title: &str) -> String {
    let title = title
        .replace("(B and W)", " black and white ")
        .replace("(B and  W)", " black and white ")
        .replace(" - RPG map elements", "")
        .replace(" - body part", "")
        .replace(" - clothing", "");
    let mut out: Vec<String> = Vec::new();
    for word in tidy(&split_camel(&title).replace(['-', '[', ']', '{', '}'], " ")).split(' ') {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'');
        let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
        if bare.is_empty() || matches!(bare, "bw") {
            if bare == "bw" {
                out.extend(["black", "and", "white"].map(String::from));
            }
            continue;
        }
        if out.last().is_none_or(|last| last != bare) {
            out.push(bare.to_string());
        }
    }
    // A lone letter at the end is a number too.
    while out.len() > 1 && out.last().is_some_and(|w| w.len() == 1) {
        out.pop();
    }
    translate(&out.join(" "))
}

fn split_camel(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in text.chars() {
        if before.is_lowercase() && c.is_uppercase() {
            out.push(' ');
        }
        out.push(c);
        before = c;
    }
    out
}

/// File name without its author and number: "wooden_table_benji_park_01" is "wooden table".
fn from_stem(stem: &str, authors: &str) -> String {
    let authors: Vec<String> = words(authors);
    let clean = from_title(&stem.replace('_', " "));
    let mut kept = Vec::new();
    for (i, word) in clean.split(' ').enumerate() {
        let author = authors.iter().any(|a| a == word)
            || word.len() >= 4 && authors.iter().any(|a| a.starts_with(word));
        if i > 0 && author {
            break;
        }
        kept.push(word);
    }
    while kept.len() > 1 && kept.last().is_some_and(|w| w.len() <= 2) {
        kept.pop();
    }
    kept.join(" ")
}

/// True if at least `share` of the words are in the English word list, none is a known foreign one, and one of them
/// has some length.
fn english(text: &str, pieces: &Pieces, share: f32) -> bool {
    let all = words(text);
    if all.is_empty() || all.len() > 24 || !text.is_ascii() {
        return false;
    }
    if all.iter().any(|w| FOREIGN.contains(&w.as_str())) {
        return false;
    }
    let known = |w: &String| pieces.english(w) || pieces.english(&singular(w));
    let whole = all.iter().filter(|w| known(w)).count();
    all.iter().any(|w| w.len() >= 3 && known(w)) && whole as f32 >= share * all.len() as f32
}

/// Adds the first sentence of a description that says more than the title.
fn with_description(title: &str, description: &str, common: Common, pieces: &Pieces) -> String {
    let lower = description.to_lowercase();
    let sentence = lower.split(['\n', ';']).next().unwrap_or_default();
    let sentence = sentence.split(". ").next().unwrap_or_default();
    if common.description > 4 || ABOUT_FILES.iter().any(|mark| sentence.contains(mark)) {
        return title.to_string();
    }
    let mut text = tidy(sentence);
    for opening in ["this is ", "an image of ", "a picture of ", "picture of ", "image of "] {
        text = text.strip_prefix(opening).unwrap_or(&text).to_string();
    }
    let count = words(&text).len();
    if !(2..=20).contains(&count) || !english(&text, pieces, 0.8) {
        return title.to_string();
    }
    let said: BTreeSet<String> = words(title).iter().map(|w| singular(w)).collect();
    let more: BTreeSet<String> = words(&text).iter().map(|w| singular(w)).collect();
    if more.is_subset(&said) {
        title.to_string()
    } else if said.is_subset(&more) {
        text
    } else {
        format!("{title}, {text}")
    }
}

/// Concept of a title: its content words, in order and without number, color or side.
fn concept(title: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    for word in words(title) {
        let word = singular(&word);
        if !VARIANTS.contains(&word.as_str()) && !kept.contains(&word) {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Keywords in known words that add to the caption.
fn keywords(all: &[String], caption: &str, pieces: &Pieces) -> Vec<String> {
    let said: BTreeSet<String> = words(caption).iter().map(|w| singular(w)).collect();
    let mut kept: Vec<String> = Vec::new();
    for keyword in all {
        let keyword = tidy(&keyword.replace('_', " "));
        let parts = words(&keyword);
        let known = !parts.is_empty()
            && parts.len() <= 3
            && keyword.is_ascii()
            && parts.iter().all(|w| w.len() > 2 && pieces.whole(w))
            && !parts.iter().any(|w| FOREIGN.contains(&w.as_str()) || w == "hash");
        let adds = parts.iter().any(|w| !said.contains(&singular(w)));
        if known && adds && !SORTING.contains(&keyword.as_str()) && !kept.contains(&keyword) {
            kept.push(keyword);
        }
    }
    kept.truncate(8);
    kept
}
