//! SVG metadata: the Creative Commons `Work` block.

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

/// Metadata of one drawing.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Title as written.
    pub title: String,
    /// Description as written.
    pub description: String,
    /// Names of creators and rights holders, lower case.
    pub authors: String,
    /// Keywords as written.
    pub keywords: Vec<String>,
}

/// Reads the block of a drawing tagged public domain. The error is a reason to drop it.
pub fn read(path: &Path) -> Result<Metadata, &'static str> {
    let bytes = std::fs::read(path).map_err(|_| "unreadable SVG")?;
    let text = String::from_utf8_lossy(&bytes);
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options).map_err(|_| "malformed SVG")?;
    let work = document
        .descendants()
        .find(|n| n.tag_name().name() == "Work")
        .ok_or("no metadata in the SVG")?;
    let public = work.descendants().filter(|n| n.tag_name().name() == "license").any(|n| {
        n.attributes().any(|a| {
            a.name() == "resource" && a.value().to_lowercase().ends_with("publicdomain")
                || a.value().ends_with("licenses/publicdomain/")
        })
    });
    if !public {
        return Err("not tagged public domain");
    }
    // The rendering of a drawing that links to a file elsewhere is a placeholder.
    let linked = document.descendants().filter(|n| n.tag_name().name() == "image").any(|n| {
        n.attributes().any(|a| a.name() == "href" && !a.value().trim_start().starts_with("data:"))
    });
    if linked {
        return Err("links to an image that is not there");
    }
    let child = |name: &str| work.children().find(|n| n.tag_name().name() == name);
    let authors = ["creator", "rights"]
        .iter()
        .filter_map(|name| child(name))
        .map(|n| all_text(&n))
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    let keywords = child("subject")
        .map(|subject| {
            subject
                .descendants()
                .filter(|n| n.tag_name().name() == "li")
                .map(|n| unescape(&all_text(&n)))
                .filter(|k| !k.is_empty())
                .collect()
        })
        .unwrap_or_default();
    Ok(Metadata {
        title: child("title").map(|n| unescape(&all_text(&n))).unwrap_or_default(),
        description: child("description").map(|n| unescape(&all_text(&n))).unwrap_or_default(),
        authors,
        keywords,
    })
}

fn all_text(node: &Node<'_, '_>) -> String {
    let text = node.descendants().filter(|n| n.is_text()).filter_map(|n| n.text());
    text.map(str::trim).collect::<Vec<_>>().join(" ").trim().to_string()
}

/// Unescapes the entities that were escaped twice.
fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .trim()
        .to_string()
}
