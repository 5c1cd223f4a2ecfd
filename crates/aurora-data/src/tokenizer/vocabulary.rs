//! Vocabulary files: `vocab.txt` and `tokenizer.json` to pieces in id order.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::{Error, Result};

/// Special tokens of every BERT vocabulary.
pub(super) const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Special tokens that BLIP appends to bert-base-uncased, in this order.
pub(super) const ADDED: [&str; 2] = ["[DEC]", "[ENC]"];

/// Pieces of a file, BLIP's special tokens included: a file without them gets them appended.
/// `.json` is a `tokenizer.json`, anything else a `vocab.txt`.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let name = path.display().to_string();
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(&name, Some(line), "is not UTF-8; fetch the file again".to_owned())
    })?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let mut pieces = if json { from_json(&name, text)? } else { from_lines(&name, text)? };
    for added in ADDED {
        if !pieces.iter().any(|piece| piece == added) {
            pieces.push(added.to_owned());
        }
    }
    complete(&name, &pieces)?;
    Ok(pieces)
}

/// Pieces of a `vocab.txt`: one a line; the id is the line number minus one.
pub(super) fn from_lines(file: &str, text: &str) -> Result<Vec<String>> {
    let mut seen = HashMap::new();
    let mut pieces = Vec::new();
    for (at, piece) in text.lines().enumerate() {
        let line = Some(at + 1);
        plain(piece).map_err(|reason| wrong(file, line, reason))?;
        if let Some(first) = seen.insert(piece, at + 1) {
            let reason = format!("has {piece:?}, which line {first} has already");
            return Err(wrong(file, line, reason));
        }
        pieces.push(piece.to_owned());
    }
    Ok(pieces)
}

/// Errors if a special token is missing.
pub(super) fn complete(file: &str, pieces: &[String]) -> Result<()> {
    for special in SPECIAL.iter().chain(&ADDED) {
        if !pieces.iter().any(|piece| piece == special) {
            let count = pieces.len();
            let reason = format!(
                "lacks {special} among its {count} pieces; it must hold {} and {}",
                SPECIAL.join(", "),
                ADDED.join(" and ")
            );
            return Err(wrong(file, None, reason));
        }
    }
    Ok(())
}

/// Errors if a piece cannot be part of a word.
fn plain(piece: &str) -> Result<(), String> {
    match piece {
        "" => Err("is empty; every line holds one piece".to_owned()),
        _ if piece.contains(char::is_whitespace) => {
            Err(format!("has {piece:?} with white space in it, which no word has"))
        }
        _ => Ok(()),
    }
}

fn wrong(file: &str, line: Option<usize>, reason: String) -> Error {
    Error::Vocabulary { file: file.to_owned(), line, reason }
}

/// Fields of a `tokenizer.json` that are read. Padding, truncation and the post-processor are
/// ignored: those are the caller's choice.
#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<serde_json::Value>,
    pre_tokenizer: Option<serde_json::Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    vocab: Option<Vocab>,
}

/// Pieces with their ids. A duplicate piece is an error.
struct Vocab(HashMap<String, u32>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;
        impl<'de> Visitor<'de> for Pieces {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from word piece to id, as WordPiece has it")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut pieces = HashMap::new();
                while let Some((piece, id)) = map.next_entry::<String, u32>()? {
                    plain(&piece).map_err(A::Error::custom)?;
                    if let Some(other) = pieces.insert(piece.clone(), id) {
                        let reason = format!("has {piece:?} twice, with the ids {other} and {id}");
                        return Err(A::Error::custom(reason));
                    }
                }
                Ok(Vocab(pieces))
            }
        }
        deserializer.deserialize_map(Pieces)
    }
}

