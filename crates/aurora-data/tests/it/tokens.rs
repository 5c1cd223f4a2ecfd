//! Tokens equal those of Hugging Face's `BertTokenizer`, and are well-formed for any text.

use std::path::{Path, PathBuf};

use aurora_data::{Tokenizer, embedded};
use proptest::collection::vec;
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens").join(name)
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    max: usize,
    ids: Vec<u32>,
}

/// 300 texts of many scripts with accents, emoji, punctuation, control characters, addresses, special pieces and words
/// of about 100 characters, over a vocabulary of their characters, in which every character that survives shows. Made
/// by `xtask/src/interop/tokens.py` with transformers 5.23.0.
#[test]
fn ids_are_those_of_the_python_tokenizer() {
    let tokenizer = Tokenizer::from_file(&fixture("mixed.vocab.txt")).unwrap();
    let lines = std::fs::read_to_string(fixture("mixed.jsonl")).unwrap();
    let lines: Vec<Line> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 300);
    for (at, Line { text, max, ids }) in lines.into_iter().enumerate() {
        assert_eq!(tokenizer.encode(&text, max).unwrap(), ids, "line {}: {text:?}", at + 1);
    }
}

#[test]
fn a_word_of_more_than_100_characters_is_unknown() {
    let tokenizer = embedded::vocabulary().unwrap();
    let unk = tokenizer.special().unk;
    for (count, unknown) in [(100, false), (101, true)] {
        let found = tokenizer.encode(&"é".repeat(count), 512).unwrap();
        assert_eq!(found.contains(&unk), unknown, "{count}");
    }
}

#[test]
fn special_pieces_in_a_text_are_themselves() {
    let tokenizer = embedded::vocabulary().unwrap();
    let s = tokenizer.special();
    let found = tokenizer.encode("[MASK][ENC] [DEC]", 512).unwrap();
    assert_eq!(found, [s.cls, s.mask, s.enc, s.dec, s.sep]);
    assert!(!tokenizer.encode("[mask] [Enc]", 512).unwrap().contains(&s.mask));
}

proptest! {
    #[test]
    fn any_text_is_framed_and_below_the_size(text in vec(any::<char>(), 0..60), max in 3usize..40) {
        let text = String::from_iter(text);
        let tokenizer = embedded::vocabulary().unwrap();
        let whole = tokenizer.encode(&text, usize::MAX).unwrap();
        prop_assert_eq!(whole[0], tokenizer.special().cls);
        prop_assert!(whole.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        // Truncated texts keep their beginning and [SEP].
        let cut = tokenizer.encode(&text, max).unwrap();
        prop_assert_eq!(cut.len(), whole.len().min(max));
        prop_assert_eq!(cut.last(), Some(&tokenizer.special().sep));
        prop_assert_eq!(&cut[..cut.len() - 1], &whole[..cut.len() - 1]);
    }

    #[test]
    fn any_file_is_read_or_refused(bytes in vec(any::<u8>(), 0..300), json in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if json { "tokenizer.json" } else { "vocab.txt" });
        std::fs::write(&path, bytes).unwrap();
        let message = Tokenizer::from_file(&path).unwrap_err().to_string();
        prop_assert!(message.contains(&path.display().to_string()), "{}", message);
    }
}

/// The embedded vocabulary as a `tokenizer.json`, truncated anywhere, is refused by name; whole, it
/// reads as before.
#[test]
fn a_cut_tokenizer_json_is_refused() {
    let vocab: std::collections::BTreeMap<&str, usize> =
        embedded::VOCABULARY.lines().take(40).enumerate().map(|(id, piece)| (piece, id)).collect();
    let json = serde_json::json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab,
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    });
    let json = json.to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, &json).unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().vocab_size(), 42); // [DEC], [ENC]
    for end in 0..json.len() {
        std::fs::write(&path, &json[..end]).unwrap();
        let message = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json"), "{end}: {message}");
    }
}
