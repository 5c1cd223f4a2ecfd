//! The text transformer: BERT layers, each with an optional cross-attention to a picture's tokens.

use crate::block::{LayerNorm, Linear, Wanted};
use crate::site::{Tower, text_layer};
use crate::tensors::{Tensors, get};
use crate::{Prepared, Result, TextConfig};
use aurora_kernels::{AttentionOptions, attention, gelu};
use candle_core::{D, DType, Tensor};
use std::sync::Arc;

/// Query, key and value maps, the output map and the norm after the residual.
#[derive(Debug, Clone)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
}

#[derive(Debug, Clone)]
struct Layer {
    path: String,
    own: Attention,
    cross: Attention,
    expand: Linear,
    contract: Linear,
    norm: LayerNorm,
}

/// A text tower of BLIP: as encoder (text alone), as fusion encoder (text looking at a picture), as decoder.
#[derive(Debug, Clone)]
pub(crate) struct TextTower {
    config: TextConfig,
    words: Tensor,     // (vocabulary, width)
    positions: Tensor, // (positions, width)
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// The keys and values of a batch of pictures (or questions) for every fusion layer, computed once and shared by every
/// text that looks at them.
#[derive(Debug, Clone)]
pub struct CrossKeys {
    layers: Vec<(Tensor, Tensor)>, // key, value: (pictures, picture tokens, width)
    mask: Option<Tensor>,          // (pictures, picture tokens), added to scores
}

impl CrossKeys {
    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[0])
    }
}

/// What each text looks at, and how.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    keys: &'a CrossKeys,
    rows: Option<Arc<[u32]>>,
    key_scale: Option<Tensor>,
}

impl<'a> Seen<'a> {
    /// Text b looks at picture b.
    pub fn new(keys: &'a CrossKeys) -> Self {
        Self { keys, rows: None, key_scale: None }
    }

    /// Text b looks at picture `rows[b]`.
    pub fn rows(mut self, rows: impl Into<Arc<[u32]>>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// Each text weighs the keys of what it looks at: (texts, keys). No gradient goes through it.
    pub fn scaled(mut self, key_scale: Option<Tensor>) -> Self {
        self.key_scale = key_scale;
        self
    }

    fn options(&self) -> Result<AttentionOptions> {
        let key_mask = match (&self.keys.mask, &self.rows) {
            (Some(mask), Some(rows)) => {
                Some(mask.index_select(&Tensor::from_slice(rows, rows.len(), mask.device())?, 0)?)
            }
            (mask, _) => mask.clone(),
        };
        let (key_scale, kv_rows) = (self.key_scale.clone(), self.rows.clone());
        Ok(AttentionOptions { key_mask, key_scale, kv_rows, causal: false })
    }
}

/// The keys and values of a text so far, layer by layer: what a decoder keeps so that each new word costs one word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    layers: Vec<(Tensor, Tensor)>, // key, value: (texts, words so far, width)
}

impl Past {
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
    fn extend(&mut self, layer: usize, new: (Tensor, Tensor)) -> Result<(Tensor, Tensor)> {
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
pub(crate) struct Reading<'a> {
    /// Ones for tokens and zeros for padding, (batch, length); without it there is no padding.
    pub(crate) mask: Option<&'a Tensor>,
    /// Whether a word sees only those before it and itself, as in a decoder.
    pub(crate) causal: bool,
    /// What the texts look at; with it the gated query transformation applies.
    pub(crate) seen: Option<&'a Seen<'a>>,
    /// The words before these, to which these are added.
    pub(crate) past: Option<&'a mut Past>,
}

/// BERT's additive mask: nothing for a token, -10,000 for padding.
fn additive(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(mask.to_dtype(DType::F32)?.affine(10_000.0, -10_000.0)?.to_dtype(dtype)?)
}

impl Attention {
    fn wanted(path: &str, width: usize, context: usize) -> Wanted {
        let mut wanted = Linear::wanted(&format!("{path}.self.query"), width, width);
        wanted.extend(Linear::wanted(&format!("{path}.self.key"), context, width));
        wanted.extend(Linear::wanted(&format!("{path}.self.value"), context, width));
        wanted.extend(Linear::wanted(&format!("{path}.output.dense"), width, width));
        wanted.extend(LayerNorm::wanted(&format!("{path}.output.LayerNorm"), width));
        wanted
    }

