//! Rule on doc comments: the first line names its subject.

use super::{Finding, Tree};

/// Refused openings: no term stands behind them, so a search for the term finds nothing.
const REFUSED: [&str; 3] = ["What ", "The same ", "That "];

/// No doc comment begins with one of [`REFUSED`].
pub fn doc_comments_begin_with_their_subject(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let mut before = None;
        for (index, line) in text.lines().enumerate() {
            let doc = doc_comment(line);
            let begins = doc.filter(|(kind, _)| before != Some(*kind));
            let refused = begins
                .and_then(|(_, words)| REFUSED.iter().find(|opening| words.starts_with(**opening)));
            if let Some(opening) = refused {
                let message = format!(
                    "the doc comment begins with \"{}\"; begin with the thing, by the term that \
                     the field has for it",
                    opening.trim_end()
                );
                findings.push(Finding::error("opening", path, index + 1, message));
            }
            before = doc.map(|(kind, _)| kind);
        }
    }
    findings
}

/// Marker of a line of documentation, and its words.
fn doc_comment(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    let marked = |marker: &'static str| Some((marker, line.strip_prefix(marker)?.trim_start()));
    marked("//!").or_else(|| marked("///").filter(|_| !line.starts_with("////")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.rs"), text).unwrap();
        let tree = Tree::read(folder.path()).unwrap();
        doc_comments_begin_with_their_subject(&tree).iter().map(|found| found.line).collect()
    }

    #[test]
    fn the_first_line_of_a_comment_is_looked_at() {
        for opening in REFUSED {
            assert_eq!(lines(&format!("//! {opening}it is.\n")), [1], "{opening}");
            assert_eq!(lines(&format!("//! Fine.\n\n/// {opening}it is.\nfn a() {{}}\n")), [3]);
            assert_eq!(
                lines(&format!("    ///{opening}it is.\n    #[b]\n    /// {opening}\n")),
                [1, 3]
            );
            assert_eq!(lines(&format!("/// Fine.\n/// {opening}it is.\n")), [0; 0]);
            assert_eq!(lines(&format!("//! Fine.\n/// {opening}it is.\n")), [2]);
            assert_eq!(lines(&format!("// {opening}it is.\n//// {opening}it is.\n")), [0; 0]);
        }
    }

    #[test]
    fn other_openings_are_free() {
        for opening in ["Whatever ", "Whether ", "The sameness ", "Thatched ", "what "] {
            assert_eq!(lines(&format!("/// {opening}it is.\n")), [0; 0], "{opening}");
        }
    }
}
