//! Rule on documentation: quoted commands exist.
//!
//! Nothing is built for it. The program's subcommands and options are read from the clap
//! declarations in its source: the variants of the enums that derive `Subcommand`, and the fields,
//! whose names clap turns into `--long-options`.

use std::collections::BTreeSet;

use super::markdown::{Quoted, commands, simple_commands};
use super::rust_source::{body_end, code_only, words};
use super::tree::is_dated;
use super::workflows::{is_workflow, scripts};
use super::{Finding, Tree};

/// Commands of cargo itself, and of the extensions that the documentation may suggest.
const CARGO: [&str; 19] = [
    "add", "bench", "build", "check", "clean", "clippy", "deny", "doc", "fetch", "fmt", "fuzz",
    "help", "install", "metadata", "package", "publish", "run", "test", "tree",
];

/// Programs whose commands are checked.
const PROGRAMS: [&str; 2] = ["cargo", "aurora"];

/// Folder of the default configurations, which have every key.
const SETTINGS: &str = "crates/aurora-train/configs/";

/// Every `cargo ...` and `aurora ...` in a Markdown file or a workflow names a subcommand, package,
/// target and option that exist.
pub fn quoted_commands_exist(tree: &Tree) -> Vec<Finding> {
    let aurora = Program::read(tree, "aurora", "crates/aurora-cli/src/");
    let xtask = Program::read(tree, "cargo xtask", "xtask/src/");
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        let quoted = if path.ends_with(".md") && !is_dated(path) {
            commands(text, &PROGRAMS)
        } else if is_workflow(path) {
            scripts(text)
                .flat_map(|(line, shell)| simple_commands(line, shell, &PROGRAMS))
                .collect()
        } else {
            continue;
        };
        for Quoted { line, words } in quoted {
            let verdict = match words[0].as_str() {
                "aurora" => aurora.accepts(&words[1..]),
                _ => cargo_accepts(tree, &words[1..], &aurora, &xtask),
            };
            if let Err(message) = verdict {
                findings.push(Finding::error(
                    "command",
                    path,
                    line,
                    format!("`{}`: {message}", words.join(" ")),
                ));
            }
        }
    }
    findings
}

fn cargo_accepts(
    tree: &Tree,
    words: &[String],
    aurora: &Program,
    xtask: &Program,
) -> Result<(), String> {
    let words =
        if words.first().is_some_and(|word| word.starts_with('+')) { &words[1..] } else { words };
    let Some(command) = words.first() else { return Ok(()) };
    if command == "xtask" && has_alias(tree, "xtask") {
        return xtask.accepts(&words[1..]);
    }
    if !CARGO.contains(&command.as_str()) && !command.starts_with('-') && !has_alias(tree, command)
    {
        return Err(format!(
            "cargo has no command {command} and .cargo/config.toml no such alias; add the alias \
            or quote another command"
        ));
    }
    let split = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (own, rest) = (&words[..split], words.get(split + 1..).unwrap_or(&[]));
    let package = value_of(own, &["-p", "--package"]);
    let names = own.iter().zip(own.iter().skip(1)).filter(|(option, _)| *option == "--exclude");
    for (_, name) in names {
        if !tree.packages().any(|package| package.name() == name) {
            return Err(format!(
                "the workspace has no package {name}; see `members` in Cargo.toml"
            ));
        }
    }
    let folder = match package {
        Some(name) => match tree.packages().find(|package| package.name() == name) {
            Some(found) => Some(format!("{}/", found.folder)),
            None if ["add", "install"].contains(&command.as_str()) => None,
            None => {
                return Err(format!(
                    "the workspace has no package {name}; see `members` in Cargo.toml"
                ));
            }
        },
        None => None,
    };
    for (option, kind) in [("--example", "examples"), ("--test", "tests"), ("--bench", "benches")] {
        let Some(name) = value_of(own, &[option]) else { continue };
        let ends = [format!("{kind}/{name}.rs"), format!("{kind}/{name}/main.rs")];
        let inside = folder.as_deref().unwrap_or("");
        let there = tree.rust().any(|(path, _)| {
            path.starts_with(inside) && ends.iter().any(|end| path.ends_with(&format!("/{end}")))
        });
        if !there {
            return Err(format!("there is no {inside}{}; name a target that exists", ends[0]));
        }
    }
    if command == "run" && value_of(own, &["--example"]).is_none() {
        return match package {
            None | Some("aurora-cli") => aurora.accepts(rest),
            Some("xtask") => xtask.accepts(rest),
            Some(_) => Ok(()),
        };
    }
    Ok(())
}

/// The value of the first of `options` among `words`, as `--option value` or `--option=value`.
fn value_of<'a>(words: &'a [String], options: &[&str]) -> Option<&'a str> {
    let separate = words.iter().position(|word| options.contains(&word.as_str()));
    let joined = || {
        words.iter().find_map(|word| {
            let (option, value) = word.split_once('=')?;
            options.contains(&option).then_some(value)
        })
    };
    separate.and_then(|at| words.get(at + 1)).map(String::as_str).or_else(joined)
}

fn has_alias(tree: &Tree, name: &str) -> bool {
    let config = tree.text(".cargo/config.toml").and_then(|text| text.parse::<toml::Table>().ok());
    config.is_some_and(|config| config.get("alias").is_some_and(|alias| alias.get(name).is_some()))
}

/// Command line of a program built with clap, as far as its source tells.
struct Program {
    name: &'static str,
    subcommands: BTreeSet<String>,
    /// Keys that `--set` takes, by their full path; empty where the program has no configuration.
    settings: BTreeSet<String>,
    /// The program's sources, with literals and comments blanked out, and as they are.
    sources: Vec<(String, String)>,
}

