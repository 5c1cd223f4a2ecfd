//! The record: every run that counted, a line each, in one CSV file.

use std::path::Path;

use super::outcome::{Ceiling, Outcome};
use crate::record;

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

/// That rows can be appended to this file: it is not there, or has these columns and whole lines.
///
/// # Errors
/// A file of another kind.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    record::check(path, &COLUMNS)
}

/// Appends the pairs of these cases, all of them or none.
///
/// # Errors
/// As [`check`]; what the system reports.
pub(super) fn append(
    path: &Path,
    ceiling: &Ceiling,
    note: &str,
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    let (date, rustc) = (record::date(), record::rustc());
    let commit = record::commit();
    let mut rows = Vec::new();
    for outcome in outcomes {
        let case = &outcome.case;
        for (number, pair) in (1..).zip(&outcome.pairs) {
            for (side, seconds) in [("aurora", pair.ours), ("pytorch", pair.theirs)] {
                let which = usize::from(side == "pytorch");
                rows.push(
                    [
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
                    ]
                    .map(str::to_owned),
                );
            }
        }
    }
    record::append(path, &COLUMNS, &rows)
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
}
