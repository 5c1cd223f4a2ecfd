//! CSV record: one line per measured run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use super::outcome::{Benchmark, Case, Checkpointing, Machine, Outcome, Pair};
use crate::results_csv;

/// Columns, in order. The ceiling is in 10^9 operations per second.
const COLUMNS: [&str; 18] = [
    "date",
    "commit",
    "aurora",
    "rustc",
    "peers",
    "device",
    "threads",
    "row",
    "size",
    "batch",
    "type",
    "side",
    "pair",
    "seconds",
    "peak_bytes",
    "operations",
    "product_gflops",
    "note",
];

/// Checks that rows can be appended to this file: it does not exist, or has these columns and whole lines.
///
/// # Errors
/// A file of another kind.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    results_csv::read(path, &COLUMNS).map(drop)
}

/// Appends the pairs of a case, all of them or none.
///
/// # Errors
/// As [`check`]; the error of the system.
pub(super) fn append(
    path: &Path,
    machine: &Machine,
    attention: &str,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let (date, rustc, commit) = (results_csv::date(), results_csv::rustc(), results_csv::commit());
    let mut rows = Vec::new();
    let case = &outcome.case;
    let note = format!("attention {attention}, checkpoint {}", super::name(&case.checkpoint));
    for (number, pair) in (1..).zip(&outcome.pairs) {
        for (which, (side, seconds)) in
            [("aurora", pair.ours), ("pytorch", pair.theirs)].into_iter().enumerate()
        {
            let row = [
                date.as_str(),
                &commit,
                env!("CARGO_PKG_VERSION"),
                &rustc,
                &machine.versions,
                &machine.device,
                super::THREADS,
                case.row.argument(),
                &case.size.to_string(),
                &case.batch.to_string(),
                &case.precision,
                side,
                &format!("{number}"),
                &format!("{seconds:.6}"),
                &outcome.peaks[which].to_string(),
                &outcome.operations[which].to_string(),
                &format!("{:.1}", outcome.ceiling / 1e9),
                &note,
            ];
            rows.push(row.map(str::to_owned));
        }
    }
    results_csv::append(path, &COLUMNS, &rows)
}

/// Newest run of a case.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) date: String,
    pub(super) commit: String,
    pub(super) outcome: Outcome,
}

/// Machines of a record, in the order of their first rows.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn machines(path: &Path) -> anyhow::Result<Vec<Machine>> {
    let text = results_csv::read(path, &COLUMNS)?;
    let mut found = Vec::new();
    for line in csv::Reader::from_reader(text.as_slice()).records() {
        let line = line.with_context(|| path.display().to_string())?;
        let [device, versions] = ["device", "peers"].map(|name| cell(&line, name));
        let machine = Machine { device: device?.to_owned(), versions: versions?.to_owned() };
        if !found.contains(&machine) {
            found.push(machine);
        }
    }
    Ok(found)
}

/// Text in a column.
fn cell<'a>(line: &'a csv::StringRecord, name: &str) -> anyhow::Result<&'a str> {
    let at = COLUMNS.iter().position(|column| *column == name);
    at.and_then(|at| line.get(at)).with_context(|| format!("it has no {name}"))
}

/// Newest run of every case on this machine, in the order of the benchmarks.
///
/// # Errors
/// A file that cannot be read; a line that this program did not write.
pub(super) fn latest(path: &Path, machine: &Machine) -> anyhow::Result<Vec<Outcome>> {
    Ok(newest(path, machine)?.into_iter().map(|newest| newest.outcome).collect())
}

/// Reads as [`latest`] does, with dates and commits.
///
/// # Errors
/// As [`latest`].
pub(super) fn newest(path: &Path, machine: &Machine) -> anyhow::Result<Vec<Newest>> {
    let text = results_csv::read(path, &COLUMNS)?;
    let mut found: BTreeMap<String, Newest> = BTreeMap::new();
    for (index, line) in csv::Reader::from_reader(text.as_slice()).records().enumerate() {
        let line = line.with_context(|| path.display().to_string())?;
        let whole = read(&line, machine);
        let place = || format!("{}, line {}", path.display(), index + 2);
        let Some((date, half)) = whole.with_context(place)? else { continue };
        let key = half.case.to_string();
        match found.get_mut(&key) {
            Some(newest) if newest.date == date => newest.outcome.join(half),
            Some(newest) if newest.date > date => {}
            _ => {
                let commit = cell(&line, "commit").with_context(place)?.to_owned();
                found.insert(key, Newest { date, commit, outcome: half });
            }
        }
    }
    let mut outcomes: Vec<Newest> = found.into_values().collect();
    outcomes.sort_by_key(|newest| {
        let case = &newest.outcome.case;
        // f32 before bf16, as they are given.
        let order = case.precision != "f32";
        (order, case.row, case.size, case.batch, case.checkpoint)
    });
    Ok(outcomes)
}

