//! Plain tables for the terminal.

/// Renders rows as lines, columns two blanks apart: the first `left` columns left-aligned, the others right-aligned.
pub fn render<const COLUMNS: usize>(rows: &[[String; COLUMNS]], left: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "1"], ["longer", "100"]].map(|row| row.map(str::to_owned));
        assert_eq!(render(&rows, 1), "a         1\nlonger  100\n");
        assert_eq!(render(&rows, 2), "a       1\nlonger  100\n");
    }
}
