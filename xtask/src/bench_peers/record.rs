//! The record: every run that counted, a line each, in one CSV file.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::outcome::{Ceiling, Outcome};

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

/// Appends the pairs of these cases, all of them or none: the file is written anew beside its place and renamed.
///
/// # Errors
/// As [`check`]; what the system reports.
pub(super) fn append(
    path: &Path,
    ceiling: &Ceiling,
    note: &str,
    outcomes: &[Outcome],
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
    for outcome in outcomes {
        let case = &outcome.case;
        for (number, pair) in (1..).zip(&outcome.pairs) {
            for (side, seconds) in [("aurora", pair.ours), ("pytorch", pair.theirs)] {
                let which = usize::from(side == "pytorch");
                writer.write_record([
                    date.as_str(),
                    &commit,
                    env!("CARGO_PKG_VERSION"),
                    &rustc,
                    &ceiling.versions,
                    &ceiling.device,
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
                    &format!("{:.1}", ceiling.operations / 1e9),
                    note,
                ])?;
            }
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
    use super::super::outcome::tests::{ceiling, outcome};
    use super::*;

    #[test]
    fn every_run_is_a_line_below_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/peers.csv");
        for _ in 0..2 {
            append(&path, &ceiling(), "attention fused", &[outcome(Row::A)]).unwrap();
        }
        let mut reader = csv::Reader::from_path(&path).unwrap();
        assert_eq!(reader.headers().unwrap().len(), COLUMNS.len());
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 2 * 3 * 2);
        assert_eq!((&rows[1][5], &rows[1][7], &rows[1][11]), ("a, processor", "a", "pytorch"));
        assert_eq!((&rows[3][12], &rows[3][13]), ("2", "12.000000"));
        assert_eq!((&rows[0][14], &rows[1][14]), ("1073741824", "2147483648"));
        assert_eq!((&rows[0][16], &rows[0][17]), ("100.0", "attention fused"));
    }

    #[test]
    fn a_file_with_other_columns_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.csv");
        check(&path).unwrap();
        for text in ["a,b\n1,2\n".to_owned(), header().trim_end().to_owned()] {
            fs::write(&path, &text).unwrap();
            assert!(append(&path, &ceiling(), "", &[outcome(Row::A)]).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
