//! The text transformer: BERT layers, each with an optional cross-attention to a picture's tokens.

use crate::block::{LayerNorm, Linear, Wanted};
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

/// The text tower of BLIP, as encoder (text alone) and as fusion encoder (text looking at a picture).
#[derive(Debug, Clone)]
pub(crate) struct TextTower {
    config: TextConfig,
    words: Tensor,     // (vocabulary, width)
    positions: Tensor, // (positions, width)
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// The keys and values of a batch of pictures for every fusion layer, computed once and shared by every text that
/// looks at them.
#[derive(Debug, Clone)]
pub struct CrossKeys {
    layers: Vec<(Tensor, Tensor)>, // key, value: (pictures, picture tokens, width)
}

impl CrossKeys {
    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[0])
    }
}

/// Which picture each text looks at, and how.
#[derive(Debug, Clone)]
pub(crate) struct Context<'a> {
    pub(crate) keys: &'a CrossKeys,
    /// Text b looks at picture `rows[b]`; without it, at picture b.
    pub(crate) rows: Option<Arc<[u32]>>,
}

const EMBEDDINGS: &str = "text_encoder.embeddings";

fn layer_path(layer: usize) -> String {
    format!("text_encoder.encoder.layer.{layer}")
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
    /// `vision_width` is the width of the pictures' tokens.
    pub(crate) fn wanted(config: &TextConfig, vision_width: usize) -> Wanted {
        let (width, mlp) = (config.hidden_size, config.mlp_size);
        let mut wanted: Wanted = vec![
            (format!("{EMBEDDINGS}.word_embeddings.weight"), (config.vocab_size, width).into()),
            (
                format!("{EMBEDDINGS}.position_embeddings.weight"),
                (config.max_positions, width).into(),
            ),
        ];
        wanted.extend(LayerNorm::wanted(&format!("{EMBEDDINGS}.LayerNorm"), width));
        for layer in 0..config.layers {
            let path = layer_path(layer);
            wanted.extend(Attention::wanted(&format!("{path}.attention"), width, width));
            wanted.extend(Attention::wanted(
                &format!("{path}.crossattention"),
                width,
                vision_width,
            ));
            wanted.extend(Linear::wanted(&format!("{path}.intermediate.dense"), width, mlp));
            wanted.extend(Linear::wanted(&format!("{path}.output.dense"), mlp, width));
            wanted.extend(LayerNorm::wanted(&format!("{path}.output.LayerNorm"), width));
        }
        wanted
    }

    pub(crate) fn new(config: &TextConfig, tensors: &Tensors) -> Result<Self> {
        let eps = config.layer_norm_eps;
        let layer = |layer| -> Result<Layer> {
            let path = layer_path(layer);
            Ok(Layer {
                own: Attention::new(&format!("{path}.attention"), eps, tensors)?,
                cross: Attention::new(&format!("{path}.crossattention"), eps, tensors)?,
                expand: Linear::new(&format!("{path}.intermediate.dense"), tensors)?,
                contract: Linear::new(&format!("{path}.output.dense"), tensors)?,
                norm: LayerNorm::new(&format!("{path}.output.LayerNorm"), eps, tensors)?,
                path,
            })
        };
        Ok(Self {
            words: get(tensors, &format!("{EMBEDDINGS}.word_embeddings.weight"))?,
            positions: get(tensors, &format!("{EMBEDDINGS}.position_embeddings.weight"))?,
            norm: LayerNorm::new(&format!("{EMBEDDINGS}.LayerNorm"), eps, tensors)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The cross-attention keys and values of picture tokens (pictures, tokens, vision width).
    pub(crate) fn cross_keys(
        &self,
        image_states: &Tensor,
        prepared: &Prepared,
    ) -> Result<CrossKeys> {
        let layers = self.layers.iter().map(|layer| layer.cross.keys(image_states, prepared));
        Ok(CrossKeys { layers: layers.collect::<Result<_>>()? })
    }

    /// Token ids (batch, length) u32 and mask (batch, length) of ones and zeros to states (batch, length, width).
    /// With a `context` the texts look at pictures, and the gated query transformation applies.
    pub(crate) fn forward(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        context: Option<&Context>,
        prepared: &Prepared,
    ) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        if length > self.config.max_positions {
            return Err(crate::Error::config(
                "text length",
                length,
                format!(
                    "the text tower takes at most text.max_positions = {}",
                    self.config.max_positions
                ),
            ));
        }
        let words =
            self.words.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, ()))?;
        let positions = self.positions.narrow(0, 0, length)?;
        let mut x = self.norm.forward(&words.broadcast_add(&positions)?)?; // (batch, length, width)
        // BERT's additive mask: nothing for a token, -10,000 for padding.
        let key_mask =
            mask.to_dtype(DType::F32)?.affine(10_000.0, -10_000.0)?.to_dtype(x.dtype())?;
        let own = AttentionOptions { key_mask: Some(key_mask), ..AttentionOptions::default() };
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, index, self.config.heads, &own, context, prepared)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn forward(
        &self,
        x: &Tensor,
        index: usize,
        heads: usize,
        own: &AttentionOptions,
        context: Option<&Context>,
        prepared: &Prepared,
    ) -> Result<Tensor> {
        let keys = self.own.keys(x, prepared)?;
        let h_self = self.own.forward(x, &keys, heads, own, prepared)?; // (batch, length, width)
        let beside = prepared.beside.get(&self.path);
        let Some(context) = context else {
            let out = self.mlp(&h_self)?;
            return match beside {
                None => Ok(out),
                Some(beside) => beside.add_own(out, &h_self),
            };
        };
        let options =
            AttentionOptions { kv_rows: context.rows.clone(), ..AttentionOptions::default() };
        let keys = &context.keys.layers[index];
        let h_cross = self.cross.forward(&h_self, keys, heads, &options, prepared)?;
        let mut out = self.mlp(&h_cross)?;
        if let Some(beside) = beside {
            out = beside.add_fused(beside.add_own(out, &h_self)?, &h_cross)?;
        }
        match prepared.gates.get(index) {
            None => Ok(out),
            Some(gate) => gate.apply(&out, &h_self, &h_cross),
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
