//! Rule on workflows, which run nowhere but on other people's machines: a minimal YAML parser that tells a slip from a
//! file.
//!
//! A workflow keeps to the plain part of the language: mappings and sequences by indentation,
//! scalars on one line, and `|` for scripts.

use std::collections::BTreeSet;

use regex::Regex;

use super::{Finding, Tree};

/// True for the path of a workflow.
pub fn is_workflow(path: &str) -> bool {
    path.starts_with(".github/workflows/") && path.ends_with(".yml")
}

/// Every workflow parses, states no key twice, pins its actions by their major version, and states its permissions.
pub fn workflows_are_plain_yaml(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(pinned) = Regex::new(r"^[\w.-]+(/[\w.-]+)+@v\d+$") else { return findings };
    for (path, text) in tree.texts().filter(|(path, _)| is_workflow(path)) {
        let (entries, mistakes) = read(text);
        let mut error = |line, message: String| {
            findings.push(Finding::error("workflow", path, line, message));
        };
        mistakes.into_iter().for_each(|(line, message)| error(line, message));
        for entry in entries.iter().filter(|entry| entry.key == "uses") {
            if !pinned.is_match(entry.value) {
                let message = "an action by another name than owner/name@vN; pin its major version";
                error(entry.line, format!("`{}`: {message}", entry.value));
            }
        }
        for key in ["permissions", "concurrency"] {
            if !entries.iter().any(|entry| entry.indent == 0 && entry.key == key) {
                error(0, format!("no `{key}` at the top; state the least that is enough"));
            }
        }
    }
    findings
}

/// Lines of shell in a workflow, with their numbers, counted from 1.
pub fn scripts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let entries = read(text).0.into_iter().filter(|entry| entry.key == "run");
    entries.flat_map(|entry| entry.script)
}

/// `key: value`.
struct Entry<'a> {
    line: usize,
    /// Column of the key.
    indent: usize,
    key: &'a str,
    /// Value, if it stands on the same line.
    value: &'a str,
    /// Lines of the value, with their numbers: that one, or the block below.
    script: Vec<(usize, &'a str)>,
}

/// Entries of a file, and what is no plain YAML in it.
fn read(text: &str) -> (Vec<Entry<'_>>, Vec<(usize, String)>) {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut mistakes = Vec::new();
    let mut open: Vec<(usize, BTreeSet<&str>)> = Vec::new(); // mappings: column, keys so far
    let mut block: Option<usize> = None; // the column of the key of a block scalar
    for (index, whole) in text.lines().enumerate() {
        let (number, line) = (index + 1, whole.trim_start_matches(' '));
        let mut indent = whole.len() - line.len();
        if let Some(column) = block {
            if line.is_empty() || indent > column {
                if let Some(entry) = entries.last_mut() {
                    entry.script.push((number, line));
                }
                continue;
            }
            block = None;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut wrong = |message: &str| mistakes.push((number, message.to_owned()));
        if line.contains('\t') || indent % 2 != 0 {
            wrong("indented by something else than pairs of blanks");
            continue;
        }
        let mut content = line;
        let item = line.strip_prefix("- ");
        if let Some(rest) = item {
            content = rest;
            open.retain(|(column, _)| *column <= indent);
            indent += 2;
        }
        // Deeper mappings end here, and with a new item the one of the item before.
        open.retain(|(column, _)| *column < indent || (*column == indent && item.is_none()));
        let Some((key, value)) = content.split_once(':').filter(|(key, rest)| {
            let plain = |c: char| c.is_alphanumeric() || "-_".contains(c);
            key.chars().all(plain) && (rest.is_empty() || rest.starts_with(' '))
        }) else {
            if item.is_none() {
                wrong("neither `key: value` nor `- item`");
            }
            continue;
        };
        match open.last_mut().filter(|(column, _)| *column == indent) {
            Some((_, keys)) => {
                if !keys.insert(key) {
                    wrong(&format!("`{key}` stands here twice"));
                }
            }
            None => {
                let parent = entries
                    .last()
                    .is_none_or(|above| above.value.is_empty() || above.indent >= indent);
                if item.is_none() && !parent {
                    wrong("indented below a key that has its value already");
                }
                open.push((indent, BTreeSet::from([key])));
            }
        }
        let value = value.trim();
        let unclosed =
            |mark: char| value.starts_with(mark) && (value.len() < 2 || !value.ends_with(mark));
        if unclosed('"') || unclosed('\'') || value.starts_with('[') != value.ends_with(']') {
            wrong("a quotation mark or bracket without its other half");
        }
        if !value.starts_with(['"', '\''])
            && (value.contains(": ") || value.starts_with(['@', '`', '%', '&', '*', '!', '{']))
        {
            wrong("a value that YAML reads otherwise; put it in quotation marks");
        }
        if value == "|" {
            block = Some(indent);
        }
        let script = if value == "|" { Vec::new() } else { vec![(number, value)] };
        entries.push(Entry { line: number, indent, key, value, script });
    }
    (entries, mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name: ci\non:\n  push:\n    branches: [main]\n  pull_request:\njobs:\n  a:\n    steps:\n\
        \x20     - uses: actions/checkout@v4\n        with:\n          deep: false\n      # Why.\n      - name: x\n\
        \x20       run: |\n          cargo a\n          b: c\n      - run: cargo d # e\n  b:\n    steps: \"x\"\n";

    fn mistakes(text: &str) -> Vec<(usize, String)> {
        read(text).1
    }

    #[test]
    fn scripts_are_found_with_their_lines() {
        assert_eq!(mistakes(GOOD), []);
        let found: Vec<_> = scripts(GOOD).collect();
        assert_eq!(found, [(15, "cargo a"), (16, "b: c"), (17, "cargo d # e")]);
    }

    #[test]
    fn a_slip_is_told() {
        for (old, new, line) in [
            ("name: ci", "name:ci", 1),
            ("name: ci", "name: \"ci", 1),
            ("[main]", "[main", 4),
            ("[main]", "a: b", 4),
            ("  push:", "   push:", 3),
            ("  push:", "\tpush:", 3),
            ("  b:\n", "  a:\n", 18),
            ("  pull_request:", "  push:", 5),
            ("name: x\n", "uses: x\n        uses: y\n", 14),
            ("name: ci\n", "name: ci\n  more: x\n", 2),
        ] {
            let found = mistakes(&GOOD.replacen(old, new, 1));
            assert_eq!(found.first().map(|(line, _)| *line), Some(line), "{new}: {found:?}");
        }
    }
}