/// Parses a line as one side of one pair, with its date; `None` for another machine.
fn read(line: &csv::StringRecord, machine: &Machine) -> anyhow::Result<Option<(String, Outcome)>> {
    let text = |name: &str| cell(line, name);
    let number = |name: &str| -> anyhow::Result<f64> {
        text(name)?.parse().with_context(|| format!("its {name} is no number"))
    };
    if text("device")? != machine.device || text("peers")? != machine.versions {
        return Ok(None);
    }
    let row = text("row")?;
    let checkpoint = match text("note")?.ends_with("checkpoint block") {
        true => Checkpointing::Block,
        false => Checkpointing::None,
    };
    let case = Case {
        row: Benchmark::named(row).with_context(|| format!("there is no row {row}"))?,
        size: number("size")? as usize,
        batch: number("batch")? as usize,
        precision: text("type")?.to_owned(),
        checkpoint,
    };
    let (seconds, peak) = (number("seconds")?, number("peak_bytes")? as u64);
    let operations = number("operations")? as u64;
    let (pair, peaks, operations) = match text("side")? {
        "aurora" => (Pair { ours: seconds, theirs: 0.0 }, [peak, 0], [operations, 0]),
        _ => (Pair { ours: 0.0, theirs: seconds }, [0, peak], [0, operations]),
    };
    let ceiling = number("product_gflops")? * 1e9;
    let outcome = Outcome { case, pairs: vec![pair], peaks, operations, ceiling };
    Ok(Some((text("date")?.to_owned(), outcome)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::outcome::tests::{machine, outcome};
    use super::*;

    #[test]
    fn every_run_is_a_line_below_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/peers.csv");
        for _ in 0..2 {
            append(&path, &machine(), "fused", &outcome(Benchmark::A)).unwrap();
        }
        let mut reader = csv::Reader::from_path(&path).unwrap();
        assert_eq!(reader.headers().unwrap().len(), COLUMNS.len());
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 2 * 3 * 2);
        assert_eq!((&rows[1][5], &rows[1][7], &rows[1][11]), ("a, processor", "a", "pytorch"));
        assert_eq!((&rows[3][12], &rows[3][13]), ("2", "12.000000"));
        assert_eq!((&rows[0][14], &rows[1][14]), ("1073741824", "2147483648"));
        assert_eq!((&rows[0][16], &rows[0][17]), ("100.0", "attention fused, checkpoint none"));
    }

    #[test]
    fn the_newest_of_every_case_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.csv");
        assert!(latest(&path, &machine()).unwrap().is_empty());
        for row in [Benchmark::DText, Benchmark::A, Benchmark::C] {
            append(&path, &machine(), "fused", &outcome(row)).unwrap();
        }
        // Another checkpointing of benchmark c is another case; rows of another machine are left out.
        let mut block = outcome(Benchmark::C);
        block.case.checkpoint = Checkpointing::Block;
        append(&path, &machine(), "fused", &block).unwrap();
        let other = Machine { device: "another".to_owned(), ..machine() };
        append(&path, &other, "fused", &outcome(Benchmark::B)).unwrap();
        // An older one, as if written before.
        let text = fs::read_to_string(&path).unwrap();
        let older: String = text
            .lines()
            .filter(|line| line.contains(",a,224"))
            .map(|line| format!("2001-01-01T00:00:00Z{}\n", &line[20..]).replace(",1.0", ",5.0"))
            .collect();
        fs::write(&path, format!("{text}{older}")).unwrap();
        let expected =
            [outcome(Benchmark::A), outcome(Benchmark::C), block, outcome(Benchmark::DText)];
        assert_eq!(latest(&path, &machine()).unwrap(), expected);
        fs::write(&path, text.replace(",224,", ",big,")).unwrap();
        let error = format!("{:#}", latest(&path, &machine()).unwrap_err());
        assert!(error.contains("line 2: its size is no number"), "{error}");
    }
}
