//! Minimal Markdown parser: commands and links.

/// Quoted command: its line, and its words.
#[derive(Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Line, counted from 1.
    pub line: usize,
    /// Words: the program and its arguments.
    pub words: Vec<String>,
}

/// Commands of `programs` in fenced blocks that are not source code, and in inline code.
pub fn commands(text: &str, programs: &[&str]) -> Vec<Quoted> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None; // inside a fence: whether it may hold commands
    let mut continued: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some(language) = trimmed.strip_prefix("```") {
            let shell = ["", "sh", "bash", "shell", "console", "text"].contains(&language.trim());
            fence = if fence.is_some() { None } else { Some(shell) };
            continue;
        }
        match fence {
            Some(true) => {
                let (start, mut whole) = continued.take().unwrap_or((index + 1, String::new()));
                whole.push_str(trimmed);
                match whole.strip_suffix('\\') {
                    Some(head) => continued = Some((start, head.to_owned())),
                    None => found.extend(simple_commands(start, &whole, programs)),
                }
            }
            Some(false) => {}
            None => {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.flat_map(|span| simple_commands(index + 1, span, programs)));
            }
        }
    }
    found
}

/// Simple commands of one shell line, without prompt, variables set for them, and comments.
pub(crate) fn simple_commands(line: usize, shell: &str, programs: &[&str]) -> Vec<Quoted> {
    let shell = shell.trim().strip_prefix("$ ").unwrap_or(shell.trim());
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for word in shell_words(shell) {
        match word.as_str() {
            "&&" | "||" | "|" | ";" => commands.push(std::mem::take(&mut words)),
            comment if comment.starts_with('#') => break,
            _ => words.push(word),
        }
    }
    commands.push(words);
    let without_variables = commands.into_iter().map(|words| {
        let is_variable =
            |word: &String| word.split_once('=').is_some_and(|(name, _)| is_name(name));
        words.into_iter().skip_while(is_variable).collect::<Vec<_>>()
    });
    // A program alone is its name in a sentence, not a command.
    let ours =
        without_variables.filter(|words| words.len() > 1 && programs.contains(&words[0].as_str()));
    ours.map(|words| Quoted { line, words }).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Splits at blanks outside quotation marks, and drops the marks.
pub(crate) fn shell_words(shell: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in shell.chars() {
        match quote {
            Some(mark) if c == mark => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Inline code outside fenced blocks, each span with its line.
pub fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span)));
        }
    }
    found
}

/// Targets of `[text](target)` outside fenced blocks, each with its line.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| (index + 1, target.trim().to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> Vec<String> {
        commands(text, &["cargo", "aurora"])
            .into_iter()
            .map(|c| format!("{}: {}", c.line, c.words.join("|")))
            .collect()
    }

    #[test]
    fn commands_come_from_shell_fences_and_inline_code() {
        let text = "Run `cargo xtask tidy`, or `cargo` or `aurora-data`.\n\
             ```sh\n$ A=1 cargo run -- search \"a b\" # why\n\
             cd x && aurora eval \\\n  --k 1\n```\n```rust\ncargo nothing\n```\n";
        assert_eq!(
            quoted(text),
            ["1: cargo|xtask|tidy", "3: cargo|run|--|search|a b", "4: aurora|eval|--k|1"]
        );
    }

    #[test]
    fn spans_outside_fences_are_listed() {
        assert_eq!(spans("a `b` c `d`\n```\n`e`\n```\n`f`"), [(1, "b"), (1, "d"), (5, "f")]);
    }

    #[test]
    fn links_outside_fences_are_listed() {
        let text = "[a](b.md) and [`c`](d/)\n```\n[x](y)\n```\n";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (1, "d/".to_owned())]);
    }
}
