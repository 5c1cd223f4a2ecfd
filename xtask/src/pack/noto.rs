//! Noto emoji with CLDR names and keywords.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use serde::Deserialize;

use super::fetch::Sources;
use super::report::Report;
use super::split::{Concept, hold_out};
use super::words::{Mentions, Name, singular, tidy, words};
use super::{Entry, Split, raster};

/// Number of concepts held out for the final test, and for selecting among runs.
const TEST: usize = 353;
const VALIDATION: usize = 141;
/// Maximum concepts that one held-out concept may take along.
const LIMIT: usize = 14;

/// Words that tell persons apart, not things: names that differ in them alone are one group.
const PERSONS: &[&str] = &[
    "man",
    "woman",
    "person",
    "boy",
    "girl",
    "child",
    "adult",
    "male",
    "female",
    "men",
    "women",
    "mr",
    "mrs",
    "mx",
    "claus",
    "prince",
    "princess",
    "king",
    "queen",
    "merman",
    "mermaid",
    "merperson",
    "old",
    "older",
    "lady",
    "gentleman",
    "light",
    "medium",
    "dark",
    "skin",
    "tone",
    "grandmother",
    "grandfather",
];

#[derive(Deserialize)]
struct Emoji {
    unified: String,
    image: String,
    has_img_google: bool,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    default: Vec<String>,
    #[serde(default)]
    tts: Vec<String>,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: HashMap<String, Annotation>,
}

#[derive(Deserialize)]
struct Cldr {
    annotations: Annotations,
}

/// Every base emoji with an English name, in order of its code points.
pub fn read(
    sources: &Sources,
    pieces: &super::vocabulary::Pieces,
    report: &mut Report,
) -> anyhow::Result<Vec<Entry>> {
    let list = std::fs::read_to_string(sources.noto.join("emoji.json"))?;
    let mut emoji: Vec<Emoji> = serde_json::from_str(&list).context("emoji.json")?;
    emoji.sort_by(|a, b| a.image.cmp(&b.image));
    let names = std::fs::read_to_string(sources.cldr.join("annotations/en/annotations.json"))?;
    let names: Cldr = serde_json::from_str(&names).context("annotations.json")?;
    let names = names.annotations.annotations;

    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for one in emoji {
        if !one.has_img_google {
            report.add("noto", "dropped, no Noto image", one.unified);
            continue;
        }
        let text: String = one
            .unified
            .split('-')
            .filter_map(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?))
            .collect();
        let plain = text.replace('\u{fe0f}', "");
        let Some(found) = names.get(&text).or_else(|| names.get(&plain)) else {
            report.add("noto", "dropped, no English CLDR name", one.unified);
            continue;
        };
        let Some(name) = found.tts.first().map(|t| tidy(t)) else { continue };
        if !seen.insert(name.clone()) {
            report.add("noto", "dropped, name already taken", name);
            continue;
        }
        let file = format!("img/google/64/{}", one.image);
        let drawn = raster::square(&sources.noto.join(&file), 64, false)?;
        entries.push(Entry {
            keywords: keywords(&found.default, &name, pieces),
            concept: name.clone(),
            caption: name,
            split: Split::Train,
            source: "noto",
            file,
            webp: raster::webp(&drawn)?,
        });
    }
    Ok(entries)
}

/// Keywords in known words that add to the name.
fn keywords(all: &[String], name: &str, pieces: &super::vocabulary::Pieces) -> Vec<String> {
    let named: HashSet<String> = words(name).iter().map(|w| singular(w)).collect();
    let mut kept: Vec<String> = Vec::new();
    for keyword in all {
        let keyword = tidy(keyword);
        let parts = words(&keyword);
        let known = !parts.is_empty() && parts.iter().all(|w| w.len() > 1 && pieces.whole(w));
        let adds = parts.iter().any(|w| !named.contains(&singular(w)));
        let decent = !["bs", "pissed", "man", "woman"].contains(&keyword.as_str());
        if known && adds && decent && !kept.contains(&keyword) {
            kept.push(keyword);
        }
    }
    kept
}

/// Group key of a name: persons become one word, every clock face one name.
fn group(name: &str) -> String {
    if name.ends_with("o'clock") || name.ends_with("-thirty") {
        return "clock face at an hour".to_string();
    }
    if name.starts_with("keycap") {
        return "keycap".to_string();
    }
    let mut parts: Vec<String> = words(name)
        .iter()
        .map(|w| if PERSONS.contains(&w.as_str()) { "person".to_string() } else { singular(w) })
        .map(|w| if w == "man" || w == "woman" { "person".to_string() } else { w })
        .collect();
    parts.dedup();
    // "person: beard" and "woman beard", "police officer" and "man police officer".
    parts.retain(|w| w != "person" && w != "in");
    if parts.is_empty() { "person".to_string() } else { parts.join(" ") }
}

/// Assigns every emoji to a split, then removes the training keywords that name a held-out concept.
pub fn split(mut all: Vec<Entry>, seed: u64, report: &mut Report) -> anyhow::Result<Vec<Entry>> {
    let concepts: Vec<Concept> =
        all.iter().map(|e| Concept { name: e.concept.clone(), group: group(&e.concept) }).collect();
    let parts = hold_out(&concepts, &[TEST, VALIDATION], LIMIT, seed);
    for (entry, part) in all.iter_mut().zip(parts) {
        entry.split = match part {
            None => Split::Train,
            Some(0) => Split::Test,
            Some(_) => Split::Validation,
        };
    }
    let held: Vec<Name> =
        all.iter().filter(|e| e.split != Split::Train).map(|e| Name::new(&e.concept)).collect();
    for entry in all.iter_mut().filter(|e| e.split == Split::Train) {
        strip_keywords(entry, &held, "noto", report);
    }
    for entry in &all {
        report.add("noto", &format!("kept, {:?}", entry.split).to_lowercase(), &entry.caption);
    }
    Ok(all)
}

/// Removes keywords until neither one alone nor all of them with the caption name a held-out
/// concept.
pub fn strip_keywords(entry: &mut Entry, held: &[Name], stage: &str, report: &mut Report) {
    let caption = entry.caption.clone();
    entry.keywords.retain(|keyword| {
        let mentions = Mentions::of(keyword);
        let leak = held.iter().any(|name| mentions.names(name));
        if leak {
            report.add(stage, "training keywords that named a held-out concept", keyword);
        }
        !leak
    });
    let mut together = Mentions::of(&caption);
    let mut kept = Vec::new();
    for keyword in std::mem::take(&mut entry.keywords) {
        let mut with = together.clone();
        with.add(&keyword);
        if held.iter().any(|name| with.names(name)) {
            let text = format!("{caption}, {keyword}");
            report.add(stage, "training keywords that would with others", text);
        } else {
            together = with;
            kept.push(keyword);
        }
    }
    entry.keywords = kept;
}
