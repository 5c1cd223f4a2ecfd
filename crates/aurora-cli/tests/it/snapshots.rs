//! Whole outputs, compared with the files of `snapshots/`: what a user reads, to the letter.
//!
//! What differs between two machines is replaced before: the folder of the test, messages of the operating system,
//! fingerprints, and, where a model was measured, the numbers.

use std::path::Path;

use aurora_cli::args::Cli;
use clap::CommandFactory;

use crate::fixture::{aurora, backbone, images, png, refused, tiny_run, works};

/// Compares a text with `snapshots/NAME.snap`.
pub fn matches(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // Lines of help that hold nothing but their indent.
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    settings.bind(|| insta::assert_snapshot!(name, lines.join("\n")));
}

/// Commands with what they said.
pub struct Transcript<'a> {
    folder: &'a Path,
    text: String,
}

impl<'a> Transcript<'a> {
    /// Nothing yet, in this folder.
    pub fn new(folder: &'a Path) -> Self {
        Self { folder, text: String::new() }
    }

    /// Runs a command that has to refuse its input.
    pub fn refused(&mut self, args: &str) {
        let message = refused(self.folder, args);
        self.add(args, 2, &message);
    }

    /// Runs a command that has to work; its results are kept as they are.
    pub fn works(&mut self, args: &str) {
        let printed = works(self.folder, args);
        self.add(args, 0, &printed);
    }

    /// Runs a command that measures a model; its numbers are not kept.
    pub fn measures(&mut self, args: &str) {
        let printed = without_measures(&works(self.folder, args));
        self.add(args, 0, &printed);
    }

    /// Runs a command that finds fault: exit code 1, with results and a message.
    pub fn finds_fault(&mut self, args: &str) {
        let output = aurora(self.folder, args);
        assert_eq!(output.status.code(), Some(1), "{args}");
        let both = [output.stdout, b"\nstandard error:\n".to_vec(), output.stderr].concat();
        self.add(args, 1, &String::from_utf8(both).unwrap());
    }

    fn add(&mut self, args: &str, code: i32, said: &str) {
        let said = without_machine(self.folder, said);
        let args = shown(args);
        self.text += &format!("$ aurora {args}\n(exit code {code})\n{}\n\n", said.trim_end());
    }

    /// Compares what was said with `snapshots/NAME.snap`.
    pub fn matches(self, name: &str) {
        matches(name, &self.text);
    }
}

/// Arguments without the settings that only make a run small.
fn shown(args: &str) -> String {
    let small = tiny_run("");
    let is_small = |word: &&str| !word.ends_with('=') && !word.contains("{}");
    let small: Vec<_> = small.split_whitespace().filter(is_small).collect();
    let mut kept: Vec<&str> = Vec::new();
    for word in args.split_whitespace() {
        if word.contains('=') && small.contains(&word) {
            kept.pop(); // its --set
        } else {
            kept.push(word);
        }
    }
    kept.join(" ").replace("{}", "[folder]")
}

/// A text without what belongs to one machine.
fn without_machine(folder: &Path, text: &str) -> String {
    let folder = folder.to_str().unwrap();
    let quoted = folder.replace('\\', "\\\\");
    let text = text.replace(folder, "[folder]").replace(&quoted, "[folder]");
    let text = text.replace("aurora.exe", "aurora");
    let words = text.split_inclusive(char::is_whitespace).map(|word| {
        let hex = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if hex.len() >= 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            word.replace(hex, "[fingerprint]")
        } else if word.contains("[folder]") {
            word.replace("\\\\", "/").replace('\\', "/")
        } else {
            word.to_owned()
        }
    });
    let text: String = words.collect();
    let lines = text.split_inclusive('\n').map(|line| {
        let Some((before, after)) = line.split_once(" (os error ") else { return line.to_owned() };
        let start = before.rfind(": ").map_or(0, |at| at + 2);
        let rest = after.split_once(')').map_or("", |(_, rest)| rest);
        format!("{}[message of the system]{rest}", &before[..start])
    });
    lines.collect()
}

