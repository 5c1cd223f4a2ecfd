//! Text transformer: BERT layers (Devlin et al. 2018, arXiv:1810.04805), each with an optional cross-attention to an
//! image's tokens.

use crate::cross_attention::{EncoderKv, KvSource, Pooling, TextInputs, additive};
use crate::gradient_checkpoint::{GradientCheckpointing, MapTensors, TensorMapper, checkpointed};
use crate::layers::{LayerNorm, Linear, ParamShapes};
use crate::site::{Tower, text_layer};
use crate::tensors::{Tensors, get};
use crate::varlen::Unpadding;
use crate::{BoundModel, Result, TextConfig};
use aurora_kernels::{AbsorbedKv, AttentionOptions, absorbed_attention, attention};
use candle_core::{D, Tensor};

/// Attention: query, key, value and output projections, and the norm after the residual.
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
    fc1: Linear,
    fc2: Linear,
    norm: LayerNorm,
}

/// Text tower of BLIP: text encoder, fusion encoder (with cross-attention to an image), or decoder.
#[derive(Debug, Clone)]
pub(crate) struct TextTower {
    config: TextConfig,
    words: Tensor,     // (vocabulary, width)
    positions: Tensor, // (positions, width)
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// Settings of one pass, shared by all layers.
#[derive(Debug, Clone)]
struct Pass {
    heads: usize,
    /// Positions of the tokens in the padded batch.
    unpadding: Unpadding,
    /// True in the last layer of [`Pooling::Cls`]: only the first token of each text is computed.
    cls_alone: bool,
    /// Options of self-attention; `cross` are those of cross-attention.
    own: AttentionOptions,
    cross: Option<AttentionOptions>,
}

impl MapTensors for Attention {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        Ok(Self {
            query: self.query.map_tensors(mapper)?,
            key: self.key.map_tensors(mapper)?,
            value: self.value.map_tensors(mapper)?,
            output: self.output.map_tensors(mapper)?,
            norm: self.norm.map_tensors(mapper)?,
        })
    }
}

impl Attention {
    fn param_shapes(path: &str, width: usize, context: usize) -> ParamShapes {
        let mut shapes = Linear::param_shapes(&format!("{path}.self.query"), width, width);
        shapes.extend(Linear::param_shapes(&format!("{path}.self.key"), context, width));
        shapes.extend(Linear::param_shapes(&format!("{path}.self.value"), context, width));
        shapes.extend(Linear::param_shapes(&format!("{path}.output.dense"), width, width));
        shapes.extend(LayerNorm::param_shapes(&format!("{path}.output.LayerNorm"), width));
        shapes
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

    fn keys(&self, context: &Tensor, bound: &BoundModel) -> Result<(Tensor, Tensor)> {
        Ok((self.key.adapted_forward(context, bound)?, self.value.adapted_forward(context, bound)?))
    }

    /// Cross-attention keys and values of encoder states.
    fn encode_kv(&self, states: &Tensor, bound: &BoundModel) -> Result<KvSource> {
        let (key, value) = self.keys(states, bound)?;
        Ok(KvSource::Projected(key, value))
    }

    /// Attention block with residual and norm: x (tokens, width) to (tokens, width).
    fn forward(
        &self,
        x: &Tensor,
        seen: &KvSource,
        unpadding: &Unpadding,
        (heads, options): (usize, &AttentionOptions),
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let query = unpadding.scatter(&self.query.adapted_forward(x, bound)?)?; // (batch, length, width)
        let mixed = match seen {
            KvSource::Projected(key, value) => attention(&query, key, value, heads, options)?,
            KvSource::Lazy(states) => {
                let (key, _) = self.key.merged(bound)?;
                let (value, value_bias) = self.value.merged(bound)?;
                let rows = options.kv_rows.as_deref();
                let (key, value, value_bias) = (&key, &value, &value_bias);
                let precision = bound.precision;
                let of = AbsorbedKv { states, key, value, value_bias, rows, precision };
                absorbed_attention(&query, &of, heads)?
            }
        };
        let mixed = unpadding.unpad(&mixed)?; // (tokens, width)
        self.norm.forward(&self.output.forward_residual(&mixed, x, bound)?)
    }
}

impl TextTower {
    /// `seen` is the width of the states that cross-attention reads.
    pub(crate) fn param_shapes(config: &TextConfig, tower: Tower, seen: usize) -> ParamShapes {
        let (width, mlp) = (config.hidden_size, config.intermediate_size);
        let embeddings = format!("{}.embeddings", tower.prefix());
        let mut shapes: ParamShapes = vec![
            (format!("{embeddings}.word_embeddings.weight"), (config.vocab_size, width).into()),
            (
                format!("{embeddings}.position_embeddings.weight"),
                (config.max_position_embeddings, width).into(),
            ),
        ];
        shapes.extend(LayerNorm::param_shapes(&format!("{embeddings}.LayerNorm"), width));
        for layer in 0..config.num_hidden_layers {
            let path = text_layer(tower, layer);
            shapes.extend(Attention::param_shapes(&format!("{path}.attention"), width, width));
            shapes.extend(Attention::param_shapes(&format!("{path}.crossattention"), width, seen));
            shapes.extend(Linear::param_shapes(&format!("{path}.intermediate.dense"), width, mlp));
            shapes.extend(Linear::param_shapes(&format!("{path}.output.dense"), mlp, width));
            shapes.extend(LayerNorm::param_shapes(&format!("{path}.output.LayerNorm"), width));
        }
        shapes
    }