impl Program {
    fn read(tree: &Tree, name: &'static str, folder: &str) -> Self {
        let sources: Vec<_> = tree
            .rust()
            .filter(|(path, _)| path.starts_with(folder))
            .map(|(_, text)| (code_only(text), text.to_owned()))
            .collect();
        let subcommands = sources.iter().flat_map(|(code, text)| subcommands(code, text)).collect();
        let defaults = tree.texts().filter(|(path, _)| {
            name == "aurora" && path.starts_with(SETTINGS) && path.ends_with(".toml")
        });
        let tables = defaults.filter_map(|(_, text)| text.parse::<toml::Table>().ok());
        let settings = tables.flat_map(|table| keys(&table, "")).collect();
        Self { name, subcommands, settings, sources }
    }

    /// Checks the words after the program's name.
    fn accepts(&self, words: &[String]) -> Result<(), String> {
        // An ellipsis or a placeholder stands for whatever the reader puts there.
        let Some(first) = words.first().filter(|word| !word.starts_with(['.', '…', '<', '[']))
        else {
            return Ok(());
        };
        let is_option = first.starts_with('-');
        if !is_option
            && first != "help"
            && !is_placeholder(first)
            && !self.subcommands.contains(first)
        {
            let known: Vec<_> = self.subcommands.iter().map(String::as_str).collect();
            return Err(format!(
                "{} has no command {first}; it has: {}",
                self.name,
                known.join(", ")
            ));
        }
        for word in words {
            let Some(option) = word.strip_prefix("--") else { continue };
            let option = option.split('=').next().unwrap_or(option);
            if !["", "help", "version"].contains(&option) && !self.declares(option) {
                return Err(format!("{} declares no option --{option}; see its --help", self.name));
            }
        }
        let settings = words.iter().zip(words.iter().skip(1)).filter(|(word, _)| *word == "--set");
        for (_, setting) in settings {
            let key = setting.split('=').next().unwrap_or(setting);
            if !self.settings.is_empty() && !self.settings.contains(key) {
                return Err(format!("there is no setting {key}; {SETTINGS} has all of them"));
            }
        }
        Ok(())
    }

    /// True if some field, or some `long = "..."`, gives the program this option.
    fn declares(&self, option: &str) -> bool {
        let field = option.replace('-', "_");
        let named = format!("long = \"{option}\"");
        self.sources.iter().any(|(code, text)| {
            text.contains(&named)
                || words(code, &field).any(|at| {
                    let rest = code[at + field.len()..].trim_start();
                    rest.starts_with(':') && !rest.starts_with("::")
                })
        })
    }
}

/// Keys of a table and of the tables in it, each with its path.
fn keys(table: &toml::Table, prefix: &str) -> Vec<String> {
    let named = table.iter().flat_map(|(key, value)| match value {
        toml::Value::Table(inner) => keys(inner, &format!("{prefix}{key}.")),
        _ => vec![format!("{prefix}{key}")],
    });
    named.collect()
}

/// True for a placeholder such as `COMMAND`: upper case stands for a choice.
fn is_placeholder(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '-')
}

/// Subcommands that the enums of one file declare.
fn subcommands(code: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (derive, _) in code.match_indices("#[derive(") {
        let Some(end) = code[derive..].find(")]").map(|offset| derive + offset) else { continue };
        if words(&code[derive..end], "Subcommand").next().is_none() {
            continue;
        }
        if let Some(open) = code[end..].find('{').map(|offset| end + offset) {
            found.extend(variants(code, text, open));
        }
    }
    found
}

/// Variants of the enum whose body opens at `open`, as clap names them.
fn variants(code: &str, text: &str, open: usize) -> Vec<String> {
    let close = body_end(code, open).saturating_sub(1);
    let mut found = Vec::new();
    let mut renamed = None;
    let mut at = open + 1;
    while at < close {
        let rest = &code[at..close];
        let step = match rest.chars().next() {
            Some('#') => {
                let end = rest.find(']').map_or(rest.len(), |offset| offset + 1);
                let attribute = &text[at..at + end];
                // `value_name = "..."` is about something else.
                let named = words(attribute, "name = \"").next();
                renamed = named.and_then(|at| attribute[at..].split('"').nth(1)).map(str::to_owned);
                end
            }
            Some('{') => body_end(code, at) - at,
            Some('(') => rest.find(')').map_or(rest.len(), |offset| offset + 1),
            Some(c) if c.is_ascii_uppercase() => {
                let end =
                    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                found.push(renamed.take().unwrap_or_else(|| kebab_case(&rest[..end])));
                end
            }
            Some(c) => c.len_utf8(),
            None => break,
        };
        at += step;
    }
    found
}

/// `BuildKernels` as clap shows it: `build-kernels`.
fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_uppercase() && index > 0 {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_read_from_their_enum() {
        let text = "#[derive(Debug, Subcommand)]\nenum C {\n\
             /// Doc, with A name.\nTrain(TrainArgs),\n\
             #[command(name = \"look\")]\nInspect { a: Path },\n#[arg(value_name = \"X\")]\nBuildKernels,\n}\n\
             #[derive(Debug)]\nenum D { Other }\n";
        assert_eq!(subcommands(&code_only(text), text), ["train", "look", "build-kernels"]);
    }

    #[test]
    fn options_are_read_from_fields() {
        let text = "struct A { out_dir: P, #[arg(long = \"set\")] overrides: V }".to_owned();
        let program = Program {
            name: "p",
            subcommands: BTreeSet::new(),
            settings: BTreeSet::new(),
            sources: vec![(code_only(&text), text)],
        };
        assert!(program.declares("out-dir") && program.declares("set"));
        assert!(!program.declares("dir") && !program.declares("P"));
    }
}
