//! Text matching: words without number, and containment of concepts.

use std::collections::BTreeSet;

/// Stop words of a name.
const FILLERS: &[&str] = &["a", "an", "the", "of", "with", "and"];

/// Irregular plurals, and pairs that the rules below would not bring together.
const IRREGULAR: &[(&str, &str)] = &[
    ("men", "man"),
    ("women", "woman"),
    ("children", "child"),
    ("people", "person"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("mice", "mouse"),
    ("geese", "goose"),
    ("leaves", "leaf"),
    ("knives", "knife"),
    ("wolves", "wolf"),
    ("loaves", "loaf"),
    ("scarves", "scarf"),
    ("shelves", "shelf"),
    ("oxen", "ox"),
    ("fishes", "fish"),
    ("dice", "die"),
    ("cacti", "cactus"),
    ("octopi", "octopus"),
    ("movies", "movie"),
    ("cookies", "cookie"),
    ("pies", "pie"),
    ("ties", "tie"),
    ("zombies", "zombie"),
    ("shoes", "shoe"),
    ("axes", "axe"),
    ("gas", "gas"),
    ("lens", "lens"),
];

/// Singular of a word.
pub fn singular(word: &str) -> String {
    if let Some((_, one)) = IRREGULAR.iter().find(|(many, _)| *many == word) {
        return (*one).to_string();
    }
    let n = word.len();
    if n > 4 && word.ends_with("ies") {
        return format!("{}y", &word[..n - 3]);
    }
    let sibilant = ["ches", "shes", "xes", "sses", "zes", "oes"];
    if n > 4 && sibilant.iter().any(|s| word.ends_with(s)) {
        return word[..n - 2].to_string();
    }
    let kept = ["ss", "us", "is"];
    if n > 3 && word.ends_with('s') && !kept.iter().any(|s| word.ends_with(s)) {
        return word[..n - 1].to_string();
    }
    word.to_string()
}

/// Words of a text: lower case, letters and digits only, apostrophes closed up, in order.
pub fn words(text: &str) -> Vec<String> {
    let text: String = text
        .to_lowercase()
        .replace('’', "'")
        .replace("'s ", " ")
        .chars()
        .filter(|c| *c != '\'')
        .collect();
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(ToString::to_string)
        .collect()
}

/// Singular content words, the set that decides whether one text names another.
pub fn content(text: &str) -> BTreeSet<String> {
    let all = words(text);
    let some: BTreeSet<String> =
        all.iter().filter(|w| !FILLERS.contains(&w.as_str())).map(|w| singular(w)).collect();
    if some.is_empty() { all.into_iter().collect() } else { some }
}

/// Mentions of a text, everything it could be read as naming: its singular words, and neighbors written together
/// ("light bulb" also as "lightbulb").
#[derive(Debug, Clone, Default)]
pub struct Mentions {
    words: BTreeSet<String>,
    joined: BTreeSet<String>,
}

impl Mentions {
    /// Adds one text; neighbors are joined within a text only.
    pub fn add(&mut self, text: &str) {
        let all: Vec<String> = words(text).iter().map(|w| singular(w)).collect();
        for pair in all.windows(2) {
            if let [first, second] = pair {
                self.joined.insert(format!("{first}{second}"));
            }
        }
        self.words.extend(all);
    }

    /// Mentions of one text alone.
    pub fn of(text: &str) -> Self {
        let mut mentions = Self::default();
        mentions.add(text);
        mentions
    }

    /// True if all content words of `name` are here, in any order, or the name written as one.
    pub fn names(&self, name: &Name) -> bool {
        name.content.iter().all(|w| self.words.contains(w) || self.joined.contains(w))
            || self.words.contains(&name.closed)
    }
}

/// Name of a concept, prepared for matching.
#[derive(Debug, Clone)]
pub struct Name {
    /// Singular content words.
    pub content: BTreeSet<String>,
    closed: String,
}

impl Name {
    /// Parses a name.
    pub fn new(text: &str) -> Self {
        let closed = words(text)
            .iter()
            .filter(|w| !FILLERS.contains(&w.as_str()))
            .map(|w| singular(w))
            .collect::<String>();
        Self { content: content(text), closed }
    }
}

/// Normal form of captions: lower case, the characters that the caption clean-up removes turned into spaces, spaces
/// folded.
pub fn tidy(text: &str) -> String {
    let text = text.to_lowercase().replace(['’', '‘'], "'").replace(['–', '—'], "-");
    let text: String =
        text.chars().map(|c| if ".!\"()*#:;~“”_|/".contains(c) { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_the_number_and_the_spelling() {
        let names = |text: &str, name: &str| Mentions::of(text).names(&Name::new(name));
        assert!(names("three red apples", "red apple"));
        assert!(names("an apple, quite red", "red apple"));
        assert!(names("a lightbulb", "light bulb"));
        assert!(names("the light bulb", "lightbulb"));
        assert!(names("butterflies", "butterfly"));
        assert!(names("women's hats", "woman\u{2019}s hat"));
        assert!(!names("red pear", "red apple"));
        assert!(!names("glass", "glas"));
        assert!(!names("bus", "bu"));
    }

    #[test]
    fn tidy_text_is_clean() {
        assert_eq!(tidy("Keycap: #_1  (Big)."), "keycap 1 big");
        assert_eq!(tidy("One O\u{2019}Clock"), "one o'clock");
    }
}