/// A text whose numbers with a fraction are `#` and whose columns are two spaces apart.
fn without_measures(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        let cells: Vec<_> = cells
            .map(|cell| {
                if cell.bytes().all(|b| b == b'-') {
                    "---".to_owned()
                } else {
                    without_fractions(cell)
                }
            })
            .collect();
        out += &cells.join("  ");
        out.push('\n');
    }
    out
}

/// A text with `#` in place of each number that has a fraction.
fn without_fractions(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        out += &rest[..start];
        let length = rest[start..].find(|c| !is_number(c)).unwrap_or(rest.len() - start);
        let number = &rest[start..start + length];
        out += if number.trim_end_matches('.').contains('.') { "#" } else { number };
        rest = &rest[start + length..];
    }
    out + rest
}

/// Compares the structure of a page with `snapshots/NAME.snap`.
pub fn page(name: &str, folder: &Path, page: &str) {
    matches(name, &without_machine(folder, &structure(page)));
}

/// The markup and the fixed words of a page, an element a line: images, charts and measured numbers are left out.
fn structure(page: &str) -> String {
    let page = replaced(page, "<style>", "</style>", "[style sheet]");
    let page = replaced(&page, "src=\"data:image/", "\"", "...");
    let page = replaced(&page, "<svg ", "</svg>", "...");
    let page = replaced(&page, "<ol class=\"hits\">", "</ol>", "[hits]");
    let page = replaced(&page, "<h1>Mean recall ", "</h1>", "...");
    let page = replaced(&page, "<p class=\"note\">right image ", "</p>", "...");
    let page = replaced(&page, "matching logit + ", " × ", "#");
    let page = replaced(&page, "<pre tabindex=\"0\">", "</pre>", "[configuration]");
    without_fractions(&page).replace("><", ">\n<")
}

/// A text with another one in place of all that stands between `open` and `close`.
fn replaced(text: &str, open: &str, close: &str, by: &str) -> String {
    let mut parts = text.split(open);
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (_, rest) = part.split_once(close).unwrap();
        out += &format!("{open}{by}{close}{rest}");
    }
    out
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Help of a command and of its subcommands.
fn help(folder: &Path, command: &clap::Command, words: &[&str]) {
    let name = [&["help"], words].concat().join("_");
    matches(
        &name,
        &without_machine(folder, &works(folder, &[words, &["--help"]].concat().join(" "))),
    );
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        help(folder, part, &[words, &[part.get_name()]].concat());
    }
}

#[test]
fn help_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    help(folder.path(), &Cli::command(), &[]);
    let mut said = Transcript::new(folder.path());
    said.works("-h");
    said.works("train -h");
    said.matches("help_short");
}

#[test]
fn tables_of_results() {
    let folder = tempfile::tempdir().unwrap();
    backbone(&folder.path().join("backbone"), 1);
    images(&folder.path().join("data"));
    let settings = tiny_run("{}/data");
    let mut said = Transcript::new(folder.path());
    said.measures(&format!("train --out {{}}/run {settings}"));
    said.measures(&format!("eval --adapter {{}}/run/adapter --out {{}}/measured {settings}"));
    said.measures("inspect {}/run");
    said.matches("tables_of_results");
    page("page_report", folder.path(), &text(&folder.path().join("run/report.html")));
}

#[test]
fn page_of_a_search() {
    let folder = tempfile::tempdir().unwrap();
    backbone(&folder.path().join("backbone"), 1);
    // One image, whose rank no rounding changes.
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/apple.png"), png(2)).unwrap();
    std::fs::write(folder.path().join("data/apple.txt"), "red apple").unwrap();
    let search = "search cat --images {}/data --set model.backbone={}/backbone --out {}/found";
    works(folder.path(), search);
    page("page_search", folder.path(), &text(&folder.path().join("found/search.html")));
}
