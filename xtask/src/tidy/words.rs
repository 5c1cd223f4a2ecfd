//! Rule on names: a banned word does not come back.
//!
//! `banned-words.tsv` beside this file lists them with the words to use. `docs/glossary.md` may
//! defend one where it means something else, in a table under the heading "Words kept".

use regex::Regex;

use super::rust_source::{code_only, line_at};
use super::tree::is_dated;
use super::{Finding, Tree};

const RULE: &str = "word";
const LIST: &str = "xtask/src/tidy/banned-words.tsv";
const GLOSSARY: &str = "docs/glossary.md";
/// Heading in the glossary above the words that are defended.
const KEPT: &str = "Words kept";

/// Folders that are searched, besides the Markdown files and manifests at the root.
const FOLDERS: [&str; 9] =
    ["crates/", "benches/", "xtask/", "docs/", "recipes/", "kernels/", "fuzz/", ".ci/", ".github/"];

/// No word of the list occurs, unless the glossary defends it there.
pub fn given_up_words_stay_away(tree: &Tree) -> Vec<Finding> {
    let (banned, mut findings) = read_list(include_str!("banned-words.tsv"));
    let (kept, mistakes) = read_kept(tree.text(GLOSSARY).unwrap_or(""));
    findings.extend(mistakes);
    for (path, text) in tree.texts().filter(|(path, _)| is_covered(path)) {
        let mut say = |line: usize, found: &Found<'_>| {
            let defended = kept.iter().any(|word| {
                [found.word, found.row.written].contains(&word.word.as_str())
                    && word.places.covers(path)
            });
            if !defended {
                let message = format!(
                    "`{}` is given up in `{}`; the word is {} ({LIST}; where it means something \
                     else, defend it under \"{KEPT}\" in {GLOSSARY})",
                    found.word, found.row.scope, found.row.instead
                );
                findings.push(Finding::error(RULE, path, line, message));
            }
        };
        let here: Vec<&Banned<'_>> = banned.iter().filter(|row| row.places.covers(path)).collect();
        longest(here.iter().flat_map(|row| occurrences(path, row)).collect())
            .iter()
            .for_each(|found| say(0, found));
        let code = if path.ends_with(".rs") { code_only(text) } else { String::new() };
        let all = here
            .iter()
            .flat_map(|row| occurrences(if row.code { code.as_str() } else { text }, row));
        let all = longest(all.collect());
        all.iter().for_each(|found| say(line_at(text, found.at), found));
    }
    findings
}

fn is_covered(path: &str) -> bool {
    let at_root = !path.contains('/') && (path.ends_with(".md") || path.ends_with(".toml"));
    let ours = at_root || FOLDERS.iter().any(|folder| path.starts_with(folder));
    let data = path.split('/').any(|folder| matches!(folder, "assets" | "golden"));
    ours && !data && !is_dated(path) && ![GLOSSARY, LIST].contains(&path)
}

/// Row of the list.
struct Banned<'a> {
    /// Word as the list has it.
    written: &'a str,
    /// Word without its stars.
    text: &'a str,
    /// True if more of an identifier may stand before, and after, the word.
    open: (bool, bool),
    /// True if comments and literals are left alone.
    code: bool,
    /// Scope as the list has it.
    scope: &'a str,
    places: Places,
    instead: &'a str,
}

/// Places where a row holds: globs, or everywhere.
struct Places(Vec<Regex>);

impl Places {
    /// Parses `*`, or globs with a comma between them: `*` stands for a name in a path, `**` for any part of one.
    fn read(text: &str) -> Result<Self, String> {
        let globs = text.split(',').map(str::trim);
        if globs.clone().any(|glob| glob == "*") {
            return Ok(Self(Vec::new()));
        }
        let regexes = globs.map(|glob| {
            let escaped = regex::escape(glob).replace(r"\*\*", ".*").replace(r"\*", "[^/]*");
            let there = if glob.is_empty() { Err("an empty glob".to_owned()) } else { Ok(()) };
            there?;
            Regex::new(&format!("^{escaped}$")).map_err(|error| error.to_string())
        });
        regexes.collect::<Result<_, _>>().map(Self)
    }

    fn covers(&self, path: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|glob| glob.is_match(path))
    }
}

/// Rows of the list, and its errors.
fn read_list(text: &str) -> (Vec<Banned<'_>>, Vec<Finding>) {
    let mut rows = Vec::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line == "#" || line.starts_with("# ") {
            continue;
        }
        let row = (|| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [written, scope, instead] = cells[..] else {
                return Err(format!(
                    "{} cells where word, scope and replacement are wanted",
                    cells.len()
                ));
            };
            let text = written.strip_prefix('*').unwrap_or(written);
            let text = text.strip_suffix('*').unwrap_or(text);
            if text.trim().is_empty() || instead.trim().is_empty() {
                return Err("a cell is empty".to_owned());
            }
            let open = (written.starts_with('*'), written.ends_with('*'));
            let places = Places::read(scope.strip_prefix("code:").unwrap_or(scope))?;
            Ok(Banned {
                written,
                text,
                open,
                code: scope.starts_with("code:"),
                scope,
                places,
                instead,
            })
        })();
        match row {
            Ok(row) => rows.push(row),
            Err(message) => findings.push(Finding::error(RULE, LIST, index + 1, message)),
        }
    }
    (rows, findings)
}

