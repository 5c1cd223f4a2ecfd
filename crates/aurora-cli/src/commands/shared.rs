//! What several commands say in the same words.

use aurora_train::recall::RetrievalReport;

use crate::output::Table;

/// The table every command shows recall in: one line per model.
pub fn recall_table(lines: &[(&str, &RetrievalReport)]) -> Table {
    let mut table =
        Table::new(["recall, %", "text R@1", "R@5", "R@10", "picture R@1", "R@5", "R@10", "mean"]);
    for (name, report) in lines {
        let (i2t, t2i) = (report.i2t, report.t2i);
        let values = [i2t.r1, i2t.r5, i2t.r10, t2i.r1, t2i.r5, t2i.r10, report.mean()];
        let cells = values.iter().map(|value| format!("{value:.1}"));
        table.row(std::iter::once((*name).to_owned()).chain(cells));
    }
    table
}
