//! A rule on documentation: a link to a file of this repository leads to one.

use super::markdown::links;
use super::{Finding, Tree};

/// Every relative link in a Markdown file names a file or folder that is there, inside the
/// repository.
pub fn relative_links_lead_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in links(text) {
            let file = target.split('#').next().unwrap_or("");
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            // rustdoc resolves `crate::Item` in a README that is a crate's documentation, and
            // refuses what is not there.
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

/// `target` as seen from `folder`, or `None` where it climbs out of the repository.
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
}
