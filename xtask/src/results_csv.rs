//! CSV records of measurements; the rows of a run are appended all or none.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Content of a record to which rows of these columns can be appended; empty if it does not exist.
///
/// # Errors
/// A file with other columns, or whose last line is cut.
pub(crate) fn read(path: &Path, columns: &[&str]) -> anyhow::Result<Vec<u8>> {
    let header = columns.join(",");
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let whole = old.starts_with(format!("{header}\n").as_bytes()) && old.ends_with(b"\n");
    ensure!(
        old.is_empty() || whole,
        "{}: its first line is not {header}, or its last is cut; it is left as it is",
        path.display(),
    );
    Ok(old)
}

/// Appends rows atomically: the file is rewritten beside its place and renamed.
///
/// # Errors
/// As [`read`]; the error of the system.
pub(crate) fn append<const N: usize>(
    path: &Path,
    columns: &[&str; N],
    rows: &[[String; N]],
) -> anyhow::Result<()> {
    let mut text = read(path, columns)?;
    if text.is_empty() {
        text.extend(format!("{}\n", columns.join(",")).as_bytes());
    }
    let mut writer = csv::Writer::from_writer(text);
    for row in rows {
        writer.write_record(row)?;
    }
    let text = writer.into_inner().context("cannot finish the record")?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&text)?;
    aside.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Current time in UTC.
pub(crate) fn date() -> String {
    output("date", &["-u", "+%FT%TZ"]).unwrap_or_else(unknown)
}

/// Version of the compiler.
pub(crate) fn rustc() -> String {
    output("rustc", &["--version"]).unwrap_or_else(unknown)
}

/// Commit hash, with a `+` if files differ from it, appended records aside.
pub(crate) fn commit() -> String {
    let Some(commit) = output("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return unknown();
    };
    let places = ["--", ":/", ":!/benches/results", ":!/docs"];
    match output("git", &[&["status", "--porcelain"][..], &places[..]].concat()) {
        None => unknown(),
        Some(changed) if changed.is_empty() => commit,
        Some(_) => format!("{commit}+"),
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(crate::workspace_root()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_other_columns_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/peers.csv");
        let columns = ["row", "seconds"];
        let rows = [["a".to_owned(), "1,5".to_owned()]];
        assert!(read(&path, &columns).unwrap().is_empty());
        for _ in 0..2 {
            append(&path, &columns, &rows).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "row,seconds\na,\"1,5\"\na,\"1,5\"\n");
        for text in ["a,b\n1,2\n", "row,seconds"] {
            fs::write(&path, text).unwrap();
            assert!(append(&path, &columns, &rows).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
