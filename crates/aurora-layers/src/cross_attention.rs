//! Cross-attention inputs, KV cache and output pooling of the text transformer.

use crate::Result;
use aurora_kernels::AttentionOptions;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Cross-attention keys and values of a batch of images (or questions) for every fusion layer, computed once and shared
/// by every text that attends to them.
#[derive(Debug, Clone)]
pub struct EncoderKv {
    pub(crate) layers: Vec<KvSource>,
    pub(crate) mask: Option<Tensor>, // (images, image tokens), added to scores
}

/// Source of a fusion layer's keys and values.
#[derive(Debug, Clone)]
pub(crate) enum KvSource {
    /// Projected keys and values: (images, image tokens, width).
    Projected(Tensor, Tensor),
    /// Encoder states (images, image tokens, encoder width); the layer absorbs its key and value projections into
    /// queries and outputs.
    Lazy(Tensor),
}

impl KvSource {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Projected(tensor, _) | Self::Lazy(tensor) => tensor,
        }
    }
}

impl EncoderKv {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.layers.first().map_or(0, |source| source.tensor().dims()[0])
    }

    /// Masks the keys where `mask` (images, image tokens) is zero. Not for [`crate::Blip::lazy_kv`], whose attention
    /// takes no mask.
    pub fn with_mask(mut self, mask: &Tensor) -> Result<Self> {
        if let Some(source) = self.layers.first() {
            self.mask = Some(additive(mask, source.tensor().dtype())?);
        }
        Ok(self)
    }
}

/// Cross-attention of a batch of texts: encoder states, their assignment to texts, and key weights.
#[derive(Debug, Clone)]
pub struct CrossAttention<'a> {
    pub(crate) keys: &'a EncoderKv,
    rows: Option<Arc<[u32]>>,
    key_scale: Option<Tensor>,
}

impl<'a> CrossAttention<'a> {
    /// Text b attends to image b.
    pub fn new(keys: &'a EncoderKv) -> Self {
        Self { keys, rows: None, key_scale: None }
    }

    /// Text b attends to image `rows[b]`.
    pub fn rows(mut self, rows: impl Into<Arc<[u32]>>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// Key weights of each text: (texts, keys), without gradient.
    pub fn with_key_scale(mut self, key_scale: Option<Tensor>) -> Self {
        self.key_scale = key_scale;
        self
    }

    pub(crate) fn options(&self) -> Result<AttentionOptions> {
        let key_mask = match (&self.keys.mask, &self.rows) {
            (Some(mask), Some(rows)) => {
                Some(mask.index_select(&Tensor::from_slice(rows, rows.len(), mask.device())?, 0)?)
            }
            (mask, _) => mask.clone(),
        };
        let (key_scale, kv_rows) = (self.key_scale.clone(), self.rows.clone());
        Ok(AttentionOptions { key_mask, key_scale, kv_rows, ..AttentionOptions::default() })
    }
}

/// KV cache of a decoder: self-attention keys and values of the tokens so far, per layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // key, value: (texts, words so far, width)
}

impl KvCache {
    /// Number of cached tokens.
    pub(crate) fn words(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[1])
    }

    /// Rows of the cache, in this order: for beam search.
    pub(crate) fn select(&self, rows: &Tensor) -> Result<Self> {
        let select = |(key, value): &(Tensor, Tensor)| {
            Ok((key.index_select(rows, 0)?, value.index_select(rows, 0)?))
        };
        Ok(Self { layers: self.layers.iter().map(select).collect::<Result<_>>()? })
    }

    /// Appends the new tokens' keys and values of a layer; returns all of them.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        new: (Tensor, Tensor),
    ) -> Result<(Tensor, Tensor)> {
        let Some(old) = self.layers.get_mut(layer) else {
            self.layers.push(new.clone());
            return Ok(new);
        };
        let join = |old: &Tensor, new: &Tensor| Tensor::cat(&[old, new], 1);
        *old = (join(&old.0, &new.0)?, join(&old.1, &new.1)?);
        Ok(old.clone())
    }
}

/// Inputs of a text tower beside the token ids.
#[derive(Debug, Default)]
pub(crate) struct TextInputs<'a> {
    /// Padding mask (batch, length): one for tokens, zero for padding; none without padding.
    pub(crate) mask: Option<&'a Tensor>,
    /// Causal self-attention, as in a decoder.
    pub(crate) causal: bool,
    /// Cross-attention; with it the gated query transformation applies.
    pub(crate) seen: Option<&'a CrossAttention<'a>>,
    /// KV cache of the tokens before these, extended by them.
    pub(crate) cache: Option<&'a mut KvCache>,
    /// Pooling of the output states.
    pub(crate) pooling: Pooling,
}

/// Output pooling: the states that leave a tower. Others are computed only as far as these need them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// States of all positions, padding computed like tokens as in other implementations: (batch, length, width).
    #[default]
    All,
    /// States of tokens, zeros at padding: (batch, length, width).
    Tokens,
    /// State of the first token: (batch, width).
    Cls,
}

/// Additive attention mask of BERT: 0 for a token, -10,000 for padding.
pub(crate) fn additive(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(mask.to_dtype(DType::F32)?.affine(10_000.0, -10_000.0)?.to_dtype(dtype)?)
}
