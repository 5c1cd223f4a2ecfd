//! WordPiece tokens, as bert-base-uncased and BLIP use them.

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

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
pub struct Special {
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
    /// `[ENC]`: begins a text to be fused with a picture.
    pub enc: u32,
}

/// The tokenizer: lower case, accents off, words and punctuation apart, then the longest piece
/// first.
#[derive(Debug, Clone)]
pub struct Tokens {
    tokenizer: Tokenizer,
    special: Special,
    size: usize,
}

impl Tokens {
    /// From a vocabulary, one piece a line; the line number is the id.
    ///
    /// # Errors
    /// When one of the special pieces is missing.
    pub fn new(vocabulary: &str) -> Result<Self> {
        let pieces = WordPiece::read_bytes(vocabulary.as_bytes()).map_err(|e| tokenize("", &e))?;
        let size = pieces.len();
        let id = |piece: &str| {
            pieces
                .get(piece)
                .copied()
                .ok_or_else(|| Error::Vocabulary { piece: piece.to_string(), count: size })
        };
        let special = Special {
            pad: id("[PAD]")?,
            unk: id("[UNK]")?,
            cls: id("[CLS]")?,
            sep: id("[SEP]")?,
            mask: id("[MASK]")?,
            dec: id("[DEC]")?,
            enc: id("[ENC]")?,
        };
        let model = WordPiece::builder()
            .vocab(pieces)
            .unk_token("[UNK]".to_string())
            .build()
            .map_err(|e| tokenize("", &e))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(Some(BertNormalizer::default()))
            .map_err(|e| tokenize("", &e))?
            .with_pre_tokenizer(Some(BertPreTokenizer));
        Ok(Self { tokenizer, special, size })
    }

    /// From a `vocab.txt`. bert-base-uncased's own, 30,522 pieces, gets `[DEC]` and `[ENC]` at
    /// its end, as BLIP adds them.
    ///
    /// # Errors
    /// When the file cannot be read, and those of [`Self::new`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        if !text.lines().any(|l| l == "[DEC]" || l == "[ENC]") {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str("[DEC]\n[ENC]\n");
        }
        Self::new(&text)
    }

    /// The special ids.
    pub fn special(&self) -> Special {
        self.special
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
