//! How texts are read: what they look at, what hides, and which of their states are wanted.

use crate::Result;
use aurora_kernels::AttentionOptions;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// The keys and values of a batch of images (or questions) for every fusion layer, computed once and shared by every
/// text that looks at them.
#[derive(Debug, Clone)]
pub struct EncoderKv {
    pub(crate) layers: Vec<KvSource>,
    pub(crate) mask: Option<Tensor>, // (images, image tokens), added to scores
}

/// What a fusion layer looks at.
#[derive(Debug, Clone)]
pub(crate) enum KvSource {
    /// Keys and values: (images, image tokens, width).
    Projected(Tensor, Tensor),
    /// What they would be made of, the layer's maps folded into queries and outputs: (images, image tokens, width
    /// of what is seen).
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

    /// The same with nothing to be seen where `mask` (images, image tokens) is zero. Not for
    /// [`crate::Blip::lazy_kv`], which hides nothing.
    pub fn with_mask(mut self, mask: &Tensor) -> Result<Self> {
        if let Some(source) = self.layers.first() {
            self.mask = Some(additive(mask, source.tensor().dtype())?);
        }
        Ok(self)
    }
}

/// What each text looks at, and how.
#[derive(Debug, Clone)]
pub struct CrossAttention<'a> {
    pub(crate) keys: &'a EncoderKv,
    rows: Option<Arc<[u32]>>,
    key_scale: Option<Tensor>,
}

impl<'a> CrossAttention<'a> {
    /// Text b looks at image b.
    pub fn new(keys: &'a EncoderKv) -> Self {
        Self { keys, rows: None, key_scale: None }
    }

    /// Text b looks at image `rows[b]`.
    pub fn rows(mut self, rows: impl Into<Arc<[u32]>>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// Each text weighs the keys of what it looks at: (texts, keys). No gradient goes through it.
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

/// The keys and values of a text so far, layer by layer: what a decoder keeps so that each new word costs one word.
#[derive(Debug, Clone, Default)]
pub(crate) struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // key, value: (texts, words so far, width)
}

impl KvCache {
    /// Number of words it knows.
    pub(crate) fn words(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[1])
    }

    /// The texts of these rows, in this order.
    pub(crate) fn select(&self, rows: &Tensor) -> Result<Self> {
        let select = |(key, value): &(Tensor, Tensor)| {
            Ok((key.index_select(rows, 0)?, value.index_select(rows, 0)?))
        };
        Ok(Self { layers: self.layers.iter().map(select).collect::<Result<_>>()? })
    }

    /// The keys and values of a layer with the new words behind; they are kept.
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

/// How a text is read.
#[derive(Debug, Default)]
pub(crate) struct TextInputs<'a> {
    /// Ones for tokens and zeros for padding, (batch, length); without it there is no padding.
    pub(crate) mask: Option<&'a Tensor>,
    /// Whether a word sees only those before it and itself, as in a decoder.
    pub(crate) causal: bool,
    /// What the texts look at; with it the gated query transformation applies.
    pub(crate) seen: Option<&'a CrossAttention<'a>>,
    /// The words before these, to which these are added.
    pub(crate) cache: Option<&'a mut KvCache>,
    /// What is asked for.
    pub(crate) pooling: Pooling,
}

/// Which states of texts leave a tower. What is not asked for is computed no further than those need it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Of all places, padding read like tokens, as other implementations do: (batch, length, width).
    #[default]
    All,
    /// Of all tokens, zeros for padding: (batch, length, width).
    Tokens,
    /// Of the first token: (batch, width).
    Cls,
}

/// BERT's additive mask of ones and zeros: nothing for a token, -10,000 for padding.
pub(crate) fn additive(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(mask.to_dtype(DType::F32)?.affine(10_000.0, -10_000.0)?.to_dtype(dtype)?)
}
