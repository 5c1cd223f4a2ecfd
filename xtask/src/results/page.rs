//! A page with tables between markers.

use super::{Fault, PAGE};

const OPEN: &str = "<!-- table: ";
const CLOSE: &str = "<!-- /table -->";

/// Replaces the table of each name by `make(index)`.
///
/// # Errors
/// A marker without its other half, a name that is none of `names` or occurs twice, one that does not occur; what
/// `make` says.
pub(super) fn refresh(
    page: &str,
    names: &[&str],
    make: impl Fn(usize) -> Result<String, Fault>,
) -> Result<String, Fault> {
    let mut out = String::with_capacity(page.len());
    let mut made = vec![false; names.len()];
    let mut lines = (1..).zip(page.lines());
    while let Some((number, line)) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let fault = |message: String| Fault::new(PAGE, number, message);
        if line == CLOSE {
            return Err(fault(format!("`{CLOSE}` without the line that opens a table")));
        }
        let Some(name) = line.strip_prefix(OPEN) else { continue };
        let name = name.trim_end_matches("-->").trim();
        let Some(index) = names.iter().position(|known| *known == name) else {
            return Err(fault(format!("no table {name}; there are {}", names.join(", "))));
        };
        if std::mem::replace(&mut made[index], true) {
            return Err(fault(format!("the table {name} stands here a second time")));
        }
        out.push_str(&format!("{}\n{CLOSE}\n", make(index)?.trim()));
        if !lines.by_ref().any(|(_, line)| line == CLOSE) {
            return Err(fault(format!("the table {name} has no line `{CLOSE}`")));
        }
    }
    match names.iter().zip(made).find(|(_, made)| !made) {
        Some((name, _)) => Err(Fault::new(PAGE, 0, format!("no line `{OPEN}{name} -->`"))),
        None => Ok(out),
    }
}

/// Markdown table: head, then rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String; N]| format!("| {} |\n", cells.join(" | "));
    let head = line(&head.map(str::to_owned));
    let rows: String = rows.iter().map(line).collect();
    format!("{head}|{}\n{rows}", "---|".repeat(N))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(page: &str) -> Result<String, String> {
        refresh(page, &["a", "b"], |index| Ok(format!("{index}\n"))).map_err(|f| f.to_string())
    }

    #[test]
    fn tables_are_replaced_and_the_rest_is_kept() {
        let page =
            "x\n<!-- table: b -->\nold\n<!-- /table -->\ny\n<!-- table: a -->\n<!-- /table -->\n";
        let new =
            "x\n<!-- table: b -->\n1\n<!-- /table -->\ny\n<!-- table: a -->\n0\n<!-- /table -->\n";
        assert_eq!(made(page).as_deref(), Ok(new));
        assert_eq!(made(new).as_deref(), Ok(new));
    }

    #[test]
    fn markers_have_to_fit() {
        let whole = "<!-- table: a -->\n<!-- /table -->\n";
        for (page, line) in [
            (whole.replace(": a", ": c"), 1),
            (format!("x\n{whole}{whole}"), 4),
            ("<!-- table: a -->\n".to_owned(), 1),
            (format!("{whole}<!-- /table -->\n"), 3),
            (whole.to_owned(), 0),
        ] {
            let error = made(&page).unwrap_err();
            assert!(error.starts_with(&format!("{PAGE}:{line}: ")), "{page}: {error}");
        }
    }

    #[test]
    fn a_table_has_a_rule_below_its_head() {
        let rows = [["1", "2"].map(str::to_owned)];
        assert_eq!(table(["a", "b"], &rows), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
