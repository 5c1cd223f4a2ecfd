//! `aurora data check`: datasets with and without findings.

use std::fs;

use crate::fixture::{images, works};
use crate::snapshots::{self, Transcript};

#[test]
fn a_clean_folder_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("data"));
    let mut said = Transcript::new(folder.path());
    said.works("data check {}/data --out {}/look");
    said.matches("check_clean");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("look/check.json")).unwrap())
            .unwrap();
    assert_eq!(report["images"], 8);
    assert_eq!(report["captions"], 8);
    assert!(report["problems"].as_array().unwrap().is_empty());
    let page = fs::read_to_string(folder.path().join("look/check.html")).unwrap();
    assert_eq!(page.matches("<img ").count(), 8);
    snapshots::page("page_check", folder.path(), &page);
    let left: Vec<_> =
        fs::read_dir(folder.path().join("look")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_would_end_a_training_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("data"));
    fs::write(folder.path().join("data/broken.png"), b"no image").unwrap();
    fs::write(folder.path().join("data/broken.txt"), b"<b>words</b>").unwrap();
    let mut said = Transcript::new(folder.path());
    said.finds_fault("data check {}/data --out {}/look");
    said.matches("check_problem");
    let page = fs::read_to_string(folder.path().join("look/check.html")).unwrap();
    assert!(page.contains("Problems (1)") && !page.contains("<b>words"));
}

/// Printed captions are escaped: none moves the cursor.
#[test]
fn captions_are_printed_printably() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    images(&data);
    let row = |name: &str, split: &str| {
        format!(r#"{{"image": "{name}", "caption": "a \u001b[2J word", "split": "{split}"}}"#)
    };
    let rows = [row("p0.png", "train"), row("p1.png", "test")].join("\n");
    fs::write(data.join("captions.jsonl"), rows).unwrap();
    let printed = works(folder.path(), "data check {}/data");
    assert!(printed.contains("a \\u{1b}[2j word"), "{printed}");
    assert!(!printed.contains('\u{1b}'), "{printed}");
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("data check {}/nowhere");
    said.refused("data check x --format tables");
    said.matches("refused_check");
}
