//! Openclipart drawings: captions from titles, descriptions and file names.

mod caption;
mod foreign;
mod lists;
mod metadata;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::fetch::{Sources, files};
use super::noto::strip_keywords;
use super::report::Report;
use super::split::{Concept, hold_out};
use super::words::{Mentions, Name};
use super::{Entry, Split, raster};

/// Number of concepts held out for validation of the pretraining.
const VALIDATION: usize = 170;
/// Maximum images that one validation concept may take along.
const LIMIT: usize = 4;
/// Maximum images that share one concept.
const SAME: usize = 8;
/// Duplicate threshold: thumbnails closer than this (mean absolute difference, 0 to 255) are the same drawing.
const TWIN: f32 = 3.0;
/// Duplicate threshold for drawings of one concept in one split, where a variant does no harm.
const SAME_TWIN: f32 = 1.5;
/// Minimum share of a thumbnail that is drawn on.
const INK: f32 = 0.012;

/// Drawing with its texts, and the mentions that the leak checks look at.
pub struct Drawing {
    entry: Entry,
    /// Everything said about the image: caption, file name, raw keywords.
    mentions: Mentions,
    thumbnail: Vec<u8>,
}

/// Every drawing with a caption fit for training.
pub fn read(
    sources: &Sources,
    pieces: &super::vocabulary::Pieces,
    report: &mut Report,
) -> anyhow::Result<Vec<Drawing>> {
    let stage = "openclipart";
    let mut found = Vec::new();
    for path in files(&sources.clipart_svg)? {
        if path.extension().is_none_or(|e| e != "svg") {
            continue;
        }
        let Ok(relative) = path.strip_prefix(&sources.clipart_svg) else { continue };
        let name = relative.with_extension("").display().to_string();
        match metadata::read(&path) {
            Err(reason) => report.add(stage, &format!("dropped, {reason}"), name),
            Ok(metadata) => found.push((name, metadata)),
        }
    }
    let mut titles: HashMap<String, usize> = HashMap::new();
    let mut descriptions: HashMap<String, usize> = HashMap::new();
    for (_, metadata) in &found {
        *titles.entry(metadata.title.clone()).or_default() += 1;
        *descriptions.entry(metadata.description.clone()).or_default() += 1;
    }

    let mut drawings: Vec<Drawing> = Vec::new();
    let mut concepts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (name, metadata) in found {
        let common = caption::Common {
            title: titles[&metadata.title],
            description: descriptions[&metadata.description],
        };
        let words = match caption::compose(&name, &metadata, common, pieces) {
            Ok(words) => words,
            Err(reason) => {
                report.add(
                    stage,
                    &format!("dropped, {reason}"),
                    format!("{name}: {}", metadata.title),
                );
                continue;
            }
        };
        let same = concepts.entry(words.concept.clone()).or_default();
        if same.len() >= SAME {
            report.add(stage, "dropped, enough images of the same words", words.caption);
            continue;
        }
        let file = format!("{name}.png");
        let path = sources.clipart_png.join(&file);
        let drawn = match raster::square(&path, 96, true) {
            Ok(drawn) => drawn,
            Err(_) => {
                report.add(stage, "dropped, no readable rendering", file);
                continue;
            }
        };
        let thumbnail = raster::thumbnail(&drawn);
        if raster::ink(&thumbnail) < INK {
            report.add(stage, "dropped, almost nothing drawn", file);
            continue;
        }
        if same.iter().any(|&i| raster::difference(&drawings[i].thumbnail, &thumbnail) < SAME_TWIN)
        {
            report.add(stage, "dropped, the same drawing with the same words", words.caption);
            continue;
        }
        same.push(drawings.len());
        let mut mentions = Mentions::of(&words.caption);
        mentions.add(&name.rsplit('/').next().unwrap_or(&name).replace('_', " "));
        mentions.add(&metadata.title);
        for keyword in metadata.keywords.iter().chain(&words.keywords) {
            mentions.add(&keyword.replace('_', " "));
        }
        drawings.push(Drawing {
            entry: Entry {
                concept: words.concept,
                caption: words.caption,
                keywords: words.keywords,
                split: Split::Train,
                source: "openclipart",
                file,
                webp: raster::webp(&drawn)?,
            },
            mentions,
            thumbnail,
        });
    }
    Ok(drawings)
}

