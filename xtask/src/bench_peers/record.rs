//! The record: every run that counted, a line each, in one CSV file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::outcome::{Case, Checkpointing, Machine, Outcome, Pair, Row};

/// The columns, in order. The ceiling is in 10^9 operations a second.
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

fn header() -> String {
    format!("{}\n", COLUMNS.join(","))
}

/// That rows can be appended to this file: it is not there, or has these columns and whole lines.
///
/// # Errors
/// A file of another kind.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    old(path).map(drop)
}

fn old(path: &Path) -> anyhow::Result<Vec<u8>> {
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let whole = old.starts_with(header().as_bytes()) && old.ends_with(b"\n");
    ensure!(
        old.is_empty() || whole,
        "{}: its first line is not {}, or its last is cut; it is left as it is",
        path.display(),
        header().trim_end()
    );
    Ok(old)
}

/// Appends the pairs of a case, all of them or none: the file is written anew beside its place and renamed.
///
/// # Errors
/// As [`check`]; what the system reports.
pub(super) fn append(
    path: &Path,
    machine: &Machine,
    attention: &str,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let mut text = old(path)?;
    if text.is_empty() {
        text.extend(header().as_bytes());
    }
    let told = |program, arguments: &[&str]| {
        output(program, arguments).unwrap_or_else(|| "unknown".to_owned())
    };
    let (date, rustc) = (told("date", &["-u", "+%FT%TZ"]), told("rustc", &["--version"]));
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    let mut writer = csv::Writer::from_writer(text);
    let case = &outcome.case;
    let note = format!("attention {attention}, checkpoint {}", super::name(&case.checkpoint));
    for (number, pair) in (1..).zip(&outcome.pairs) {
        for (which, (side, seconds)) in
            [("aurora", pair.ours), ("pytorch", pair.theirs)].into_iter().enumerate()
        {
            writer.write_record([
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
            ])?;
        }
    }
    let text = writer.into_inner().context("cannot finish the record")?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&text)?;
    aside.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Of every case the newest that the record has of this machine, in the order of rows.
///
/// # Errors
/// A file that cannot be read; a line that this program did not write.
pub(super) fn latest(path: &Path, machine: &Machine) -> anyhow::Result<Vec<Outcome>> {
    let text = old(path)?;
    let mut found: BTreeMap<String, (String, Outcome)> = BTreeMap::new();
    for (index, line) in csv::Reader::from_reader(text.as_slice()).records().enumerate() {
        let line = line.with_context(|| path.display().to_string())?;
        let whole = read(&line, machine);
        let place = || format!("{}, line {}", path.display(), index + 2);
        let Some((date, half)) = whole.with_context(place)? else { continue };
        let key = half.case.to_string();
        match found.get_mut(&key) {
            Some((of, outcome)) if *of == date => outcome.join(half),
            Some((of, _)) if *of > date => {}
            _ => {
                found.insert(key, (date, half));
            }
        }
    }
    let mut outcomes: Vec<Outcome> = found.into_values().map(|(_, outcome)| outcome).collect();
    outcomes.sort_by_key(|outcome| {
        let case = &outcome.case;
        // f32 before bf16, as they are given.
        let order = case.precision != "f32";
        (order, case.row, case.size, case.batch, case.checkpoint)
    });
    Ok(outcomes)
}

/// A line as an outcome that knows one side of one pair, with its date; none of another machine.
fn read(line: &csv::StringRecord, machine: &Machine) -> anyhow::Result<Option<(String, Outcome)>> {
    let text = |name: &str| -> anyhow::Result<&str> {
        let at = COLUMNS.iter().position(|column| *column == name);
        at.and_then(|at| line.get(at)).with_context(|| format!("it has no {name}"))
    };
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
        row: Row::named(row).with_context(|| format!("there is no row {row}"))?,
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

/// The commit, with a `+` where files differ from it; what was appended before is no difference.
fn commit() -> Option<String> {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let places = ["--", ":/", ":!/benches/results", ":!/docs"];
    let changed = output("git", &[&["status", "--porcelain"][..], &places[..]].concat())?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(crate::workspace_root()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Row;
    use super::super::outcome::tests::{machine, outcome};
    use super::*;

    #[test]
    fn every_run_is_a_line_below_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/peers.csv");
        for _ in 0..2 {
            append(&path, &machine(), "fused", &outcome(Row::A)).unwrap();
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
        for row in [Row::DText, Row::A, Row::C] {
            append(&path, &machine(), "fused", &outcome(row)).unwrap();
        }
        // Another way of row c is another case; another machine's rows are left out.
        let mut block = outcome(Row::C);
        block.case.checkpoint = Checkpointing::Block;
        append(&path, &machine(), "fused", &block).unwrap();
        let other = Machine { device: "another".to_owned(), ..machine() };
        append(&path, &other, "fused", &outcome(Row::B)).unwrap();
        // An older one, as if written before.
        let text = fs::read_to_string(&path).unwrap();
        let older: String = text
            .lines()
            .filter(|line| line.contains(",a,224"))
            .map(|line| format!("2001-01-01T00:00:00Z{}\n", &line[20..]).replace(",1.0", ",5.0"))
            .collect();
        fs::write(&path, format!("{text}{older}")).unwrap();
        let expected = [outcome(Row::A), outcome(Row::C), block, outcome(Row::DText)];
        assert_eq!(latest(&path, &machine()).unwrap(), expected);
        fs::write(&path, text.replace(",224,", ",big,")).unwrap();
        let error = format!("{:#}", latest(&path, &machine()).unwrap_err());
        assert!(error.contains("line 2: its size is no number"), "{error}");
    }

    #[test]
    fn a_file_with_other_columns_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.csv");
        check(&path).unwrap();
        for text in ["a,b\n1,2\n".to_owned(), header().trim_end().to_owned()] {
            fs::write(&path, &text).unwrap();
            assert!(append(&path, &machine(), "", &outcome(Row::A)).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
