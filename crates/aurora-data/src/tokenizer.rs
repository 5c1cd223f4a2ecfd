//! WordPiece tokenizer of bert-base-uncased and BLIP (Devlin et al. 2018, arXiv:1810.04805).

mod vocabulary;

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::{Error, Result};

/// Padding of token rows to a common length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// Pad to the longest row of the batch.
    #[default]
    Longest,
    /// Pad to the maximum length.
    Fixed,
}

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`: padding.
    pub pad: u32,
    /// `[UNK]`: unknown word.
    pub unk: u32,
    /// `[CLS]`: begin of text.
    pub cls: u32,
    /// `[SEP]`: end of text.
    pub sep: u32,
    /// `[MASK]`: masked token.
    pub mask: u32,
    /// `[DEC]`: begin of text for the decoder.
    pub dec: u32,
    /// `[ENC]`: begin of text for the image-grounded encoder.
    pub enc: u32,
}

/// Tokenizer of bert-base-uncased: control characters removed, CJK characters isolated, accents
/// stripped, lower case, split at white space and punctuation, then greedy longest-match WordPiece.
/// A word of more than 100 characters, or without pieces, is `[UNK]`. A special token spelled out
/// in a text (`[SEP]`) maps to its id, as in Hugging Face's tokenizers.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    tokenizer: HfTokenizer,
    special: SpecialTokens,
    size: usize,
}

impl Tokenizer {
    /// Tokenizer of a vocabulary with one piece a line; the id is the line number minus one.
    ///
    /// # Errors
    /// A piece that is empty, contains white space or occurs twice; a missing special token.
    pub fn new(vocabulary: &str) -> Result<Self> {
        let name = "the vocabulary";
        let pieces = vocabulary::from_lines(name, vocabulary)?;
        vocabulary::complete(name, &pieces)?;
        Self::from_pieces(&pieces)
    }

    /// Tokenizer of a `vocab.txt`, or of a `tokenizer.json` (any name that ends so) equivalent to
    /// that of bert-base-uncased. A file without `[DEC]` or `[ENC]` gets them appended, as BLIP
    /// does to the 30,522 pieces of bert-base-uncased; a file that has them keeps their ids.
    ///
    /// # Errors
    /// A file that cannot be read or is not UTF-8, and those of [`Self::new`], all with file and
    /// line; a `tokenizer.json` of another kind, with the field that differs.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::from_pieces(&vocabulary::read(path)?)
    }

    /// Tokenizer of `pieces` in id order, complete and without duplicates.
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

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Fingerprint of the vocabulary in id order.
    pub fn fingerprint(&self) -> String {
        let pieces = (0..self.size as u32).map(|id| self.tokenizer.id_to_token(id));
        crate::fingerprint(pieces.map(Option::unwrap_or_default))
    }

    /// Vocabulary size.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// Encodes a text as `[CLS] pieces.. [SEP]`, truncated to at most `max_len` ids.
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

    /// Encodes a batch: ids (batch, length) u32 and attention mask (batch, length) f32, 1 at
    /// tokens.
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

    /// Decodes `ids`, special tokens omitted.
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
