//! Table of a target: the time of each case and its share of the roofline.

use std::fmt::Write;
use std::time::Duration;

use crate::case::Measured;
use crate::roofline::Roofline;

/// Formats a head with the ceilings, then a line for each case.
pub fn table(target: &str, roofline: &Roofline, rows: &[Measured]) -> String {
    let width = |of: fn(&Measured) -> usize| rows.iter().map(of).max().unwrap_or(0).max(5);
    let (name, shape) = (width(|row| row.name.len()), width(|row| row.shape.len()));
    let threads = match roofline.threads {
        0 => String::new(),
        1 => ", 1 thread".to_owned(),
        threads => format!(", {threads} threads"),
    };
    let mut text = format!(
        "\n{target} on {}{threads}; measured beside it: product {:.1} GFLOP/s, copy {:.1} GB/s (read and written)\n",
        roofline.device,
        roofline.operations / 1e9,
        roofline.bytes / 1e9
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:name$}  {:shape$}  {:4}  {:>10}  {:>8}  {:>7}  {:7}  {:>8}",
        "row", "shape", "type", "median", "GFLOP/s", "GB/s", "bound", "roofline"
    );
    for row in rows {
        let share = row.share(roofline);
        let _ = writeln!(
            text,
            "{:name$}  {:shape$}  {:4}  {:>10}  {:8.1}  {:7.1}  {:7}  {:6.1} %{}",
            row.name,
            row.shape,
            row.element.name(),
            readable(row.median),
            row.giga_operations(),
            row.giga_bytes(),
            row.bound(roofline).name(),
            100.0 * share,
            if share > 1.0 { " (in cache)" } else { "" }
        );
    }
    text
}

/// Formats a duration with four digits in the unit that suits.
fn readable(time: Duration) -> String {
    let nanoseconds = time.as_nanos() as f64;
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = match value {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use aurora_kernels::cuda::Element;

    use super::*;
    use crate::cost::Cost;

    #[test]
    fn a_row_prints_its_share_of_the_roofline() {
        let roofline =
            Roofline { device: "a device".to_owned(), threads: 2, operations: 1e9, bytes: 1e9 };
        let row = Measured {
            name: "site/copy".to_owned(),
            shape: "n=8".to_owned(),
            element: Element::F32,
            cost: Cost { operations: 1_000, bytes: 1_000_000 },
            median: Duration::from_millis(4),
        };
        let fast = Measured { median: Duration::from_micros(500), ..row.clone() };
        let text = table("norm", &roofline, &[row, fast]);
        assert!(text.contains("a device, 2 threads"), "{text}");
        assert!(text.contains("4.000 ms"), "{text}");
        assert!(text.contains("memory     25.0 %\n"), "{text}");
        assert!(text.contains("200.0 % (in cache)"), "{text}");
    }

    #[test]
    fn times_have_four_digits() {
        let readable = |nanoseconds| readable(Duration::from_nanos(nanoseconds));
        assert_eq!(readable(999), "999.0 ns");
        assert_eq!(readable(1_234), "1.234 us");
        assert_eq!(readable(45_678_901), "45.68 ms");
        assert_eq!(readable(2_000_000_000), "2.000 s");
    }
}
