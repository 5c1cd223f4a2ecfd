//! Minimal Rust lexer: tells code from comments, literals and test modules.

use std::ops::Range;

/// Copy of `source` with every comment and every string or character literal blanked out, at the same byte offsets and
/// with the same lines.
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(source, at);
        match end {
            Some(end) => {
                let blank = &mut code[at..end];
                blank.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                at = end;
            }
            None => at += 1,
        }
    }
    // Whole literals and comments were overwritten, so no character is cut in half.
    String::from_utf8(code).unwrap_or_default()
}

/// End of the comment or literal that begins at `at`, if one does.
fn literal_end(source: &str, at: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(find(bytes, at, b"\n").unwrap_or(bytes.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    match rest.first()? {
        b'"' => Some(string_end(bytes, at + 1)),
        b'r' if !at.checked_sub(1).is_some_and(|before| continues_a_name(bytes, before)) => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            (rest.get(1 + hashes) == Some(&b'"')).then(|| {
                let mut close = vec![b'"'];
                close.resize(1 + hashes, b'#');
                find(bytes, at + 2 + hashes, &close)
                    .map_or(bytes.len(), |start| start + close.len())
            })
        }
        b'\'' => character_end(source, at),
        _ => None,
    }
}

/// True if the byte before an `r` makes it the tail of a name rather than the start of `r"..."`, with `br` and `cr`
/// let through.
fn continues_a_name(bytes: &[u8], before: usize) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let prefix = matches!(bytes[before], b'b' | b'c')
        && !before.checked_sub(1).is_some_and(|earlier| name(bytes[earlier]));
    name(bytes[before]) && !prefix
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// End of a character literal, or `None` where the quote begins a lifetime.
fn character_end(source: &str, at: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut characters = source[at + 1..].char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        // The escaped character is skipped, so that '\'' ends at its last quote.
        return find(bytes, at + 3, b"'").map(|close| close + 1);
    }
    match characters.next()? {
        (offset, '\'') => Some(at + 1 + offset + 1),
        _ => None,
    }
}

fn find(bytes: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let tail = bytes.get(from..)?;
    tail.windows(wanted.len()).position(|window| window == wanted).map(|offset| from + offset)
}

/// Byte ranges of the modules under `#[cfg(test)]` in blanked `code`.
pub fn test_modules(code: &str) -> Vec<Range<usize>> {
    let attribute = "#[cfg(test)]";
    let starts = code.match_indices(attribute).map(|(start, _)| start);
    let with_bodies = starts.filter_map(|start| {
        let after = start + attribute.len();
        // `mod name;` ends before any brace: its body is a file of its own.
        let open = after + code[after..].find(['{', ';'])?;
        (code.as_bytes()[open] == b'{').then(|| start..body_end(code, open))
    });
    with_bodies.collect()
}

/// Offset after the brace that closes the one at `open`, in blanked `code`.
pub fn body_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    code.len()
}

/// Offsets at which `word` stands in `code` with no name character before it.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bounded =
        |offset: usize| !code[..offset].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(word).map(|(offset, _)| offset).filter(move |offset| bounded(*offset))
}

/// Line of a byte offset, counted from 1.
pub fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let source = "a(\"b\\\"c\"); // d\nlet e: &'f str = r#\"g\"h\"#; /* i /* j */ k */ 'l'; '\\''; br\"m\" 'é' for\"n\"";
        let code = code_only(source);
        assert_eq!(code.len(), source.len());
        let kept: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(kept, "a( ); let e: &'f str = ; ; ; b for");
        assert_eq!(line_at(&code, code.find("let").unwrap()), 2);
    }

    #[test]
    fn a_test_module_reaches_to_its_closing_brace() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c!(); } }\nfn d() {}\n\
        #[cfg(test)]\nmod more;\nfn e() {}\n";
        let modules = test_modules(code);
        assert_eq!(modules.len(), 1);
        assert!(code[modules[0].clone()].ends_with("c!(); } }"));
    }

    #[test]
    fn a_word_begins_where_no_name_does() {
        assert_eq!(words("eprint!(); print!()", "print!").collect::<Vec<_>>(), [11]);
    }
}
