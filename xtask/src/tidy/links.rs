//! Rules on documentation: a link leads to a file, a path in code type exists, and the map in `docs/` names types that
//! exist.

use std::collections::BTreeSet;

use super::markdown::{links, spans};
use super::rust_source::code_only;
use super::{Finding, Tree};

/// Every relative link in a Markdown file names a file or folder that exists, inside the repository.
pub fn relative_links_lead_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in links(text) {
            let file = target.split('#').next().unwrap_or("");
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            // rustdoc resolves `crate::Item` in a README that is a crate's documentation, and refuses what is not
            // there.
            if file.contains("::") {
                continue;
            }
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let there = resolve(folder, file).is_some_and(|resolved| tree.exists(&resolved));
            if !there {
                let message = format!(
                    "the link to `{target}` leads nowhere in this repository; mend the path or \
                    drop the link"
                );
                findings.push(Finding::error("link", path, line, message));
            }
        }
    }
    findings
}

/// Every path from the root in code type (`crates/...`), and every Rust file by its name alone, exists.
pub fn quoted_paths_exist(tree: &Tree) -> Vec<Finding> {
    let tops = [
        "crates/", "xtask/", "benches/", "kernels/", "fuzz/", "docs/", "recipes/", ".ci/",
        ".cargo/",
    ];
    let mut findings = Vec::new();
    for (path, text) in tree.current_markdown() {
        for (line, span) in spans(text) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            if !span.chars().all(is_name) {
                continue;
            }
            let there = if tops.iter().any(|top| span.starts_with(top)) {
                tree.exists(span)
            } else if span.ends_with(".rs") && span != ".rs" {
                let end = format!("/{span}");
                tree.rust().any(|(path, _)| path.ends_with(&end))
            } else {
                continue;
            };
            if !there {
                let message = format!("there is no `{span}`; name the file where it is now");
                findings.push(Finding::error("path", path, line, message));
            }
        }
    }
    findings
}

/// Every type, and every item of a type, that a document in `docs/` names occurs in the sources.
pub fn named_types_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let documents: Vec<_> = tree
        .current_markdown()
        .filter(|(path, _)| path.starts_with("docs/"))
        .flat_map(|(path, text)| {
            spans(text).into_iter().map(move |(line, span)| (path, line, span))
        })
        .filter(|(_, _, span)| names_a_type(span))
        .collect();
    if documents.is_empty() {
        return findings;
    }
    let mut known = BTreeSet::new();
    for (_, text) in tree.rust() {
        let code = code_only(text);
        let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        known.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    for (path, line, span) in documents {
        for name in span.split("::").filter(|name| !known.contains(*name)) {
            let message =
                format!("`{span}`: no source has `{name}`; say what it is called now, or drop it");
            findings.push(Finding::error("name", path, line, message));
        }
    }
    findings
}

/// True for `Type`, `Type::item` or `module::Type`.
fn names_a_type(span: &str) -> bool {
    let is_name = |name: &str| {
        name.chars().all(|c| c.is_alphanumeric() || c == '_')
            && name.starts_with(|c: char| c.is_alphabetic())
    };
    let is_type = |name: &str| {
        name.starts_with(|c: char| c.is_uppercase()) && name.contains(|c: char| c.is_lowercase())
    };
    span.split("::").all(is_name) && span.split("::").any(is_type)
}

/// Resolves `target` as seen from `folder`; `None` where it climbs out of the repository.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_seen_from_the_folder_of_their_file() {
        assert_eq!(resolve("docs/math", "../a.md").as_deref(), Some("docs/a.md"));
        assert_eq!(resolve("", "./crates/x/").as_deref(), Some("crates/x"));
        assert_eq!(resolve("docs", "../../elsewhere"), None);
    }

    #[test]
    fn a_type_is_told_by_its_capital() {
        for name in ["Blip", "AdaptedParams::bind", "random::Stream", "LowRank"] {
            assert!(names_a_type(name), "{name}");
        }
        for other in ["linear", "PEFT", "Blip::", "a b", "A = B", "aurora_kernels::gelu", "x.rs"] {
            assert!(!names_a_type(other), "{other}");
        }
    }
}