    fn new(path: &str, eps: f64, tensors: &Tensors) -> Result<Self> {
        Ok(Self {
            query: Linear::new(&format!("{path}.self.query"), tensors)?,
            key: Linear::new(&format!("{path}.self.key"), tensors)?,
            value: Linear::new(&format!("{path}.self.value"), tensors)?,
            output: Linear::new(&format!("{path}.output.dense"), tensors)?,
            norm: LayerNorm::new(&format!("{path}.output.LayerNorm"), eps, tensors)?,
        })
    }

    fn keys(&self, context: &Tensor, prepared: &Prepared) -> Result<(Tensor, Tensor)> {
        Ok((self.key.adapted(context, prepared)?, self.value.adapted(context, prepared)?))
    }

    fn forward(
        &self,
        x: &Tensor,
        (key, value): &(Tensor, Tensor),
        heads: usize,
        options: &AttentionOptions,
        prepared: &Prepared,
    ) -> Result<Tensor> {
        let query = self.query.adapted(x, prepared)?;
        let mixed = attention(&query, key, value, heads, options)?;
        self.norm.forward(&(self.output.plain(&mixed)? + x)?)
    }
}

impl TextTower {
    /// `seen` is the width of what its cross-attention looks at.
    pub(crate) fn wanted(config: &TextConfig, tower: Tower, seen: usize) -> Wanted {
        let (width, mlp) = (config.hidden_size, config.mlp_size);
        let embeddings = format!("{}.embeddings", tower.prefix());
        let mut wanted: Wanted = vec![
            (format!("{embeddings}.word_embeddings.weight"), (config.vocab_size, width).into()),
            (
                format!("{embeddings}.position_embeddings.weight"),
                (config.max_positions, width).into(),
            ),
        ];
        wanted.extend(LayerNorm::wanted(&format!("{embeddings}.LayerNorm"), width));
        for layer in 0..config.layers {
            let path = text_layer(tower, layer);
            wanted.extend(Attention::wanted(&format!("{path}.attention"), width, width));
            wanted.extend(Attention::wanted(&format!("{path}.crossattention"), width, seen));
            wanted.extend(Linear::wanted(&format!("{path}.intermediate.dense"), width, mlp));
            wanted.extend(Linear::wanted(&format!("{path}.output.dense"), mlp, width));
            wanted.extend(LayerNorm::wanted(&format!("{path}.output.LayerNorm"), width));
        }
        wanted
    }

