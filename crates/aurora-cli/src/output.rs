//! Terminal output. Results go to standard output, so that they can be piped; progress and errors go to standard
//! error. No other file prints.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::exit_code::is_out_of_device_memory;

/// Prints a line of a result. A closed pipe is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line of progress.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints an error and what caused it, each cause once: many messages already end in their cause.
pub fn error(error: &anyhow::Error) {
    note(&error_text(error));
}

fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, "\n  caused by: {cause}");
        }
    }
    if is_out_of_device_memory(&text) && !text.contains("smaller batch") {
        text += "\nthe memory of the GPU is used up: use a smaller batch (data.batch_size), or --device cpu";
    }
    text
}

/// Text table: the first column left-aligned, the others, which hold numbers, right-aligned.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row; it may be shorter than the headings.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Renders the table as lines, with a rule under the headings.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
            if index == 0 {
                let length = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                let _ = writeln!(out, "{}", "-".repeat(length));
            }
        }
        out
    }

    /// Prints the table as a result.
    pub fn print(&self) {
        line(self.render().trim_end());
    }
}

/// Formats a count with thousands separators: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a size in bytes: `401 KB`.
pub fn bytes(value: u64) -> String {
    let value = value as f64;
    match value {
        v if v < 1e3 => format!("{v} bytes"),
        v if v < 1e5 => format!("{:.1} KB", v / 1e3),
        v if v < 1e6 => format!("{:.0} KB", v / 1e3),
        v if v < 1e9 => format!("{:.1} MB", v / 1e6),
        v => format!("{:.1} GB", v / 1e9),
    }
}

/// Formats a duration: `8.3 s`, `2 min 11 s`, `1 h 04 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        w if w < 3600 => format!("{} min {:02} s", w / 60, w % 60),
        w => format!("{} h {:02} min", w / 3600, w % 3600 / 60),
    }
}

/// Formats `part` of `whole` in percent, with two digits below one percent.
pub fn share(part: u64, whole: u64) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    if percent < 1.0 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["", "R@1", "mean"]);
        table.row(["before", "1.3", "5.6"]).row(["after", "10.4"]);
        let lines =
            ["         R@1  mean", "------------------", "before   1.3   5.6", "after   10.4"];
        assert_eq!(table.render().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(12), "12 bytes");
        assert_eq!(bytes(401_234), "401 KB");
        assert_eq!(bytes(12_300_000), "12.3 MB");
        assert_eq!(duration(8.34), "8.3 s");
        assert_eq!(duration(59.99), "1 min 00 s");
        assert_eq!(duration(131.0), "2 min 11 s");
        assert_eq!(duration(3840.0), "1 h 04 min");
        assert_eq!(duration(f64::NAN), "?");
        assert_eq!(share(16, 1000), "1.6 %");
        assert_eq!(share(16, 10_000), "0.16 %");
        assert_eq!(share(1, 0), "100.0 %");
    }

    #[test]
    fn memory_that_ran_out_is_said_in_words() {
        let error = anyhow::anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(
            error_text(&error).ends_with("use a smaller batch (data.batch_size), or --device cpu")
        );
    }

    #[test]
    fn causes_are_told_once() {
        let inner = anyhow::anyhow!("no such file");
        let error = Err::<(), _>(inner).context("cannot read x: no such file").unwrap_err();
        assert_eq!(error_text(&error), "error: cannot read x: no such file");
        let error = error.context("cannot start");
        assert_eq!(
            error_text(&error),
            "error: cannot start\n  caused by: cannot read x: no such file"
        );
    }
}