/// Pieces of a `tokenizer.json` equivalent to that of bert-base-uncased.
fn from_json(file: &str, text: &str) -> Result<Vec<String>> {
    let Json { added_tokens, normalizer, pre_tokenizer, model } = serde_json::from_str(text)
        .map_err(|error| {
            let reason = format!("is no WordPiece tokenizer: {error}");
            wrong(file, Some(error.line()), reason)
        })?;
    let field = |part: &Option<serde_json::Value>, key: &str| {
        part.as_ref().and_then(|part| part.get(key)).cloned().unwrap_or_default()
    };
    let yes = serde_json::Value::from(true);
    // Unset `strip_accents` follows `lowercase`.
    let accents = field(&normalizer, "strip_accents");
    for (key, found, allowed) in [
        ("model.type", model.r#type.into(), "WordPiece".into()),
        ("model.unk_token", model.unk_token.into(), "[UNK]".into()),
        ("model.continuing_subword_prefix", model.continuing_subword_prefix.into(), "##".into()),
        ("model.max_input_chars_per_word", model.max_input_chars_per_word.into(), 100.into()),
        ("normalizer.type", field(&normalizer, "type"), "BertNormalizer".into()),
        ("normalizer.clean_text", field(&normalizer, "clean_text"), yes.clone()),
        (
            "normalizer.handle_chinese_chars",
            field(&normalizer, "handle_chinese_chars"),
            yes.clone(),
        ),
        (
            "normalizer.strip_accents",
            if accents.is_null() { yes.clone() } else { accents },
            yes.clone(),
        ),
        ("normalizer.lowercase", field(&normalizer, "lowercase"), yes),
        ("pre_tokenizer.type", field(&pre_tokenizer, "type"), "BertPreTokenizer".into()),
    ] {
        let (found, allowed): (serde_json::Value, serde_json::Value) = (found, allowed);
        if found != allowed {
            let reason = format!(
                "is no WordPiece tokenizer of bert-base-uncased's kind: {key} is {found}, not {allowed}"
            );
            return Err(wrong(file, None, reason));
        }
    }
    let mut ids = model.vocab.map(|vocab| vocab.0).unwrap_or_default();
    for Added { id, content, single_word, lstrip, rstrip, normalized } in added_tokens {
        if !SPECIAL.iter().chain(&ADDED).any(|special| *special == content) {
            let reason = format!(
                "adds the token {content:?}; {} and {} are known",
                SPECIAL.join(", "),
                ADDED.join(" and ")
            );
            return Err(wrong(file, None, reason));
        }
        if single_word || lstrip || rstrip || normalized {
            let reason = format!(
                "adds {content} with single_word, lstrip, rstrip or normalized; all must be false"
            );
            return Err(wrong(file, None, reason));
        }
        let stored = *ids.entry(content.clone()).or_insert(id);
        if stored != id {
            let reason =
                format!("gives {content} the id {stored} in model.vocab and adds it as {id}");
            return Err(wrong(file, None, reason));
        }
    }
    in_order(file, ids)
}

/// Pieces sorted by id; the ids must be 0, 1, 2 and so on.
fn in_order(file: &str, ids: HashMap<String, u32>) -> Result<Vec<String>> {
    let mut pairs: Vec<(u32, String)> = ids.into_iter().map(|(piece, id)| (id, piece)).collect();
    pairs.sort_unstable();
    for (at, (id, piece)) in pairs.iter().enumerate() {
        if *id as usize != at {
            let reason = format!(
                "gives {piece:?} the id {id} where {at} is the next; ids count up from 0, each once"
            );
            return Err(wrong(file, None, reason));
        }
    }
    Ok(pairs.into_iter().map(|(_, piece)| piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PIECES: [&str; 7] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "##s"];

    fn tokenizer() -> Value {
        let vocab: HashMap<&str, usize> =
            PIECES.iter().enumerate().map(|(id, piece)| (*piece, id)).collect();
        json!({
            "added_tokens": [{"id": 3, "content": "[SEP]", "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false}],
            "normalizer": {"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab,
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        })
    }

    fn written(name: &str, content: impl AsRef<[u8]>) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read(&path)
    }

    fn with_added() -> Vec<&'static str> {
        PIECES.into_iter().chain(ADDED).collect()
    }

    #[test]
    fn both_files_give_the_same_pieces() {
        assert_eq!(written("vocab.txt", PIECES.join("\n")).unwrap(), with_added());
        assert_eq!(written("vocab.txt", PIECES.join("\r\n") + "\r\n").unwrap(), with_added());
        assert_eq!(written("tokenizer.json", tokenizer().to_string()).unwrap(), with_added());
    }

    #[test]
    fn a_file_keeps_the_ids_it_has_for_dec_and_enc() {
        let mut own = PIECES.to_vec();
        own.insert(1, "[ENC]");
        let read = written("vocab.txt", own.join("\n")).unwrap();
        assert_eq!((read[1].as_str(), read[8].as_str()), ("[ENC]", "[DEC]"));
        let mut json = tokenizer();
        let added = |id: u32, content| json!({"id": id, "content": content, "special": true});
        json["added_tokens"].as_array_mut().unwrap().extend([added(8, "[DEC]"), added(7, "[ENC]")]);
        let read = written("tokenizer.json", json.to_string()).unwrap();
        assert_eq!(read[7..], ["[ENC]", "[DEC]"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        let lines = |change: &dyn Fn(&mut Vec<&str>)| {
            let mut lines = PIECES.to_vec();
            change(&mut lines);
            lines.join("\n").into_bytes()
        };
        let json = |path: &str, value: Value| {
            let mut tokenizer = tokenizer();
            *tokenizer.pointer_mut(path).unwrap() = value;
            tokenizer.to_string().into_bytes()
        };
        let twice = tokenizer().to_string().replace("\"red\":5", "\"red\":5,\n\"red\":6");
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            (
                "vocab.txt",
                lines(&|l| l.push("red")),
                "vocab.txt, line 8: has \"red\", which line 6",
            ),
            ("vocab.txt", lines(&|l| l.insert(2, "")), "vocab.txt, line 3: is empty"),
            ("vocab.txt", lines(&|l| l.push("a b")), "line 8: has \"a b\" with white space"),
            ("vocab.txt", b"[PAD]\n[UNK]\n\xff\n".to_vec(), "vocab.txt, line 3: is not UTF-8"),
            (
                "vocab.txt",
                lines(&|l| l.retain(|piece| *piece != "[CLS]")),
                "vocab.txt: lacks [CLS] among its 8",
            ),
            ("vocab.txt", Vec::new(), "vocab.txt: lacks [PAD]"),
            (
                "tokenizer.json",
                twice.into_bytes(),
                "tokenizer.json, line 2: is no WordPiece tokenizer: has \"red\" twice",
            ),
            ("tokenizer.json", b"{\n\"model\"".to_vec(), "tokenizer.json, line 2"),
            ("tokenizer.json", b"[]".to_vec(), "is no WordPiece tokenizer"),
            (
                "tokenizer.json",
                json("/model/type", "BPE".into()),
                "model.type is \"BPE\", not \"WordPiece\"",
            ),
            ("tokenizer.json", json("/model/vocab", json!(["a"])), "a map from word piece to id"),
            (
                "tokenizer.json",
                json("/model/vocab/red", 9.into()),
                "gives \"##s\" the id 6 where 5 is the next",
            ),
            ("tokenizer.json", json("/model/vocab/red", 4.into()), "the id 4 where 5 is the next"),
            ("tokenizer.json", json("/model/vocab/red", (-1).into()), "tokenizer.json, line 1"),
            (
                "tokenizer.json",
                json("/normalizer/lowercase", false.into()),
                "normalizer.lowercase is false",
            ),
            ("tokenizer.json", json("/normalizer", Value::Null), "normalizer.type is null"),
            (
                "tokenizer.json",
                json("/added_tokens/0/id", 2.into()),
                "gives [SEP] the id 3 in model.vocab and adds it as 2",
            ),
            ("tokenizer.json", json("/added_tokens/0/lstrip", true.into()), "adds [SEP] with"),
            (
                "tokenizer.json",
                json("/added_tokens/0/content", "<s>".into()),
                "adds the token \"<s>\"",
            ),
        ];
        for (name, content, wanted) in cases {
            let message = written(name, content).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message} should contain {wanted}");
        }
    }
}
