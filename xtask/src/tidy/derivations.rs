//! Rule on docs/math: a derivation names the code it derives and was reread since that code changed.
//!
//! A derivation has a block `<!-- sources: PATH PATH#ITEM,ITEM; hash: HEX -->`. The hash is over the code of whole
//! files or of named items, without comments, blank space, contents of literals, trailing commas and test modules, so
//! that formatting and comments do not change it; paths are not part of it either. Where the code differs, someone
//! rereads the derivation and accepts the new hash with `cargo xtask derivations --accept`.

use sha2::{Digest, Sha256};

use super::rust_source::{body_end, code_only, line_at, test_modules, words};
use super::{Finding, Tree};

const FOLDER: &str = "docs/math/";
const OPEN: &str = "<!-- sources:";
const CLOSE: &str = "-->";
const RULE: &str = "derivation";

/// Every derivation names its sources, and the hash it keeps is theirs.
pub fn derivations_were_reread(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in derivations(tree) {
        let checked = block(text).and_then(|block| {
            let hash = hash(tree, &block).map_err(|message| (block.line, message))?;
            Ok((block, hash))
        });
        match checked {
            Err((line, message)) => findings.push(Finding::error(RULE, path, line, message)),
            Ok((block, hash)) if hash == block.hash => {}
            Ok((block, _)) => {
                let message = format!(
                    "the code of {} has changed; reread the derivation, mend it, then run: cargo \
                    xtask derivations --accept",
                    block.sources.join(", ")
                );
                findings.push(Finding::error(RULE, path, block.line, message));
            }
        }
    }
    findings
}

/// Derivations whose hash has changed, with their new text.
///
/// # Errors
/// The first derivation whose block or sources are not as they should be.
pub(crate) fn accepted(tree: &Tree) -> Result<Vec<(String, String)>, Finding> {
    let mut changed = Vec::new();
    for (path, text) in derivations(tree) {
        let error = |(line, message)| Finding::error(RULE, path, line, message);
        let block = block(text).map_err(error)?;
        let hash = hash(tree, &block).map_err(|message| error((block.line, message)))?;
        if hash != block.hash {
            let block =
                format!("{OPEN}\n  {};\n  hash: {hash} {CLOSE}", block.sources.join("\n  "));
            let (start, end) = extent(text).unwrap_or_default();
            changed.push((path.to_owned(), format!("{}{block}{}", &text[..start], &text[end..])));
        }
    }
    Ok(changed)
}

fn derivations(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.texts().filter(|(path, _)| path.starts_with(FOLDER) && path.ends_with(".md"))
}

/// Sources block of a derivation.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    line: usize,
    sources: Vec<&'a str>,
    hash: &'a str,
}

/// Byte range of the block in the text.
fn extent(text: &str) -> Option<(usize, usize)> {
    let start = text.find(OPEN)?;
    Some((start, start + text[start..].find(CLOSE)? + CLOSE.len()))
}

fn block(text: &str) -> Result<Block<'_>, (usize, String)> {
    let Some((start, end)) = extent(text) else {
        return Err((
            1,
            format!("no block `{OPEN} PATH ...; hash: HEX {CLOSE}`; name the code derived here"),
        ));
    };
    let line = line_at(text, start);
    let inside = &text[start + OPEN.len()..end - CLOSE.len()];
    let (sources, hash) = inside.split_once(';').unwrap_or((inside, ""));
    let hash = hash.trim().strip_prefix("hash:").unwrap_or("").trim();
    let sources: Vec<&str> = sources.split_whitespace().collect();
    match sources.is_empty() {
        true => Err((line, "the block names no source".to_owned())),
        false => Ok(Block { line, sources, hash }),
    }
}

/// Hash over all sources, sixteen digits.
fn hash(tree: &Tree, block: &Block<'_>) -> Result<String, String> {
    let mut digest = Sha256::new();
    for source in &block.sources {
        let (path, items) = source.split_once('#').unwrap_or((source, ""));
        let text = tree
            .text(path)
            .ok_or_else(|| format!("there is no source {path}; name the file where it is now"))?;
        let code = production(text);
        if items.is_empty() {
            digest.update(bare(&code));
        }
        for item in items.split(',').filter(|item| !item.is_empty()) {
            let bodies = bodies(&code, item);
            if bodies.is_empty() {
                return Err(format!("{path} has no item {item}; name it as it is called now"));
            }
            bodies.iter().for_each(|body| digest.update(bare(body)));
        }
        digest.update([0]);
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Code without comments, literals and test modules.
fn production(text: &str) -> String {
    let mut code = code_only(text);
    for module in test_modules(&code).into_iter().rev() {
        code.replace_range(module, "");
    }
    code
}

/// Code of every item of this name, from its keyword to its end.
fn bodies<'a>(code: &'a str, item: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for keyword in ["fn", "const", "static", "struct", "enum", "trait", "impl"] {
        let declared = format!("{keyword} {item}");
        for start in words(code, &declared) {
            let after = &code[start + declared.len()..];
            if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            // A constant may hold braces, a function ends at its own; `;` inside of `[u8; 4]` closes neither.
            let mut depth = 0usize;
            let end = after.bytes().position(|byte| {
                match byte {
                    b'(' | b'[' => depth += 1,
                    b')' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && matches!(byte, b'{' | b';')
            });
            let end = end.map_or(code.len(), |offset| {
                let at = start + declared.len() + offset;
                if code.as_bytes()[at] == b'{' { body_end(code, at) } else { at + 1 }
            });
            found.push(&code[start..end]);
        }
    }
    found
}

/// Code without blank space and trailing commas.
fn bare(code: &str) -> String {
    let dense: String = code.split_whitespace().collect();
    [")", "]", "}"].iter().fold(dense, |code, close| code.replace(&format!(",{close}"), close))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "//! Doc.\nconst SIDE: [u8; 2] = [1, 2];\n/// One.\nfn one(a: f32) -> f32 {\n    a + SIDE // sum\n}\n\
        impl Two {\n    fn one(&self) {}\n}\n#[cfg(test)]\nmod tests {\n    fn one() {}\n}\n";

    #[test]
    fn items_are_found_by_their_keyword() {
        let code = production(CODE);
        let of = |item| bodies(&code, item).into_iter().map(bare).collect::<Vec<_>>();
        assert_eq!(of("one"), ["fnone(a:f32)->f32{a+SIDE}", "fnone(&self){}"]);
        assert_eq!(of("SIDE"), ["constSIDE:[u8;2]=[1,2];"]);
        assert_eq!(of("Two"), ["implTwo{fnone(&self){}}"]);
        assert_eq!(of("on"), [""; 0]);
    }

    #[test]
    fn formatting_is_no_change() {
        assert_eq!(bare("f(\n    a,\n    b,\n)"), bare("f(a, b)"));
        assert_ne!(bare("f(a, b)"), bare("f(b, a)"));
    }

    #[test]
    fn a_block_may_span_lines() {
        let text = "# T\n\n<!-- sources: a.rs#x,y\n  b.cu; hash: 0a -->\n";
        let expected = Block { line: 3, sources: vec!["a.rs#x,y", "b.cu"], hash: "0a" };
        assert_eq!(block(text), Ok(expected));
        assert_eq!(block("<!-- sources: a.rs -->").unwrap().hash, "");
        assert_eq!(block("# T\n").unwrap_err().0, 1);
        assert_eq!(block("\n<!-- sources: ; hash: 1 -->").unwrap_err().0, 2);
    }
}