/// Word that the glossary defends.
struct Kept {
    word: String,
    places: Places,
}

/// Rows of the table `| word | where | why |` under the heading "Words kept", and its errors.
fn read_kept(glossary: &str) -> (Vec<Kept>, Vec<Finding>) {
    let mut kept = Vec::new();
    let mut findings = Vec::new();
    let mut inside = false;
    for (index, line) in glossary.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == KEPT;
        }
        let Some(row) = line.trim().strip_prefix('|').filter(|_| inside) else { continue };
        let cells: Vec<String> =
            row.trim_end_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let rule = |cell: &String| !cell.is_empty() && cell.chars().all(|c| "-: ".contains(c));
        if cells.iter().all(rule) || cells.first().is_some_and(|cell| cell == "word") {
            continue;
        }
        let read =
            match cells.as_slice() {
                [word, places, why] if !word.is_empty() && !why.is_empty() => {
                    Places::read(places).map(|places| Kept { word: word.clone(), places })
                }
                _ => Err("a word is defended by a row `| word | where | why |`, no cell empty"
                    .to_owned()),
            };
        match read {
            Ok(word) => kept.push(word),
            Err(message) => findings.push(Finding::error(RULE, GLOSSARY, index + 1, message)),
        }
    }
    (kept, findings)
}

/// Occurrence of a row's word.
struct Found<'a> {
    at: usize,
    /// Whole identifier or phrase.
    word: &'a str,
    row: &'a Banned<'a>,
}

