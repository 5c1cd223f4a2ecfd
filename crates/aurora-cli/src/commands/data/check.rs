//! `aurora data check`: dataset check, reported as tables and as a page.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use aurora_data::check::{CheckOutcome, DuplicateGroup, MIN_SIDE, Report, check};
use aurora_data::{Dataset, Decode, Tokenizer, embedded, printable, quoting};
use aurora_train::progress::Progress;

use crate::args::CheckArgs;
use crate::commands::shared::write_whole;
use crate::output::{self, Table, count, share};
use crate::page::{CheckPage, CheckSample};
use crate::progress::ProgressDisplay;
use crate::thumbnail::thumbnail;

/// Maximum lines of a list on the terminal; the page and check.json have more.
const MAX_LISTED: usize = 10;

/// Maximum images on the page.
const MAX_SHOWN: usize = 24;

/// Runs `aurora data check`.
///
/// # Errors
/// A missing path, an unusable vocabulary, or a finding that would end a training run.
pub fn run(args: &CheckArgs) -> Result<()> {
    let tokens = match &args.tokenizer {
        Some(file) => Tokenizer::from_file(file)?,
        None => embedded::vocabulary()?,
    };
    let reading = args.annotations.options();
    let display = Mutex::new(ProgressDisplay::new());
    let progress = |what: &str, done: u64, total: u64| {
        display.lock().unwrap_or_else(PoisonError::into_inner).on_part(what, done, total);
    };
    let limit = args.max_tokens as usize;
    let checked = check(&args.paths, &reading, (&tokens, limit), &progress)?;
    let report = &checked.report;
    print(report);
    if let Some(out) = &args.out {
        let json = serde_json::to_string_pretty(report).context("a report is plain data")?;
        write_whole(&out.join("check.json"), &json)?;
        let page = out.join("check.html");
        let shown = shown(&checked)?;
        write_whole(&page, &CheckPage { report: report.clone(), shown }.render())?;
        output::line(&format!("\nopen {} to see them", page.display()));
    }
    if report.stops() {
        bail!(
            "{} would end a training; mend them, or leave them out with data.on_error = \"skip\"",
            plural(report.problems.len(), "problem")
        );
    }
    Ok(())
}

/// Sample images, evenly spread over the dataset, with their texts.
fn shown(checked: &CheckOutcome) -> Result<Vec<CheckSample>> {
    let samples = &checked.samples;
    let step = samples.len().div_ceil(MAX_SHOWN).max(1);
    let chosen: Vec<_> = samples.iter().step_by(step).cloned().collect();
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let dataset = Dataset::new(chosen, Decode::OnUse)?;
    let mut out = Vec::new();
    for index in 0..dataset.len() {
        let sample = dataset.sample(index)?;
        // Undecodable images stand in the list of problems.
        let Ok(image) = dataset.image(index) else { continue };
        let mut words = sample.captions.clone();
        if let Some(question) = &sample.question {
            let answers: Vec<&str> = question.answers.iter().map(|(a, _)| a.as_str()).collect();
            words.push(format!("{} {}", question.text, answers.join(" / ")));
        }
        out.push(CheckSample { image: thumbnail(&image, &sample.key)?, words });
    }
    Ok(out)
}

fn print(report: &Report) {
    let mut table = Table::new(["", "samples", "captions", "questions"]);
    for (name, part) in &report.parts {
        let numbers = [part.samples, part.captions, part.questions].map(|n| count(n as u64));
        table.row(std::iter::once(name.clone()).chain(numbers));
    }
    table.print();
    output::line("");
    let lengths = &report.lengths;
    let mut table = Table::new(["found", "count"]);
    for (name, number) in [
        ("images", report.images),
        ("clips", report.clips),
        ("problems that would end a training", report.problems.len()),
        ("the same image in two splits", report.same_image.leaks.len()),
        ("the same caption in two splits", report.same_caption.leaks.len()),
        ("files that are there several times", report.same_image.duplicates.len()),
        ("captions of several images", report.same_caption.duplicates.len()),
    ] {
        table.row([name.to_owned(), count(number as u64)]);
    }
    let tiny = format!("images with a side below {MIN_SIDE} pixels");
    table.row([tiny, count(report.tiny.len() as u64)]);
    let cut = format!("texts longer than {} tokens", lengths.limit);
    let of_all = share(lengths.cut as u64, lengths.texts() as u64);
    table.row([cut, format!("{} ({of_all})", count(lengths.cut as u64))]);
    let unknown = &report.unknown;
    table.row([
        "tokens outside of the vocabulary".to_owned(),
        format!(
            "{} ({})",
            count(unknown.unknown as u64),
            share(unknown.unknown as u64, unknown.tokens as u64)
        ),
    ]);
    table.print();
    if unknown.scripts.len() > 1 || unknown.unknown > 0 {
        output::line("");
        let mut table = Table::new(["script", "words", "tokens", "[UNK]"]);
        for script in &unknown.scripts {
            table.row([
                script.script.clone(),
                count(script.words as u64),
                count(script.tokens as u64),
                share(script.unknown as u64, script.tokens as u64),
            ]);
        }
        table.print();
    }
    list("problems", report.problems.iter().map(ToString::to_string));
    list("the same image in two splits", report.same_image.leaks.iter().map(members));
    let words =
        |group: &DuplicateGroup| format!("\"{}\": {}", quoting(&group.shared), members(group));
    list("the same caption in two splits", report.same_caption.leaks.iter().map(words));
}

fn members(group: &DuplicateGroup) -> String {
    group.members.join(" = ")
}

/// Prints the first lines of a list, escaped: they quote data, which must not move the cursor.
fn list(heading: &str, lines: impl ExactSizeIterator<Item = String>) {
    let more = lines.len().saturating_sub(MAX_LISTED);
    if lines.len() > 0 {
        output::line(&format!("\n{heading}:"));
    }
    for line in lines.take(MAX_LISTED) {
        output::line(&format!("  {}", printable(&line)));
    }
    if more > 0 {
        output::line(&format!("  and {} more; --out writes all", count(more as u64)));
    }
}

fn plural(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number as u64), if number == 1 { "" } else { "s" })
}