/// Pixels (96, 96, 3) of the drawings that are not packed, mostly for lack of a caption, one after the other: public
/// domain, and nothing said about them names a held-out concept.
pub fn uncaptioned(
    sources: &Sources,
    packed: &HashSet<&str>,
    held_out: &[Name],
) -> anyhow::Result<Vec<u8>> {
    let mut pixels = Vec::new();
    for path in files(&sources.clipart_svg)? {
        let Ok(relative) = path.strip_prefix(&sources.clipart_svg) else { continue };
        let file = relative.with_extension("png");
        if path.extension().is_none_or(|e| e != "svg") || packed.contains(&*file.to_string_lossy())
        {
            continue;
        }
        let Ok(metadata) = metadata::read(&path) else { continue };
        let mut mentions = Mentions::default();
        let stem = file.file_stem().map(|s| s.to_string_lossy().replace('_', " "));
        mentions.add(&stem.unwrap_or_default());
        mentions.add(&metadata.title);
        mentions.add(&metadata.description);
        metadata.keywords.iter().for_each(|k| mentions.add(&k.replace('_', " ")));
        if held_out.iter().any(|name| mentions.names(name)) {
            continue;
        }
        let Ok(drawn) = raster::square(&sources.clipart_png.join(&file), 96, true) else {
            continue;
        };
        if raster::ink(&raster::thumbnail(&drawn)) >= INK {
            pixels.extend_from_slice(drawn.as_raw());
        }
    }
    Ok(pixels)
}

/// Drops every drawing whose caption, file name or keywords name a held-out emoji.
pub fn without(drawings: Vec<Drawing>, held_out: &[String], report: &mut Report) -> Vec<Drawing> {
    let names: Vec<(Name, &String)> = held_out.iter().map(|n| (Name::new(n), n)).collect();
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for drawing in drawings {
        match names.iter().find(|(name, _)| drawing.mentions.names(name)) {
            None => kept.push(drawing),
            Some((_, name)) => {
                *by_name.entry(name).or_default() += 1;
                report.add(
                    "openclipart against held-out emoji",
                    "dropped, names a held-out emoji",
                    format!("{} ({name})", drawing.entry.caption),
                );
            }
        }
    }
    let mut most: Vec<(&str, usize)> = by_name.into_iter().collect();
    most.sort_by_key(|&(name, n)| (usize::MAX - n, name));
    for (name, n) in most.into_iter().take(25) {
        report.add("  of these, by emoji", &format!("{n:>3} {name}"), "");
    }
    kept
}

/// Assigns every drawing to a split; training loses the duplicates and the keywords that name validation concepts.
pub fn split(
    mut drawings: Vec<Drawing>,
    seed: u64,
    report: &mut Report,
) -> anyhow::Result<Vec<Entry>> {
    let stage = "openclipart split";
    // One concept an image, grouped by the concept: follower counts are counts of images.
    let concepts: Vec<Concept> = drawings
        .iter()
        .map(|d| Concept { name: d.entry.concept.clone(), group: d.entry.concept.clone() })
        .collect();
    let parts = hold_out(&concepts, &[VALIDATION], LIMIT, seed);
    for (drawing, part) in drawings.iter_mut().zip(parts) {
        drawing.entry.split = if part.is_some() { Split::Validation } else { Split::Train };
    }
    let validation: Vec<&Drawing> =
        drawings.iter().filter(|d| d.entry.split == Split::Validation).collect();
    let held: Vec<Name> = validation.iter().map(|d| Name::new(&d.entry.concept)).collect();
    let thumbnails: Vec<Vec<u8>> = validation.iter().map(|d| d.thumbnail.clone()).collect();
    let captions: HashSet<String> = validation.iter().map(|d| d.entry.caption.clone()).collect();

    let mut entries = Vec::new();
    for mut drawing in drawings {
        if drawing.entry.split == Split::Train {
            let twin = |t: &Vec<u8>| raster::difference(t, &drawing.thumbnail) < TWIN;
            if thumbnails.iter().any(twin) {
                report.add(stage, "dropped, looks like a validation image", drawing.entry.caption);
                continue;
            }
            let caption = Mentions::of(&drawing.entry.caption);
            let leak = held.iter().any(|name| caption.names(name));
            if leak || captions.contains(&drawing.entry.caption) {
                report.add(
                    stage,
                    "dropped, its caption names a validation concept",
                    drawing.entry.caption,
                );
                continue;
            }
            strip_keywords(&mut drawing.entry, &held, stage, report);
        }
        let part = format!("kept, {:?}", drawing.entry.split).to_lowercase();
        report.add(stage, &part, &drawing.entry.caption);
        entries.push(drawing.entry);
    }
    Ok(entries)
}