/// Occurrences in the order of the text; of overlapping ones the first, and the longer of two in one place.
fn longest(mut all: Vec<Found<'_>>) -> Vec<Found<'_>> {
    all.sort_by_key(|found| (found.at, std::cmp::Reverse(found.word.len())));
    let mut end = 0;
    all.retain(|found| {
        let longest = found.at >= end;
        end = end.max(found.at + found.word.len());
        longest
    });
    all
}

fn occurrences<'a>(text: &'a str, row: &'a Banned<'a>) -> impl Iterator<Item = Found<'a>> {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(row.text).filter_map(move |(start, word)| {
        let mut range = start..start + word.len();
        let head = text[..start].chars().rev().take_while(|c| in_name(*c));
        let tail = text[range.end..].chars().take_while(|c| in_name(*c));
        let (head, tail) =
            (head.map(char::len_utf8).sum::<usize>(), tail.map(char::len_utf8).sum::<usize>());
        // A word at a quotation mark or a dash ends by itself.
        if word.starts_with(in_name) && head > 0 {
            if !row.open.0 {
                return None;
            }
            range.start -= head;
        }
        if word.ends_with(in_name) && tail > 0 {
            if !row.open.1 {
                return None;
            }
            range.end += tail;
        }
        Some(Found { at: range.start, word: &text[range], row })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let findings = given_up_words_stay_away(&Tree::read(folder.path()).unwrap());
        findings.iter().map(|f| format!("{}:{} {}", f.path, f.line, f.message)).collect()
    }

    /// Sample path that a scope covers.
    fn inside(scope: &str) -> String {
        let glob = scope.strip_prefix("code:").unwrap_or(scope).split(',').next().unwrap();
        match glob {
            "*" => "crates/x/src/lib.rs".to_owned(),
            glob => glob.replace("**", "x.rs").replace('*', "x"),
        }
    }

    #[test]
    fn every_word_of_the_list_is_refused_where_it_holds() {
        let text = include_str!("banned-words.tsv");
        let (rows, mistakes) = read_list(text);
        assert_eq!((mistakes.len(), rows.len() > 100), (0, true), "{mistakes:?}");
        for row in rows {
            let path = inside(row.scope);
            let planted = format!(
                "\n{}{}{}\n",
                if row.open.0 { "x" } else { "" },
                row.text,
                if row.open.1 { "x" } else { "" }
            );
            let found = check(&[(&path, &planted)]);
            assert_eq!(found.len(), 1, "{}: {found:?}", row.written);
            let told = format!(
                "{path}:2 `{}` is given up in `{}`; the word is {} (",
                planted.trim(),
                row.scope,
                row.instead
            );
            assert!(found[0].starts_with(&told), "{told}: {found:?}");
        }
    }

    /// One row to experiment with.
    fn row(line: &str) -> Banned<'_> {
        let (mut rows, mistakes) = read_list(line);
        assert_eq!(mistakes, []);
        rows.pop().unwrap()
    }

    fn words(line: &str, text: &str) -> Vec<String> {
        let row = row(line);
        longest(occurrences(text, &row).collect())
            .iter()
            .map(|found| found.word.to_owned())
            .collect()
    }

    #[test]
    fn a_word_is_a_whole_identifier_in_its_case() {
        assert_eq!(words("deal\t*\tx", "deal ideal deals Deal deal_it a.deal()"), ["deal", "deal"]);
        assert_eq!(words("*deal*\t*\tx", "ideal deal_it Deal"), ["ideal", "deal_it"]);
        assert_eq!(words("deal*\t*\tx", "ideal deals"), ["deals"]);
        assert_eq!(words("a.b\t*\tx", "a.b a.b_c za.b self.a.b."), ["a.b", "a.b"]);
        assert_eq!(words("--as it\t*\tx", "x--as it --as item"), ["--as it"]);
        assert_eq!(words("\"q\"\t*\tx", "= \"q\"x"), ["\"q\""]);
    }

    #[test]
    fn of_two_words_in_one_place_the_longer_is_told() {
        let rows = [row("hug-face\t*\tx"), row("--as hug-face\t*\ty")];
        let text = "--as hug-face, hug-face";
        let found = longest(rows.iter().flat_map(|row| occurrences(text, row)).collect());
        assert_eq!(found.iter().map(|f| f.word).collect::<Vec<_>>(), ["--as hug-face", "hug-face"]);
    }

    #[test]
    fn a_scope_is_globs() {
        let places = Places::read("crates/a/**, *.md").unwrap();
        for (path, there) in [
            ("crates/a/src/b.rs", true),
            ("README.md", true),
            ("docs/x.md", false),
            ("crates/ab/x", false),
        ] {
            assert_eq!(places.covers(path), there, "{path}");
        }
        assert!(Places::read("a,").is_err());
    }

    /// The first word of the list that holds everywhere.
    fn any() -> &'static str {
        let (rows, _) = read_list(include_str!("banned-words.tsv"));
        let row = rows
            .iter()
            .find(|row| row.places.0.is_empty() && !row.code && row.open == (false, false));
        row.unwrap().written
    }

    #[test]
    fn data_history_and_the_glossary_may_say_it() {
        let text = format!("{}\n", any());
        for path in [
            "crates/x/assets/a.txt",
            "crates/x/tests/golden/a.txt",
            "docs/history/a.md",
            "docs/glossary.md",
            "xtask/src/tidy/banned-words.tsv",
            "LICENSE",
        ] {
            assert_eq!(check(&[(path, &text)]), [""; 0], "{path}");
        }
        for path in ["README.md", "recipes/a.toml", "kernels/a.cu", "fuzz/a.rs", ".ci/run"] {
            assert_eq!(check(&[(path, &text)]).len(), 1, "{path}");
        }
    }

    #[test]
    fn a_file_may_not_be_called_so_either() {
        let (rows, _) = read_list(include_str!("banned-words.tsv"));
        let name = |row: &&Banned<'_>| {
            row.places.0.is_empty() && row.text.chars().all(|c| c == '_' || c.is_alphanumeric())
        };
        let path = format!("benches/{}.rs", rows.iter().find(name).unwrap().text);
        let found = check(&[(&path, "")]);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{path}:0 ")), "{found:?}");
    }

    #[test]
    fn the_glossary_defends_a_word_in_its_place() {
        let word = any();
        let with = |row: &str| {
            let glossary = format!(
                "# Glossary\n\n## Words kept\n\n| word | where | why |\n|---|---|---|\n{row}\n\n## Others\n"
            );
            check(&[("docs/glossary.md", &glossary), ("docs/a.md", &format!("{word}\n"))])
        };
        assert_eq!(with(&format!("| `{word}` | `docs/**`, `x` | it is another thing |")), [""; 0]);
        assert_eq!(with(&format!("| `{word}` | `crates/**` | it is another thing |")).len(), 1);
        let without_reason = with(&format!("| `{word}` | `docs/**` | |"));
        assert!(
            without_reason.iter().any(|one| one.starts_with("docs/glossary.md:7 ")),
            "{without_reason:?}"
        );
    }

    #[test]
    fn comments_and_literals_are_left_alone_where_the_list_says_so() {
        let row = row("zeal\tcode:*\tx");
        assert!(row.code);
        let (rows, _) = read_list(include_str!("banned-words.tsv"));
        let word = rows.iter().find(|row| row.code).unwrap().text;
        let text = format!("// {word}\nlet a = \"{word}\";\nlet {word} = 1;\n");
        let found = check(&[("crates/x/src/lib.rs", &text)]);
        assert!(found.len() == 1 && found[0].starts_with("crates/x/src/lib.rs:3 "), "{found:?}");
    }

    #[test]
    fn a_row_of_the_list_has_three_cells() {
        for bad in ["word", "word\t*", "\t*\tx", "word\t*\t", "word\t\tx", "a\tb\tc\td"] {
            assert_eq!(read_list(bad).1.len(), 1, "{bad:?}");
        }
        assert!(read_list("# a comment\n\n").0.is_empty());
    }
}
