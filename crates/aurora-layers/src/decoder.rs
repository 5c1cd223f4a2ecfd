//! Text decoder: a text tower with causal attention and a language modeling head.

use crate::layers::{LayerNorm, Linear, ParamShapes, is_norm};
use crate::site::Tower;
use crate::tensors::{Tensors, get};
use crate::text::TextTower;
use crate::{DecoderTokens, Result, TextConfig};
use aurora_kernels::{Precision, gelu};
use candle_core::{DType, Device, Tensor};

const PREDICTIONS: &str = "text_decoder.cls.predictions";

/// Tied tensors that checkpoints may store twice, each with the tensor it copies: the head's weight is the word
/// embedding table, and its bias is stored twice.
pub(crate) const TIED: [(&str, &str); 2] = [
    (
        "text_decoder.cls.predictions.decoder.weight",
        "text_decoder.bert.embeddings.word_embeddings.weight",
    ),
    ("text_decoder.cls.predictions.decoder.bias", "text_decoder.cls.predictions.bias"),
];

/// Text decoder with its language modeling head.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    pub(crate) tower: TextTower,
    pub(crate) tokens: DecoderTokens,
    transform: Linear,
    norm: LayerNorm,
    bias: Tensor, // (vocabulary)
}

impl Decoder {
    /// `seen` is the width of the encoder states that cross-attention reads.
    pub(crate) fn param_shapes(config: &TextConfig, seen: usize) -> ParamShapes {
        let width = config.hidden_size;
        let mut shapes = TextTower::param_shapes(config, Tower::Decoder, seen);
        shapes.extend(Linear::param_shapes(
            &format!("{PREDICTIONS}.transform.dense"),
            width,
            width,
        ));
        shapes
            .extend(LayerNorm::param_shapes(&format!("{PREDICTIONS}.transform.LayerNorm"), width));
        shapes.push((format!("{PREDICTIONS}.bias"), config.vocab_size.into()));
        shapes
    }

    pub(crate) fn new(
        config: &TextConfig,
        tokens: &DecoderTokens,
        tensors: &Tensors,
    ) -> Result<Self> {
        let eps = config.layer_norm_eps;
        Ok(Self {
            tower: TextTower::new(config, Tower::Decoder, tensors)?,
            tokens: *tokens,
            transform: Linear::new(&format!("{PREDICTIONS}.transform.dense"), tensors)?,
            norm: LayerNorm::new(&format!("{PREDICTIONS}.transform.LayerNorm"), eps, tensors)?,
            bias: get(tensors, &format!("{PREDICTIONS}.bias"))?,
        })
    }

    /// Untrained decoder tensors from a text encoder's: embeddings, self-attention and MLP are copies. Cross-attention
    /// is copied from self-attention, because it reads the states of a text too. In the head's transform the weight is
    /// the identity, the norm's weight one, and all else zero.
    pub(crate) fn init_from_encoder(
        config: &TextConfig,
        encoder: &Tensors,
        device: &Device,
    ) -> Result<Tensors> {
        let (from, to) = (Tower::Decoder.prefix(), Tower::Text.prefix());
        let made =
            Self::param_shapes(config, config.hidden_size).into_iter().map(|(name, shape)| {
                let tensor = match name.strip_prefix(from) {
                    Some(rest) => {
                        let rest = rest.replace(".crossattention.", ".attention.");
                        get(encoder, &format!("{to}{rest}"))?
                    }
                    None if name.ends_with("dense.weight") => {
                        Tensor::eye(config.hidden_size, DType::F32, device)?
                    }
                    None if is_norm(&name) && name.ends_with("weight") => {
                        Tensor::ones(shape, DType::F32, device)?
                    }
                    None => Tensor::zeros(shape, DType::F32, device)?,
                };
                Ok((name, tensor))
            });
        made.collect()
    }

    /// Logits of the next token (.., vocabulary) from states (.., width), over the word embedding table.
    pub(crate) fn predict(&self, states: &Tensor) -> Result<Tensor> {
        let hidden = self.norm.forward(&gelu(&self.transform.forward(states, Precision::F32)?)?)?;
        Ok(aurora_kernels::linear(&hidden, self.tower.words(), Some(&self.bias))?)
    }
}
