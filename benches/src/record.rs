//! Recorded results: one CSV file for each target, a line for each case and run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{Error, Result};

use crate::case::Measured;
use crate::roofline::Roofline;

/// Columns, in order. Ceilings are in 10^9 per second; share is of the roofline, 1 at most unless data stayed in a
/// cache.
pub const COLUMNS: [&str; 18] = [
    "date",
    "commit",
    "aurora",
    "rustc",
    "device",
    "threads",
    "target",
    "name",
    "shape",
    "type",
    "median_ns",
    "operations",
    "bytes",
    "product_gflops",
    "copy_gbs",
    "bound",
    "share",
    "note",
];

/// Provenance of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Time of writing, UTC.
    pub date: String,
    /// Commit hash, with a `+` if files differed from it.
    pub commit: String,
    /// Compiler version.
    pub rustc: String,
    /// Note for the reader (`AURORA_BENCH_NOTE`).
    pub note: String,
}

/// Path of a target's results: in the folder `AURORA_BENCH_RESULTS`, else in `results` of this package.
pub fn results(target: &str) -> PathBuf {
    let folder = std::env::var_os("AURORA_BENCH_RESULTS").map(PathBuf::from);
    folder.unwrap_or_else(|| package().join("results")).join(format!("{target}.csv"))
}

/// Folder of this package as cargo names it while it runs a bench; a binary that was carried elsewhere has none.
fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

impl Record {
    /// Provenance of this run. Where binaries are carried to a machine without git and a compiler,
    /// `AURORA_BENCH_COMMIT` and `AURORA_BENCH_RUSTC` say what they were made from.
    pub fn here() -> Self {
        let now = jiff::Timestamp::now();
        let told = |variable: &str, found: fn() -> Option<String>| {
            let set = std::env::var(variable).ok().or_else(found);
            set.unwrap_or_else(|| "unknown".to_owned())
        };
        Self {
            date: now.round(jiff::Unit::Second).unwrap_or(now).to_string(),
            commit: told("AURORA_BENCH_COMMIT", commit),
            rustc: told("AURORA_BENCH_RUSTC", || output("rustc", &["--version"])),
            note: std::env::var("AURORA_BENCH_NOTE").unwrap_or_default(),
        }
    }

    /// Appends the rows to a file, all of them or none: the file is written anew beside its place and renamed.
    ///
    /// # Errors
    /// A file with other columns, which is left as it is; the error of the system.
    pub fn append(
        &self,
        path: &Path,
        target: &str,
        roofline: &Roofline,
        rows: &[Measured],
    ) -> Result<()> {
        let at = |error: &dyn std::fmt::Display| Error::msg(format!("{}: {error}", path.display()));
        let old = match std::fs::read(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at(&error)),
        };
        let header = format!("{}\n", COLUMNS.join(","));
        let whole = old.starts_with(header.as_bytes()) && old.ends_with(b"\n");
        if !(old.is_empty() || whole) {
            return Err(at(&format!("its first line is not {}", header.trim_end())));
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.write_record(self.line(target, roofline, row)).map_err(|error| at(&error))?;
        }
        let new = writer.into_inner().map_err(|error| at(&error))?;

        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| at(&error))?;
        let mut aside = tempfile::NamedTempFile::new_in(folder).map_err(|error| at(&error))?;
        let before = if old.is_empty() { header.as_bytes() } else { &old };
        for part in [before, &new] {
            aside.write_all(part).map_err(|error| at(&error))?;
        }
        aside.persist(path).map_err(|error| at(&error))?;
        Ok(())
    }

    fn line(&self, target: &str, roofline: &Roofline, row: &Measured) -> [String; COLUMNS.len()] {
        [
            self.date.clone(),
            self.commit.clone(),
            env!("CARGO_PKG_VERSION").to_owned(),
            self.rustc.clone(),
            roofline.device.clone(),
            roofline.threads.to_string(),
            target.to_owned(),
            row.name.clone(),
            row.shape.clone(),
            row.element.name().to_owned(),
            row.median.as_nanos().to_string(),
            row.cost.operations.to_string(),
            row.cost.bytes.to_string(),
            format!("{:.1}", roofline.operations / 1e9),
            format!("{:.1}", roofline.bytes / 1e9),
            row.bound(roofline).name().to_owned(),
            format!("{:.3}", row.share(roofline)),
            self.note.clone(),
        ]
    }
}

fn commit() -> Option<String> {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    // Rows appended before, by another target of the same run, are no change of what is measured.
    let changed = output("git", &["status", "--porcelain", "--", ":/", ":!/benches/results"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(package()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aurora_kernels::cuda::Element;

    use super::*;
    use crate::cost::Cost;

    fn record() -> Record {
        let [date, commit, rustc, note] =
            ["2026-01-02T03:04:05Z", "abc", "rustc 1", "with \"quotes\", and a comma"]
                .map(str::to_owned);
        Record { date, commit, rustc, note }
    }

    fn append(path: &Path) -> Result<()> {
        let roofline =
            Roofline { device: "a, device".to_owned(), threads: 2, operations: 4e9, bytes: 2e9 };
        let row = Measured {
            name: "site/copy".to_owned(),
            shape: "n=8".to_owned(),
            element: Element::F32,
            cost: Cost { operations: 1, bytes: 1_000_000 },
            median: Duration::from_millis(1),
        };
        record().append(path, "norm", &roofline, &[row.clone(), row])
    }

    #[test]
    fn rows_are_appended_below_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/norm.csv");
        append(&path).unwrap();
        append(&path).unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        assert_eq!(reader.headers().unwrap(), COLUMNS.as_slice());
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 4);
        for row in rows {
            assert_eq!((&row[4], &row[10], &row[12]), ("a, device", "1000000", "1000000"));
            assert_eq!((&row[15], &row[16]), ("memory", "0.500"));
            assert_eq!(&row[17], "with \"quotes\", and a comma");
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_other_columns_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("norm.csv");
        for text in ["a,b\n1,2\n".to_owned(), COLUMNS.join(",")] {
            std::fs::write(&path, &text).unwrap();
            let message = append(&path).unwrap_err().to_string();
            assert!(message.contains("norm.csv: its first line is not date,commit"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
