//! Vocabulary: a subset of bert-base-uncased's WordPieces, chosen on training text alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::words::words;
use super::{Entry, Split};

/// Vocabulary size, special tokens included.
pub const SIZE: usize = 3600;

/// WordPieces of bert-base-uncased with their rank (roughly by frequency in English).
pub struct Pieces {
    all: Vec<String>,
    index: HashMap<String, usize>,
    english: HashSet<String>,
}

impl Pieces {
    /// True if `word` is one piece.
    pub fn whole(&self, word: &str) -> bool {
        self.index.contains_key(word)
    }

    /// True if `word` is in the English word list (names included).
    pub fn english(&self, word: &str) -> bool {
        self.english.contains(word)
    }

    /// Greedy longest-match-first pieces of one word; `None` if some of it has no piece.
    fn pieces<'a>(&'a self, word: &str) -> Option<Vec<&'a str>> {
        let mut out = Vec::new();
        let mut rest = word;
        while !rest.is_empty() {
            let prefix = if out.is_empty() { "" } else { "##" };
            let (end, index) =
                rest.char_indices().map(|(i, c)| i + c.len_utf8()).rev().find_map(|end| {
                    Some((end, *self.index.get(&format!("{prefix}{}", &rest[..end]))?))
                })?;
            out.push(self.all[index].as_str());
            rest = &rest[end..];
        }
        Some(out)
    }
}

/// Reads `vocab.txt` and the list of English words.
pub fn read(path: &Path, words: &Path) -> anyhow::Result<Pieces> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let all: Vec<String> = text.lines().map(ToString::to_string).collect();
    ensure!(all.len() == 30522, "{}: {} pieces instead of 30522", path.display(), all.len());
    let index = all.iter().enumerate().map(|(i, p)| (p.clone(), i)).collect();
    let english = std::fs::read_to_string(words).with_context(|| words.display().to_string())?;
    let english = english.lines().map(str::to_lowercase).collect();
    Ok(Pieces { all, index, english })
}

/// Chooses the subset: special tokens, single characters, the pieces of openclipart's training captions and keywords
/// by frequency, then whole English words in bert's order. `[DEC]` and `[ENC]` come last, as in BLIP.
pub fn choose(pieces: &Pieces, clipart: &[Entry]) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::with_capacity(SIZE);
    let mut have = HashSet::new();
    let mut add = |piece: &str, chosen: &mut Vec<String>| {
        if chosen.len() < SIZE - 2 && have.insert(piece.to_string()) {
            chosen.push(piece.to_string());
        }
    };
    for special in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        add(special, &mut chosen);
    }
    for piece in &pieces.all {
        let bare = piece.strip_prefix("##").unwrap_or(piece);
        let kept = bare.is_ascii()
            && (bare.len() == piece.len() || !bare.starts_with(|c: char| c.is_ascii_punctuation()));
        if bare.len() == 1 && kept {
            add(piece, &mut chosen);
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in clipart.iter().filter(|e| e.split == Split::Train) {
        for text in std::iter::once(&entry.caption).chain(&entry.keywords) {
            for piece in words(text).iter().filter_map(|w| pieces.pieces(w)).flatten() {
                *counts.entry(piece).or_default() += 1;
            }
        }
    }
    let mut by_count: Vec<(&str, usize)> = counts.into_iter().collect();
    by_count.sort_by_key(|&(piece, n)| (usize::MAX - n, pieces.index[piece]));
    for (piece, _) in by_count {
        add(piece, &mut chosen);
    }
    for piece in &pieces.all {
        if piece.len() >= 3 && piece.chars().all(|c| c.is_ascii_lowercase()) {
            add(piece, &mut chosen);
        }
    }
    chosen.push("[DEC]".to_string());
    chosen.push("[ENC]".to_string());
    chosen
}
