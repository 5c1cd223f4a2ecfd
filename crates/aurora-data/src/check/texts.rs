//! Text scan of a data check. Each distinct word is tokenized once: white space always separates
//! words, so a text's tokens are those of its words.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use unicode_script::{Script, UnicodeScript as _};

use super::report::{Duplicates, Lengths, ScriptWords, UnknownTokens, find_duplicates};
use crate::{Result, Sample, Tokenizer};

/// Results of the text scan.
pub(super) struct TextScan {
    pub same: Duplicates,
    pub lengths: Lengths,
    pub unknown: UnknownTokens,
}

/// Counts the tokens of every caption and question.
pub(super) fn scan_texts(
    samples: &[Sample],
    parts: &[String],
    tokenizer: &Tokenizer,
    limit: usize,
    progress: &(dyn Fn(&str, u64, u64) + Sync),
) -> Result<TextScan> {
    let texts = || {
        samples.iter().flat_map(|sample| {
            let question = sample.question.iter().map(|question| question.text.as_str());
            sample.captions.iter().map(String::as_str).chain(question)
        })
    };
    progress("counting words", 0, 1);
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in texts().flat_map(str::split_whitespace) {
        *counts.entry(word).or_default() += 1;
    }
    let unk = tokenizer.special().unk;
    let sizes: HashMap<&str, (usize, usize)> = counts
        .par_iter()
        .map(|(&word, _)| {
            let ids = tokenizer.encode(word, usize::MAX)?;
            let unknown = ids.iter().filter(|&&id| id == unk).count();
            Ok((word, (ids.len().saturating_sub(2), unknown))) // without [CLS] and [SEP]
        })
        .collect::<Result<_>>()?;
    let size = |word: &str| sizes.get(word).copied().unwrap_or_default();

    let mut lengths = Lengths { limit, ..Lengths::default() };
    for text in texts() {
        let length = 2 + text.split_whitespace().map(|word| size(word).0).sum::<usize>();
        *lengths.histogram.entry(length).or_default() += 1;
        lengths.cut += usize::from(length > limit);
    }
    let unknown = by_script(counts.iter().map(|(&word, &count)| (word, count, size(word))));
    // Keyed by image: several questions or captions of one image are no duplicates.
    let owners = samples.iter().zip(parts).flat_map(|(sample, part)| {
        let owner = move |caption: &String| {
            (caption.clone(), part.as_str(), format!("{}: {}", sample.shard, sample.key))
        };
        sample.captions.iter().map(owner)
    });
    let same = find_duplicates(owners);
    progress("counting words", 1, 1);
    Ok(TextScan { same, lengths, unknown })
}

/// Counts of words, tokens and unknown tokens by script.
fn by_script<'a>(words: impl Iterator<Item = (&'a str, usize, (usize, usize))>) -> UnknownTokens {
    let mut out = UnknownTokens::default();
    let mut scripts: BTreeMap<&str, ScriptWords> = BTreeMap::new();
    for (word, count, (tokens, unknown)) in words {
        let name = script(word);
        let entry = scripts.entry(name).or_insert_with(|| ScriptWords {
            script: name.to_string(),
            words: 0,
            tokens: 0,
            unknown: 0,
        });
        entry.words += count;
        entry.tokens += count * tokens;
        entry.unknown += count * unknown;
        out.tokens += count * tokens;
        out.unknown += count * unknown;
    }
    out.scripts = scripts.into_values().collect();
    out.scripts.sort_by(|a, b| b.words.cmp(&a.words).then_with(|| a.script.cmp(&b.script)));
    out
}

/// Unicode script of a word's first letter.
fn script(word: &str) -> &'static str {
    let scripts = word.chars().map(|letter| letter.script());
    let mut named = scripts
        .filter(|script| !matches!(script, Script::Common | Script::Inherited | Script::Unknown));
    named.next().unwrap_or(Script::Common).full_name()
}