    pub(crate) fn new(config: &TextConfig, tower: Tower, tensors: &Tensors) -> Result<Self> {
        let eps = config.layer_norm_eps;
        let layer = |layer| -> Result<Layer> {
            let path = text_layer(tower, layer);
            Ok(Layer {
                own: Attention::new(&format!("{path}.attention"), eps, tensors)?,
                cross: Attention::new(&format!("{path}.crossattention"), eps, tensors)?,
                fc1: Linear::new(&format!("{path}.intermediate.dense"), tensors)?,
                fc2: Linear::new(&format!("{path}.output.dense"), tensors)?,
                norm: LayerNorm::new(&format!("{path}.output.LayerNorm"), eps, tensors)?,
                path,
            })
        };
        let embeddings = format!("{}.embeddings", tower.prefix());
        Ok(Self {
            words: get(tensors, &format!("{embeddings}.word_embeddings.weight"))?,
            positions: get(tensors, &format!("{embeddings}.position_embeddings.weight"))?,
            norm: LayerNorm::new(&format!("{embeddings}.LayerNorm"), eps, tensors)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// Word embedding table, (vocabulary, width).
    pub(crate) fn words(&self) -> &Tensor {
        &self.words
    }

    /// Cross-attention keys and values of states (images, tokens, seen width), masked where `mask` (images, tokens) is
    /// zero.
    pub(crate) fn encode_kv(
        &self,
        states: &Tensor,
        mask: Option<&Tensor>,
        bound: &BoundModel,
    ) -> Result<EncoderKv> {
        let layers = self.layers.iter().map(|layer| layer.cross.encode_kv(states, bound));
        let mask = mask.map(|mask| additive(mask, states.dtype())).transpose()?;
        Ok(EncoderKv { layers: layers.collect::<Result<_>>()?, mask })
    }

    /// Lazy keys and values: each layer absorbs its key and value projections into queries and outputs.
    pub(crate) fn lazy_kv(&self, states: &Tensor) -> EncoderKv {
        let source = KvSource::Lazy(states.clone());
        EncoderKv { layers: vec![source; self.layers.len()], mask: None }
    }

    /// Forward pass: token ids (batch, length), u32, to the states that `inputs.pooling` asks for.
    pub(crate) fn forward(
        &self,
        ids: &Tensor,
        inputs: TextInputs,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let TextInputs { mask, causal, seen, mut cache, pooling } = inputs;
        let (batch, length) = ids.dims2()?;
        let before = cache.as_ref().map_or(0, |cache| cache.words());
        if before + length > self.config.max_position_embeddings {
            return Err(crate::Error::config(
                "text length",
                before + length,
                format!(
                    "the text tower takes at most text.max_position_embeddings = {}",
                    self.config.max_position_embeddings
                ),
            ));
        }
        if let Some(mask) = mask.filter(|mask| mask.dims() != ids.dims()) {
            let reason = format!("has to be {:?}, as the ids are", ids.dims());
            return Err(crate::Error::config(
                "shape of mask",
                format!("{:?}", mask.dims()),
                reason,
            ));
        }
        let unpadding = match mask {
            Some(mask) if pooling != Pooling::All => Unpadding::from_mask(mask)?,
            _ => Unpadding::dense(batch, length),
        };
        let mut x = self.embed(ids, before, &unpadding)?; // (tokens, width)
        let mask = mask.map(|mask| mask.narrow(1, 0, unpadding.length()));
        let key_mask = mask.transpose()?.map(|mask| additive(&mask, x.dtype())).transpose()?;
        // Attention over few tokens gains nothing from bf16, and gradients of keys are small differences of large
        // numbers.
        let own = AttentionOptions { key_mask, causal, ..AttentionOptions::default() };
        let cross = seen.map(|seen| seen.options()).transpose()?;
        let heads = self.config.num_attention_heads;
        let mut pass = Pass { heads, unpadding, cls_alone: false, own, cross };
        for (index, layer) in self.layers.iter().enumerate() {
            // A causal mask counts queries from the last one, so there the first token is not taken out early.
            pass.cls_alone = pooling == Pooling::Cls && !causal && index + 1 == self.layers.len();
            let seen = seen.map(|seen| &seen.keys.layers[index]);
            x = match (&mut cache, bound.gradient_checkpointing, seen) {
                (None, GradientCheckpointing::Block, None) => {
                    layer.checkpointed(x, None, &pass, bound)?
                }
                (None, GradientCheckpointing::Block, Some(KvSource::Projected(key, value))) => {
                    layer.checkpointed(x, Some((key, value)), &pass, bound)?
                }
                (None, ..) => {
                    let keys = layer.keys(&x, &pass, bound)?;
                    layer.forward(&x, keys, seen, &pass, bound)?
                }
                (Some(cache), ..) => {
                    let keys = cache.extend(index, layer.keys(&x, &pass, bound)?)?;
                    layer.forward(&x, keys, seen, &pass, bound)?
                }
            };
        }
        match pooling {
            Pooling::Cls if pass.cls_alone => Ok(x),
            Pooling::Cls => pass.unpadding.first(&x),
            Pooling::All | Pooling::Tokens => pass.unpadding.pad(&x, length),
        }
    }

    /// Word and position embeddings of ids (batch, length) at positions from `before` on: (tokens, width).
    fn embed(&self, ids: &Tensor, before: usize, unpadding: &Unpadding) -> Result<Tensor> {
        let ids = ids.narrow(1, 0, unpadding.length())?;
        let words = self.words.index_select(&unpadding.unpad(&ids)?.contiguous()?, 0)?; // (tokens, width)
        let positions = self.positions.narrow(0, before, unpadding.length())?;
        let sum = match unpadding.columns() {
            Some(columns) => (words + positions.index_select(columns, 0)?)?,
            None => unpadding.scatter(&words)?.broadcast_add(&positions)?.flatten(0, 1)?,
        };
        self.norm.forward(&sum)
    }
}

impl MapTensors for Layer {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            own: self.own.map_tensors(mapper)?,
            cross: self.cross.map_tensors(mapper)?,
            fc1: self.fc1.map_tensors(mapper)?,
            fc2: self.fc2.map_tensors(mapper)?,
            norm: self.norm.map_tensors(mapper)?,
        })
    }
}

impl Layer {
    /// Self-attention keys and values of x (tokens, width): (batch, length, width).
    fn keys(&self, x: &Tensor, pass: &Pass, bound: &BoundModel) -> Result<(Tensor, Tensor)> {
        let (key, value) = self.own.keys(x, bound)?;
        Ok((pass.unpadding.scatter(&key)?, pass.unpadding.scatter(&value)?))
    }

