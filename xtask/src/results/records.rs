//! Records of measurements: CSV files whose cells are looked up by column name.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Fault, RECORDS};

/// Rows of a CSV file.
#[derive(Debug)]
pub(super) struct Records {
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// Row of a record, with its path and line.
#[derive(Debug, Clone)]
pub(super) struct Row {
    path: String,
    line: usize,
    cells: Vec<(String, String)>,
}

impl Records {
    /// Reads `name` in `folder`.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Self, Fault> {
        let path = format!("{RECORDS}/{name}");
        let fault = |line, message: String| Fault::new(&path, line, message);
        let mut reader =
            csv::Reader::from_path(folder.join(name)).map_err(|e| fault(0, e.to_string()))?;
        let head = reader.headers().map_err(|e| fault(1, e.to_string()))?;
        let columns: Vec<String> = head.iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        for row in reader.records() {
            let row = row.map_err(|e| {
                let line = e.position().map_or(0, |position| position.line() as usize);
                fault(line, "the line has another number of cells than the first".to_owned())
            })?;
            let line = row.position().map_or(0, |position| position.line() as usize);
            let cells = columns.iter().cloned().zip(row.iter().map(str::to_owned)).collect();
            rows.push(Row { path: path.clone(), line, cells });
        }
        if rows.is_empty() {
            return Err(fault(0, "the record has no rows".to_owned()));
        }
        Ok(Self { columns, rows })
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Appends the rows of a record with the same columns.
    pub(super) fn extend(&mut self, other: Self) -> Result<(), Fault> {
        if self.columns != other.columns {
            let row = &other.rows[0];
            return Err(Fault::new(&row.path, 1, "the columns differ from the other records'"));
        }
        self.rows.extend(other.rows);
        Ok(())
    }
}

impl Row {
    /// Text in a column.
    pub(super) fn text(&self, column: &str) -> Result<&str, Fault> {
        let found = self.cells.iter().find(|(name, _)| name == column);
        found
            .map(|(_, text)| text.as_str())
            .ok_or_else(|| Fault::new(&self.path, 1, format!("the record has no column {column}")))
    }

    /// Texts in some columns.
    pub(super) fn texts<const N: usize>(&self, columns: [&str; N]) -> Result<[&str; N], Fault> {
        let mut texts = [""; N];
        for (text, column) in texts.iter_mut().zip(columns) {
            *text = self.text(column)?;
        }
        Ok(texts)
    }

    /// Number in a column.
    pub(super) fn number(&self, column: &str) -> Result<f64, Fault> {
        let text = self.text(column)?;
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| self.fault(format!("{column} is {text:?}, no number")))
    }

    /// Fault at this row.
    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(&self.path, self.line, message)
    }
}

/// Groups rows with the same key, in the order in which keys appear.
pub(super) fn groups<'a, K: PartialEq>(
    rows: impl IntoIterator<Item = &'a Row>,
    key: impl Fn(&'a Row) -> Result<K, Fault>,
) -> Result<Vec<(K, Vec<&'a Row>)>, Fault> {
    let mut found: Vec<(K, Vec<&Row>)> = Vec::new();
    for row in rows {
        let key = key(row)?;
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(row),
            None => found.push((key, vec![row])),
        }
    }
    Ok(found)
}

/// Rows with the greatest text in `column`, such as a date.
pub(super) fn newest<'a>(rows: Vec<&'a Row>, column: &str) -> Result<Vec<&'a Row>, Fault> {
    let mut newest = "";
    for row in &rows {
        newest = newest.max(row.text(column)?);
    }
    Ok(rows.into_iter().filter(|row| row.text(column).is_ok_and(|text| text == newest)).collect())
}

/// Origin of the rows: `DATE, commit HASH`, or the range of dates and the commits.
pub(super) fn origin(rows: &[&Row], date: &str) -> Result<String, Fault> {
    let (mut dates, mut commits) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let [date, commit] = row.texts([date, "commit"])?;
        dates.insert(date.split('T').next().unwrap_or(date));
        commits.insert(commit.get(..7).unwrap_or(commit));
    }
    let commits: Vec<&str> = commits.into_iter().collect();
    let dates = match (dates.first(), dates.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (first, _) => first.copied().unwrap_or_default().to_owned(),
    };
    Ok(match commits.len() {
        0 | 1 => format!("{dates}, commit {}", commits.concat()),
        2 | 3 => format!("{dates}, commits {}", commits.join(", ")),
        count => format!("{dates}, {count} commits"),
    })
}

/// Formats a number with its digits in groups of three.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a folder with one record.
    pub(in crate::results) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn read(text: &str) -> Result<Records, Fault> {
        Records::read(folder(&[("x.csv", text)]).path(), "x.csv")
    }

    #[test]
    fn a_fault_names_file_and_line() {
        let records = read("date,value\n2026-01-01,\"1,5\"\n").unwrap();
        let row = &records.rows()[0];
        assert_eq!(
            row.number("value").unwrap_err().to_string(),
            "benches/results/x.csv:2: value is \"1,5\", no number"
        );
        assert!(row.text("other").unwrap_err().to_string().contains("x.csv:1: "));
        assert_eq!(read("a,b\n1,2\n3\n").unwrap_err().line, 3);
        assert_eq!(read("a,b\n").unwrap_err().line, 0);
    }

    #[test]
    fn the_newest_rows_and_where_they_come_from() {
        let records = read("date,commit,k\n1,abcdefghi,x\n2,b,x\n2,a,x\n1,c,y\n").unwrap();
        let all = groups(records.rows(), |row| row.text("k")).unwrap();
        let sizes: Vec<_> = all.iter().map(|(key, rows)| (*key, rows.len())).collect();
        assert_eq!(sizes, [("x", 3), ("y", 1)]);
        assert_eq!(origin(&all[0].1, "date").unwrap(), "1 to 2, commits a, abcdefg, b");
        let newest = newest(all[0].1.clone(), "date").unwrap();
        assert_eq!(origin(&newest, "date").unwrap(), "2, commits a, b");
    }

    #[test]
    fn digits_stand_in_threes() {
        let cases = [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (2_729_508.0, "2,729,508")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}
