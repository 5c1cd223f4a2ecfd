//! BLIP (Li et al. 2022, arXiv:2201.12086): vision tower, text towers and heads over frozen tensors, and their forward
//! passes.

use crate::adapter::{LayerDelta, ParallelAdapter};
use crate::context::{Context, attend, batch_mean};
use crate::cross_attention::{CrossAttention, EncoderKv, KvCache, Pooling, TextInputs};
use crate::decoder::Decoder;
use crate::gate::Gate;
use crate::gradient_checkpoint::GradientCheckpointing;
use crate::heads::{self, Heads, normalize};
use crate::layers::ParamShapes;
use crate::site::{Tower, text_towers};
use crate::tensors::{Tensors, check};
use crate::text::{TextTower, cls};
use crate::video::FrameAware;
use crate::vision::VisionTower;
use crate::{BlipConfig, Error, Result, Site};
use aurora_kernels::{DeltaMode, Precision};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// BLIP model. It holds the backbone's tensors as given: plain tensors are frozen and cost nothing in a backward pass,
/// variables are trained.
///
/// Its [`crate::Architecture`] decides which parts it has; a pass through a missing part is an error that says so.
#[derive(Debug, Clone)]
pub struct Blip {
    config: BlipConfig,
    vision: VisionTower,
    encoder: Option<TextTower>,
    decoder: Option<Decoder>,
    tensors: Tensors,
    sites: Vec<Site>,
}

/// Adapter bound to a model for one step: deltas by site, bottlenecks by block, gates by layer, context and heads.
///
/// Made by [`crate::AdaptedParams::bind`], or by [`Blip::bind_frozen`] for the backbone alone. Deltas form their merged
/// weights at first use and share them between all passes of the step.
#[derive(Debug)]
pub struct BoundModel {
    pub(crate) deltas: BTreeMap<String, LayerDelta>,
    pub(crate) parallel: BTreeMap<String, ParallelAdapter>,
    pub(crate) gates: BTreeMap<String, Gate>,
    pub(crate) context: Option<Context>,
    pub(crate) heads: Option<Heads>,
    pub(crate) frame_aware: FrameAware,
    /// Delta mode: factors applied beside the frozen layer, or merged once into its weight.
    pub mode: DeltaMode,
    /// Precision of the GEMMs inside the towers: linear layers, vision self-attention and absorbed attention. Heads,
    /// other attention and all else are f32.
    pub precision: Precision,
    /// Gradient checkpointing: the activations kept for the backward pass, and the lifetime of merged weights.
    pub gradient_checkpointing: GradientCheckpointing,
}

fn lacking(part: &str) -> Error {
    let reason =
        format!("{part}, which this pass needs; load the model that was made for this task");
    Error::config("architecture", "a model without", reason)
}

impl Blip {
    /// Names and shapes of the tensors of a backbone of these sizes.
    pub fn param_shapes(config: &BlipConfig) -> Vec<(String, candle_core::Shape)> {
        let mut shapes: ParamShapes = VisionTower::param_shapes(&config.vision);
        for (tower, seen) in text_towers(config) {
            shapes.extend(match tower {
                Tower::Decoder => Decoder::param_shapes(&config.text, seen),
                _ => TextTower::param_shapes(&config.text, tower, seen),
            });
        }
        shapes.extend(heads::param_shapes(config));
        shapes
    }