    pub(crate) fn new(config: &TextConfig, tower: Tower, tensors: &Tensors) -> Result<Self> {
        let eps = config.layer_norm_eps;
        let layer = |layer| -> Result<Layer> {
            let path = text_layer(tower, layer);
            Ok(Layer {
                own: Attention::new(&format!("{path}.attention"), eps, tensors)?,
                cross: Attention::new(&format!("{path}.crossattention"), eps, tensors)?,
                expand: Linear::new(&format!("{path}.intermediate.dense"), tensors)?,
                contract: Linear::new(&format!("{path}.output.dense"), tensors)?,
                norm: LayerNorm::new(&format!("{path}.output.LayerNorm"), eps, tensors)?,
                path,
            })
        };
        let embeddings = format!("{}.embeddings", tower.prefix());
        Ok(Self {
            words: get(tensors, &format!("{embeddings}.word_embeddings.weight"))?,
            positions: get(tensors, &format!("{embeddings}.position_embeddings.weight"))?,
            norm: LayerNorm::new(&format!("{embeddings}.LayerNorm"), eps, tensors)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The word embeddings, (vocabulary, width).
    pub(crate) fn words(&self) -> &Tensor {
        &self.words
    }

    /// The cross-attention keys and values of what is looked at: states (pictures, tokens, seen width), all of it or
    /// where `mask` (pictures, tokens) is one.
    pub(crate) fn cross_keys(
        &self,
        states: &Tensor,
        mask: Option<&Tensor>,
        prepared: &Prepared,
    ) -> Result<CrossKeys> {
        let layers = self.layers.iter().map(|layer| layer.cross.keys(states, prepared));
        let mask = mask.map(|mask| additive(mask, states.dtype())).transpose()?;
        Ok(CrossKeys { layers: layers.collect::<Result<_>>()?, mask })
    }

    /// Token ids (batch, length), u32, to states (batch, length, width).
    pub(crate) fn forward(
        &self,
        ids: &Tensor,
        reading: Reading,
        prepared: &Prepared,
    ) -> Result<Tensor> {
        let Reading { mask, causal, seen, mut past } = reading;
        let (batch, length) = ids.dims2()?;
        let before = past.as_ref().map_or(0, |past| past.words());
        if before + length > self.config.max_positions {
            return Err(crate::Error::config(
                "text length",
                before + length,
                format!(
                    "the text tower takes at most text.max_positions = {}",
                    self.config.max_positions
                ),
            ));
        }
        let words =
            self.words.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, ()))?;
        let positions = self.positions.narrow(0, before, length)?;
        let mut x = self.norm.forward(&words.broadcast_add(&positions)?)?; // (batch, length, width)
        let key_mask = mask.map(|mask| additive(mask, x.dtype())).transpose()?;
        let own = AttentionOptions { key_mask, causal, ..AttentionOptions::default() };
        let cross = seen.map(|seen| seen.options()).transpose()?;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut keys = layer.own.keys(&x, prepared)?;
            if let Some(past) = &mut past {
                keys = past.extend(index, keys)?;
            }
            let heads = self.config.heads;
            let h_self = layer.own.forward(&x, &keys, heads, &own, prepared)?; // (batch, length, width)
            x = match (seen, &cross) {
                (Some(seen), Some(options)) => {
                    let keys = &seen.keys.layers[index];
                    let h_cross = layer.cross.forward(&h_self, keys, heads, options, prepared)?;
                    layer.fused(&h_self, &h_cross, prepared)?
                }
                _ => layer.alone(&h_self, prepared)?,
            };
        }
        Ok(x)
    }
}

impl Layer {
    /// What leaves a layer of a text alone: the MLP over the self-attention's output, and a bottleneck.
    fn alone(&self, h_self: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        let out = self.mlp(h_self)?;
        match prepared.beside.get(&self.path) {
            None => Ok(out),
            Some(beside) => beside.add_own(out, h_self),
        }
    }

    /// What leaves a fusion layer: the MLP over the cross-attention's output, a bottleneck, and what the gate lets
    /// through.
    fn fused(&self, h_self: &Tensor, h_cross: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        let mut out = self.mlp(h_cross)?;
        if let Some(beside) = prepared.beside.get(&self.path) {
            out = beside.add_fused(beside.add_own(out, h_self)?, h_cross)?;
        }
        match prepared.gates.get(&self.path) {
            None => Ok(out),
            Some(gate) => gate.apply(&out, h_self, h_cross),
        }
    }

    fn mlp(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = gelu(&self.expand.plain(x)?)?; // (batch, length, mlp)
        self.norm.forward(&(self.contract.plain(&hidden)? + x)?)
    }
}

/// The first token's state of each text or picture: (batch, tokens, width) to (batch, width).
pub fn cls(states: &Tensor) -> Result<Tensor> {
    Ok(states.narrow(D::Minus2, 0, 1)?.squeeze(D::Minus2)?.contiguous()?)
}
