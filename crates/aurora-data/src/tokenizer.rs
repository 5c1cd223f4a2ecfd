//! WordPiece tokens, as bert-base-uncased and BLIP use them.

mod vocabulary;

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::{Error, Result};

/// How rows of different length are brought to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// To the longest row of the batch.
    #[default]
    Longest,
    /// To the greatest length allowed.
    Fixed,
}

/// Ids of the pieces with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`: fills a row.
    pub pad: u32,
    /// `[UNK]`: a word without pieces.
    pub unk: u32,
    /// `[CLS]`: begins a text.
    pub cls: u32,
    /// `[SEP]`: ends a text.
    pub sep: u32,
    /// `[MASK]`: stands for a token to be guessed.
    pub mask: u32,
    /// `[DEC]`: begins a text to be decoded.
    pub dec: u32,
    /// `[ENC]`: begins a text to be fused with an image.
    pub enc: u32,
}

/// The tokenizer of bert-base-uncased: control characters off, Chinese characters apart, accents off, lower case, words
/// and punctuation apart, then the longest piece first. A word of more than 100 characters, or without pieces, is
/// `[UNK]`. A special piece that a text spells out (`[SEP]`) is that piece, as in Hugging Face's tokenizers.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    tokenizer: HfTokenizer,
    special: SpecialTokens,
    size: usize,
}

impl Tokenizer {
    /// From a vocabulary, one piece a line; the line number less one is the id.
    ///
    /// # Errors
    /// A piece that is empty, has white space in it or is there twice; a special piece that is missing.
    pub fn new(vocabulary: &str) -> Result<Self> {
        let name = "the vocabulary";
        let pieces = vocabulary::from_lines(name, vocabulary)?;
        vocabulary::complete(name, &pieces)?;
        Self::from_pieces(&pieces)
    }

    /// From a `vocab.txt`, or from a `tokenizer.json` (any file whose name ends so) that does what bert-base-uncased's
    /// does. A file without `[DEC]` or `[ENC]` gets them at its end, as BLIP adds them to bert-base-uncased's 30,522
    /// pieces; a file that has them keeps their ids.
    ///
    /// # Errors
    /// A file that cannot be read or is not UTF-8, and those of [`Self::new`], all with file and line; a
    /// `tokenizer.json` of another kind, with the field that says so.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_pieces(&vocabulary::read(path)?)
    }

    /// `pieces` in the order of their ids, complete and each once.
    fn from_pieces(pieces: &[String]) -> Result<Self> {
        let vocab = WordPiece::read_bytes(pieces.join("\n").as_bytes());
        let model = vocab
            .and_then(|vocab| WordPiece::builder().vocab(vocab).build())
            .map_err(|e| tokenize("", &e))?;
        let mut tokenizer = HfTokenizer::new(model);
        tokenizer
            .with_normalizer(Some(BertNormalizer::default()))
            .map_err(|e| tokenize("", &e))?
            .with_pre_tokenizer(Some(BertPreTokenizer));
        let special = vocabulary::SPECIAL.iter().chain(&vocabulary::ADDED);
        tokenizer
            .add_special_tokens(special.map(|piece| AddedToken::from(*piece, true)))
            .map_err(|e| tokenize("", &e))?;
        let id = |piece: &str| tokenizer.token_to_id(piece).unwrap_or_default(); // all are there
        let special = SpecialTokens {
            pad: id("[PAD]"),
            unk: id("[UNK]"),
            cls: id("[CLS]"),
            sep: id("[SEP]"),
            mask: id("[MASK]"),
            dec: id("[DEC]"),
            enc: id("[ENC]"),
        };
        Ok(Self { tokenizer, special, size: pieces.len() })
    }

    /// The special ids.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Fingerprint of the pieces in the order of their ids.
    pub fn fingerprint(&self) -> String {
        let pieces = (0..self.size as u32).map(|id| self.tokenizer.id_to_token(id));
        crate::fingerprint(pieces.map(Option::unwrap_or_default))
    }

    /// How many pieces there are.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// `[CLS] pieces.. [SEP]`, cut so that at most `max_len` ids come out.
    ///
    /// # Errors
    /// When `max_len` leaves no room for a piece.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Vec<u32>> {
        if max_len < 3 {
            return Err(Error::TooShort { max_len });
        }
        let pieces = self.tokenizer.encode_fast(text, false).map_err(|e| tokenize(text, &e))?;
        let mut ids = vec![self.special.cls];
        ids.extend(pieces.get_ids().iter().take(max_len - 2));
        ids.push(self.special.sep);
        Ok(ids)
    }

    /// Ids (batch, length) u32 and mask (batch, length) f32, 1 where there is a token.
    ///
    /// # Errors
    /// When there is no text, or `max_len` leaves no room for a piece.
    pub fn encode_batch<T: AsRef<str>>(
        &self,
        texts: &[T],
        max_len: usize,
        padding: Padding,
    ) -> Result<(Tensor, Tensor)> {
        let rows: Vec<Vec<u32>> =
            texts.iter().map(|t| self.encode(t.as_ref(), max_len)).collect::<Result<_>>()?;
        let longest = rows.iter().map(Vec::len).max().ok_or_else(|| Error::Empty {
            what: "the batch of texts".to_string(),
            reason: "there is nothing to encode".to_string(),
        })?;
        let length = match padding {
            Padding::Longest => longest,
            Padding::Fixed => max_len,
        };
        let mut ids = Vec::with_capacity(rows.len() * length);
        let mut mask = Vec::with_capacity(rows.len() * length);
        for row in &rows {
            for at in 0..length {
                ids.push(row.get(at).copied().unwrap_or(self.special.pad));
                mask.push(if at < row.len() { 1f32 } else { 0f32 });
            }
        }
        let shape = (rows.len(), length);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        Ok((ids, mask)) // (batch, length) twice
    }

    /// The text of `ids`, special pieces left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let s = self.special;
        let special = [s.pad, s.cls, s.sep, s.mask, s.dec, s.enc];
        let mut text = String::new();
        for &id in ids.iter().filter(|id| !special.contains(id)) {
            let piece = self.tokenizer.id_to_token(id).unwrap_or_default();
            match piece.strip_prefix("##") {
                Some(rest) => text.push_str(rest),
                None if text.is_empty() => text.push_str(&piece),
                None => {
                    text.push(' ');
                    text.push_str(&piece);
                }
            }
        }
        text
    }
}

fn tokenize(text: &str, error: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::Tokenize { text: text.to_string(), reason: error.to_string() }
}
