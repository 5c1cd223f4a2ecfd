//! Rule on docs/results.md: its tables are those that the records give.

use super::{Finding, Tree};
use crate::results::{PAGE, refresh};

/// The committed page equals the page made anew from the records.
pub fn results_equal_their_records(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.text(PAGE) else { return Vec::new() };
    let new = match refresh(page, &tree.on_disk("")) {
        Ok(new) => new,
        Err(fault) => {
            return vec![Finding::error("results", &fault.path, fault.line, fault.message)];
        }
    };
    if new == page {
        return Vec::new();
    }
    let same = page.lines().zip(new.lines()).take_while(|(old, new)| old == new).count();
    let message = format!(
        "the records in benches/results give here: {:?}; mend the record that is wrong, or run: \
        cargo xtask results",
        new.lines().nth(same).unwrap_or("the end of the page")
    );
    vec![Finding::error("results", PAGE, same + 1, message)]
}