    /// Layer: x (tokens, width) to (tokens, width), or to (batch, width) with `cls_alone`. Self-attention reads `keys`,
    /// cross-attention `seen`.
    fn forward(
        &self,
        x: &Tensor,
        keys: (Tensor, Tensor),
        seen: Option<&KvSource>,
        pass: &Pass,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let keys = KvSource::Projected(keys.0, keys.1);
        let Pass { heads, unpadding, cls_alone, own, cross } = pass;
        let (first, texts) = match cls_alone {
            true => (Some(unpadding.first(x)?), Unpadding::dense(unpadding.batch(), 1)),
            false => (None, unpadding.clone()),
        };
        let x = first.as_ref().unwrap_or(x);
        let h_self = self.own.forward(x, &keys, &texts, (*heads, own), bound)?; // (tokens, width)
        match (seen, cross) {
            (Some(seen), Some(options)) => {
                let h_cross =
                    self.cross.forward(&h_self, seen, &texts, (*heads, options), bound)?;
                self.fused(&h_self, &h_cross, bound)
            }
            _ => self.alone(&h_self, bound),
        }
    }

    /// Layer as a checkpointed block; the self-attention keys and values are computed inside.
    fn checkpointed(
        &self,
        x: Tensor,
        seen: Option<(&Tensor, &Tensor)>,
        pass: &Pass,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let run = |pass: Pass| {
            move |layer: &Self, inputs: &[Tensor], bound: &BoundModel| {
                let keys = layer.keys(&inputs[0], &pass, bound)?;
                let seen = inputs.get(1).zip(inputs.get(2));
                let seen = seen.map(|(key, value)| KvSource::Projected(key.clone(), value.clone()));
                layer.forward(&inputs[0], keys, seen.as_ref(), &pass, bound)
            }
        };
        let own = "attention.";
        let (maps, inputs): (&[&str], _) = match seen {
            None => (&[own], vec![x]),
            Some((key, value)) => {
                (&[own, "crossattention.self.query"], vec![x, key.clone(), value.clone()])
            }
        };
        let part = bound.of_block(&self.path, maps, seen.is_some())?;
        checkpointed(self, part, inputs, run(pass.clone()))
    }