    /// Builds the model over the tensors, without copies.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for impossible sizes; [`crate::Error::Mismatch`] that lists every missing, unexpected
    /// or misshapen tensor.
    pub fn new(config: &BlipConfig, tensors: &Tensors) -> Result<Self> {
        config.check()?;
        check("the backbone", tensors, &Self::param_shapes(config))?;
        let (text, architecture) = (&config.text, &config.architecture);
        let decoder = architecture.decodes().map(|tokens| Decoder::new(text, tokens, tensors));
        let encoder = architecture.encodes().then(|| TextTower::new(text, Tower::Text, tensors));
        Ok(Self {
            vision: VisionTower::new(&config.vision, tensors)?,
            encoder: encoder.transpose()?,
            decoder: decoder.transpose()?,
            tensors: tensors.clone(),
            sites: crate::sites(config),
            config: config.clone(),
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// Device of the weights; passes take their inputs there.
    pub fn device(&self) -> &Device {
        self.tensors.values().next().map_or(&Device::Cpu, Tensor::device)
    }

    /// Sites: the frozen linear layers that can take a delta.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Tensors the model is built over.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Bound model without adapter: the frozen backbone.
    pub fn bind_frozen(&self) -> Result<BoundModel> {
        Ok(BoundModel {
            deltas: BTreeMap::new(),
            parallel: BTreeMap::new(),
            gates: BTreeMap::new(),
            context: None,
            heads: Heads::new(&self.config, &self.tensors)?,
            frame_aware: FrameAware::Never,
            mode: DeltaMode::Auto,
            precision: Precision::F32,
            gradient_checkpointing: GradientCheckpointing::None,
        })
    }

    fn encoder(&self) -> Result<&TextTower> {
        self.encoder.as_ref().ok_or_else(|| lacking("text encoder"))
    }

    pub(crate) fn decoder(&self) -> Result<&Decoder> {
        self.decoder.as_ref().ok_or_else(|| lacking("text decoder"))
    }

    /// Image encoder: images (batch, 3, size, size), normalized, to token states (batch, tokens, vision width).
    pub fn encode_image(&self, images: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.vision.forward(images, bound)
    }

    /// Image encoder, `[CLS]` states only: (batch, vision width). Cheaper than [`Self::encode_image`].
    pub fn encode_image_cls(&self, images: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.vision.forward_cls(images, bound)
    }

    /// Text encoder: ids (batch, length) u32 and mask (batch, length) of ones and zeros to states (batch, length, text
    /// width). Padding has states too, as in other implementations.
    pub fn encode_text(&self, ids: &Tensor, mask: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let inputs = TextInputs { mask: Some(mask), ..TextInputs::default() };
        self.encoder()?.forward(ids, inputs, bound)
    }

    /// Text encoder, `[CLS]` states only: (batch, text width). Padding costs next to nothing, and the last layer is
    /// computed for `[CLS]` only.
    pub fn encode_text_cls(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let inputs =
            TextInputs { mask: Some(mask), pooling: Pooling::Cls, ..TextInputs::default() };
        self.encoder()?.forward(ids, inputs, bound)
    }

    /// Cross-attention keys and values of images for the text encoder, from their token states: once per image, however
    /// many texts attend to it.
    pub fn encode_kv(&self, image_states: &Tensor, bound: &BoundModel) -> Result<EncoderKv> {
        self.encoder()?.encode_kv(image_states, None, bound)
    }

    /// Lazy keys and values, for images with few text tokens: none are computed, every layer absorbs its key and value
    /// projections into queries and outputs. For passes without gradient, on the CPU, without frame weights. Cheaper
    /// where [`Self::prefers_absorbed`] says so.
    ///
    /// # Errors
    /// A model without a text encoder. A pass that attends to them refuses any tensor that wants a gradient.
    pub fn lazy_kv(&self, image_states: &Tensor) -> Result<EncoderKv> {
        Ok(self.encoder()?.lazy_kv(image_states))
    }

    /// True if [`Self::lazy_kv`] takes fewer operations than [`Self::encode_kv`] for `tokens` text tokens attending to
    /// `images` images: a token costs as much as it has heads, an image as much as it has columns.
    pub fn prefers_absorbed(&self, tokens: usize, images: usize) -> bool {
        let text = &self.config.text;
        text.num_attention_heads * tokens < text.hidden_size * images
    }

    /// Fusion encoder: texts with cross-attention to images, ids and mask (batch, length) to (batch, length, text
    /// width). The first token of every text is read as `[ENC]`. Padding has states too, as in [`Self::encode_text`].
    pub fn fuse(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.fuse_to(Pooling::All, ids, mask, seen, bound)
    }

    /// Fusion encoder, zeros at padding: (batch, length, text width). Padding costs next to nothing.
    pub fn fuse_tokens(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.fuse_to(Pooling::Tokens, ids, mask, seen, bound)
    }

    /// Fusion encoder, `[ENC]` states only, one per pair: (batch, text width). Saves what [`Self::encode_text_cls`]
    /// saves.
    pub fn fuse_cls(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.fuse_to(Pooling::Cls, ids, mask, seen, bound)
    }

    fn fuse_to(
        &self,
        pooling: Pooling,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let ids = with_first(ids, self.config.text.enc_token_id)?;
        let inputs =
            TextInputs { mask: Some(mask), seen: Some(seen), pooling, ..TextInputs::default() };
        self.encoder()?.forward(&ids, inputs, bound)
    }

    /// Cross-attention keys and values for the decoder: from the token states of images, or from those of questions
    /// where `mask` (questions, tokens) is one.
    pub fn encode_decoder_kv(
        &self,
        states: &Tensor,
        mask: Option<&Tensor>,
        bound: &BoundModel,
    ) -> Result<EncoderKv> {
        self.decoder()?.tower.encode_kv(states, mask, bound)
    }

    /// Text decoder with causal attention: ids and mask (batch, length) to states (batch, length, text width). The
    /// first token of every text is read as `[DEC]`. Padding has states too, as in [`Self::encode_text`].
    pub fn decode(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.decode_to(Pooling::All, ids, mask, seen, bound)
    }

    /// Text decoder, zeros at padding: (batch, length, text width). Padding costs next to nothing.
    pub fn decode_tokens(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.decode_to(Pooling::Tokens, ids, mask, seen, bound)
    }

    fn decode_to(
        &self,
        pooling: Pooling,
        ids: &Tensor,
        mask: &Tensor,
        seen: &CrossAttention,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let decoder = self.decoder()?;
        let ids = with_first(ids, decoder.tokens.start_token_id)?;
        let inputs =
            TextInputs { mask: Some(mask), causal: true, seen: Some(seen), cache: None, pooling };
        decoder.tower.forward(&ids, inputs, bound)
    }

    /// Decoder step with KV cache: ids of the new tokens (texts, new tokens) to states (texts, new tokens, text width).
    pub(crate) fn decode_next(
        &self,
        ids: &Tensor,
        seen: &CrossAttention,
        cache: &mut KvCache,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let pooling = Pooling::All;
        let inputs =
            TextInputs { mask: None, causal: true, seen: Some(seen), cache: Some(cache), pooling };
        self.decoder()?.tower.forward(ids, inputs, bound)
    }

    /// Language modeling head: decoder states (.., text width) to logits of the next token (.., vocabulary).
    pub fn predict_words(&self, states: &Tensor) -> Result<Tensor> {
        self.decoder()?.predict(states)
    }
}

/// Ids (batch, length) with `token` in the first column.
fn with_first(ids: &Tensor, token: u32) -> Result<Tensor> {
    let (batch, length) = ids.dims2()?;
    let first = Tensor::full(token, (batch, 1), ids.device())?.to_dtype(ids.dtype())?;
    if length <= 1 {
        return Ok(first);
    }
    Ok(Tensor::cat(&[&first, &ids.narrow(1, 1, length - 1)?], 1)?)
}

impl BoundModel {
    pub(crate) fn heads(&self) -> Result<&Heads> {
        self.heads.as_ref().ok_or_else(|| lacking("projections and matching head"))
    }

    /// Image features of unit length: token states (batch, tokens, vision width) to (batch, projection).
    pub fn image_features(&self, states: &Tensor) -> Result<Tensor> {
        self.image_cls_features(&cls(states)?)
    }

    /// Image features of unit length from `[CLS]` states (batch, vision width).
    pub fn image_cls_features(&self, image_cls: &Tensor) -> Result<Tensor> {
        normalize(&self.heads()?.vision_proj.forward(image_cls, Precision::F32)?)
    }

    /// Text features of unit length: token states (batch, length, text width) to (batch, projection).
    pub fn text_features(&self, states: &Tensor) -> Result<Tensor> {
        self.text_cls_features(&cls(states)?)
    }

    /// Text features of unit length from `[CLS]` states (batch, text width).
    pub fn text_cls_features(&self, text_cls: &Tensor) -> Result<Tensor> {
        normalize(&self.heads()?.text_proj.forward(text_cls, Precision::F32)?)
    }

    /// ITM logits: fused `[CLS]` states (pairs, text width) to (pairs, 2); column 1 is the logit of a match.
    pub fn match_logits(&self, fused_cls: &Tensor) -> Result<Tensor> {
        self.heads()?.itm_head.forward(fused_cls, Precision::F32)
    }

    /// Informative context enhancement: adds to the fused `[CLS]` of each pair the context of its text's own `[CLS]`,
    /// from the text encoder. Both are (pairs, text width).
    ///
    /// In variant paper the rule is the same for every pair, in training and evaluation. The reference rule adds a
    /// tenth of the batch mean to the first `positives` pairs; pass 0 outside training.
    pub fn add_context(
        &self,
        fused_cls: &Tensor,
        text_cls: &Tensor,
        positives: usize,
    ) -> Result<Tensor> {
        match &self.context {
            None => Ok(fused_cls.clone()),
            Some(Context::Bank { gate, bank }) => {
                Ok((fused_cls + attend(text_cls, bank)?.broadcast_mul(gate)?)?)
            }
            Some(Context::BatchMean) if positives == 0 => Ok(fused_cls.clone()),
            Some(Context::BatchMean) => {
                let mean = batch_mean(&text_cls.narrow(0, 0, positives)?)?;
                let enhanced = fused_cls.narrow(0, 0, positives)?.broadcast_add(&mean)?;
                let others = fused_cls.dim(0)? - positives;
                if others == 0 {
                    return Ok(enhanced);
                }
                Ok(Tensor::cat(&[&enhanced, &fused_cls.narrow(0, positives, others)?], 0)?)
            }
        }
    }

    /// True if [`BoundModel::add_context`] reads the texts' own `[CLS]`.
    pub fn has_context(&self) -> bool {
        self.context.is_some()
    }
}
