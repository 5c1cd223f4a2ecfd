//! Summary of the record: ratios of time and memory, one table per machine and element type.

use std::path::Path;

use super::outcome::{Benchmark, Checkpointing, Outcome};
use super::results::{self, Newest};

/// Summarizes a record, machines with the newest runs first.
///
/// # Errors
/// A record that cannot be read.
pub(crate) fn summary(path: &Path) -> anyhow::Result<String> {
    let mut machines = Vec::new();
    for machine in results::machines(path)? {
        let newest = results::newest(path, &machine)?;
        let last = newest.iter().map(|run| run.date.clone()).max().unwrap_or_default();
        machines.push((last, machine, newest));
    }
    machines.sort_by(|a, b| b.0.cmp(&a.0));
    let mut text = String::new();
    for (_, machine, newest) in machines {
        for precision in ["f32", "bf16"] {
            let of: Vec<&Newest> = newest.iter().filter(|run| counts(run, precision)).collect();
            if !of.is_empty() {
                text.push_str(&table(&of));
                text.push_str(&format!(
                    "\n{precision}, {}, {} threads; {}; {}.\n\n",
                    machine.device,
                    super::THREADS,
                    machine.versions,
                    origin(&of)
                ));
            }
        }
    }
    Ok(text)
}

/// Minimum number of pairs for a range; cases with fewer stand in the record alone.
const LEAST_PAIRS: usize = 3;

fn counts(run: &Newest, precision: &str) -> bool {
    run.outcome.case.precision == precision && run.outcome.pairs.len() >= LEAST_PAIRS
}

/// Summary table: a line per pass, three columns per image size, a value per batch size.
fn table(runs: &[&Newest]) -> String {
    let mut sizes: Vec<usize> = runs.iter().map(|run| run.outcome.case.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut head = vec!["pass".to_owned(), "batch".to_owned()];
    for size in &sizes {
        head.extend([format!("{size} px: time (range)"), "memory".into(), "of ceiling, %".into()]);
    }
    let mut passes: Vec<(Benchmark, Checkpointing)> =
        runs.iter().map(|run| &run.outcome.case).map(|case| (case.row, case.checkpoint)).collect();
    passes.sort_unstable();
    passes.dedup();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("{}|{}\n", line(&head), "---|".repeat(head.len()));
    for (row, checkpoint) in passes {
        let of: Vec<&Outcome> = runs
            .iter()
            .map(|run| &run.outcome)
            .filter(|outcome| (outcome.case.row, outcome.case.checkpoint) == (row, checkpoint))
            .collect();
        let mut batches: Vec<usize> = of.iter().map(|outcome| outcome.case.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        let names: Vec<String> = batches.iter().map(ToString::to_string).collect();
        let mut cells = vec![title(row, checkpoint).to_owned(), names.join(", ")];
        for size in &sizes {
            let mut columns: [Vec<String>; 3] = Default::default();
            for batch in &batches {
                let found = of
                    .iter()
                    .find(|outcome| (outcome.case.size, outcome.case.batch) == (*size, *batch));
                let values =
                    found.map_or_else(|| [(); 3].map(|()| "-".to_owned()), |of| ratios(of));
                for (column, value) in columns.iter_mut().zip(values) {
                    column.push(value);
                }
            }
            cells.extend(columns.map(|column| column.join(", ")));
        }
        text.push_str(&line(&cells));
    }
    text
}

/// Time ratio with its range, memory ratio, share of the ceiling in percent.
fn ratios(outcome: &Outcome) -> [String; 3] {
    let [ratio, least, greatest] = outcome.ratio();
    [
        format!("{ratio:.2} ({least:.2} to {greatest:.2})"),
        format!("{:.2}", outcome.memory_ratio()),
        format!("{:.0}", 100.0 * outcome.floor() / outcome.seconds()[0]),
    ]
}

fn title(benchmark: Benchmark, checkpoint: Checkpointing) -> &'static str {
    match (benchmark, checkpoint) {
        (Benchmark::A, _) => "vision tower, adapted, forward and backward",
        (Benchmark::B, _) => "vision tower, frozen, forward",
        (Benchmark::C, Checkpointing::None) => "retrieval step",
        (Benchmark::C, Checkpointing::Block) => "retrieval step, gradient checkpointing (ours)",
        (Benchmark::DText, _) => "reranking, one text, 128 images",
        (Benchmark::DImage, _) => "reranking, one image, 128 texts",
    }
}

/// Pairs, dates and commits.
fn origin(runs: &[&Newest]) -> String {
    let range = |mut of: Vec<String>| {
        of.sort();
        of.dedup();
        match of.as_slice() {
            [first, .., last] if first != last => format!("{first} to {last}"),
            all => all.first().cloned().unwrap_or_default(),
        }
    };
    let pairs = range(runs.iter().map(|run| run.outcome.pairs.len().to_string()).collect());
    let day = |run: &&Newest| run.date.split('T').next().unwrap_or_default().to_owned();
    let mut commits: Vec<&str> =
        runs.iter().map(|run| run.commit.get(..7).unwrap_or(&run.commit)).collect();
    commits.sort_unstable();
    commits.dedup();
    let commits = match commits.as_slice() {
        [one] => format!("commit {one}"),
        all => format!("{} commits", all.len()),
    };
    format!("{pairs} pairs, {}, {commits}", range(runs.iter().map(day).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::{machine, outcome};
    use super::*;

    #[test]
    fn sizes_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.csv");
        for (row, size, batch, checkpoint) in [
            (Benchmark::C, 224, 4, Checkpointing::None),
            (Benchmark::C, 224, 8, Checkpointing::None),
            (Benchmark::C, 384, 4, Checkpointing::None),
            (Benchmark::C, 224, 4, Checkpointing::Block),
        ] {
            let mut outcome = outcome(row);
            outcome.case.checkpoint = checkpoint;
            (outcome.case.size, outcome.case.batch) = (size, batch);
            results::append(&path, &machine(), "fused", &outcome).unwrap();
        }
        let mut single = outcome(Benchmark::A);
        single.pairs.truncate(1);
        results::append(&path, &machine(), "fused", &single).unwrap();
        let text = summary(&path).unwrap();
        let ratio = "0.50 (0.25 to 0.75)";
        let line = format!(
            "| retrieval step | 4, 8 | {ratio}, {ratio} | 0.50, 0.50 | 50, 50 | {ratio}, - | 0.50, - | 50, - |\n"
        );
        assert!(text.contains(&line), "{text}");
        let one =
            format!("gradient checkpointing (ours) | 4 | {ratio} | 0.50 | 50 | - | - | - |\n");
        assert!(text.contains(&one), "{text}");
        assert!(text.contains("\nf32, a, processor, 2 threads; torch 1; 3 pairs, "), "{text}");
        assert!(!text.contains("bf16") && !text.contains("vision tower"), "{text}");
    }
}