    /// Output of a layer without fusion: the MLP over the self-attention output, plus a bottleneck.
    fn alone(&self, h_self: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let out = self.mlp(h_self, bound)?;
        match bound.parallel.get(&self.path) {
            None => Ok(out),
            Some(parallel) => parallel.add_self(out, h_self, bound.precision),
        }
    }

    /// Output of a fusion layer: the MLP over the cross-attention output, plus a bottleneck and the gated branches.
    fn fused(&self, h_self: &Tensor, h_cross: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let mut out = self.mlp(h_cross, bound)?;
        if let Some(parallel) = bound.parallel.get(&self.path) {
            out = parallel.add_cross(
                parallel.add_self(out, h_self, bound.precision)?,
                h_cross,
                bound.precision,
            )?;
        }
        match bound.gates.get(&self.path) {
            None => Ok(out),
            Some(gate) => gate.apply(&out, h_self, h_cross),
        }
    }

    fn mlp(&self, x: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let hidden = self.fc1.forward_gelu(x, bound)?; // (tokens, mlp)
        self.norm.forward(&self.fc2.forward_residual(&hidden, x, bound)?)
    }
}

/// State of the first token of each text or image: (batch, tokens, width) to (batch, width).
pub fn cls(states: &Tensor) -> Result<Tensor> {
    Ok(states.narrow(D::Minus2, 0, 1)?.squeeze(D::Minus2)?.contiguous()?)
}
