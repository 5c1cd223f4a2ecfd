//! The BLIP retrieval model: two towers and three heads over frozen tensors, and the passes through them.

use crate::adapter::{Beside, Change};
use crate::block::Wanted;
use crate::context::{Context, attend, batch_mean};
use crate::gate::Gate;
use crate::heads::{self, Heads, normalize};
use crate::tensors::{Tensors, check};
use crate::text::{self, CrossKeys, TextTower, cls};
use crate::vision::VisionTower;
use crate::{BlipConfig, Result, Site};
use aurora_kernels::Mode;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A BLIP model for retrieval. It holds the backbone's tensors as they were given: plain ones are frozen and cost
/// nothing in a backward pass, variables are trained.
#[derive(Debug, Clone)]
pub struct Blip {
    config: BlipConfig,
    vision: VisionTower,
    text: TextTower,
    tensors: Tensors,
    sites: Vec<Site>,
}

/// What tuning adds to a backbone, as one step sees it: changes by site, bottlenecks by block, gates by layer, context
/// and heads.
///
/// Made by [`crate::Tuned::prepare`], or by [`Blip::bare`] for the backbone as it is. Changes form their effective
/// weights at first use and share them between all passes of the step.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) changes: BTreeMap<String, Change>,
    pub(crate) beside: BTreeMap<String, Beside>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) context: Option<Context>,
    pub(crate) heads: Heads,
    /// How deltas are computed: side by side with the frozen map, or formed once into its weight.
    pub mode: Mode,
}

impl Blip {
    /// Names and shapes of the tensors of a backbone of these sizes.
    pub fn wanted(config: &BlipConfig) -> Vec<(String, candle_core::Shape)> {
        let mut wanted: Wanted = VisionTower::wanted(&config.vision);
        wanted.extend(TextTower::wanted(&config.text, config.vision.hidden_size));
        wanted.extend(heads::wanted(config));
        wanted
    }

    /// Put the model together. Nothing is copied.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for impossible sizes; [`crate::Error::Mismatch`] that lists every missing, unexpected
    /// or misshapen tensor.
    pub fn new(config: &BlipConfig, tensors: &Tensors) -> Result<Self> {
        config.check()?;
        check("the backbone", tensors, &Self::wanted(config))?;
        Ok(Self {
            vision: VisionTower::new(&config.vision, tensors)?,
            text: TextTower::new(&config.text, tensors)?,
            tensors: tensors.clone(),
            sites: crate::sites(config),
            config: config.clone(),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// The frozen maps that can take a delta.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The tensors it was put together from.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// The backbone without anything added.
    pub fn bare(&self) -> Result<Prepared> {
        Ok(Prepared {
            changes: BTreeMap::new(),
            beside: BTreeMap::new(),
            gates: Vec::new(),
            context: None,
            heads: Heads::new(&self.tensors)?,
            mode: Mode::Auto,
        })
    }

    /// Pictures (batch, 3, size, size), normalised, to token states (batch, tokens, vision width).
    pub fn encode_image(&self, images: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        self.vision.forward(images, prepared)
    }

    /// Texts alone: ids (batch, length) u32 and mask (batch, length) of ones and zeros to (batch, length, text width).
    pub fn encode_text(&self, ids: &Tensor, mask: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        self.text.forward(ids, mask, None, prepared)
    }

    /// The cross-attention keys and values of pictures, from their token states: once per picture, however many
    /// texts look at it.
    pub fn cross_keys(&self, image_states: &Tensor, prepared: &Prepared) -> Result<CrossKeys> {
        self.text.cross_keys(image_states, prepared)
    }

    /// Texts looking at pictures: text b at picture `rows[b]` (without `rows`, at picture b). The first token of
    /// every text is read as `[ENC]`. Result: (batch, length, text width).
    pub fn fuse(
        &self,
        ids: &Tensor,
        mask: &Tensor,
        keys: &CrossKeys,
        rows: Option<Arc<[u32]>>,
        prepared: &Prepared,
    ) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let enc = Tensor::full(self.config.text.enc_token_id, (batch, 1), ids.device())?
            .to_dtype(ids.dtype())?;
        let ids =
            if length > 1 { Tensor::cat(&[&enc, &ids.narrow(1, 1, length - 1)?], 1)? } else { enc };
        self.text.forward(&ids, mask, Some(&text::Context { keys, rows }), prepared)
    }
}

impl Prepared {
    /// Picture token states to features of unit length: (batch, tokens, vision width) to (batch, projection).
    pub fn image_features(&self, states: &Tensor) -> Result<Tensor> {
        normalize(&self.heads.vision_proj.plain(&cls(states)?)?)
    }

    /// Text token states to features of unit length: (batch, length, text width) to (batch, projection).
    pub fn text_features(&self, states: &Tensor) -> Result<Tensor> {
        normalize(&self.heads.text_proj.plain(&cls(states)?)?)
    }

    /// Fused `[CLS]` vectors (pairs, text width) to matching logits (pairs, 2); column 1 says "they belong together".
    pub fn match_logits(&self, fused_cls: &Tensor) -> Result<Tensor> {
        self.heads.itm_head.plain(fused_cls)
    }

    /// Informative context enhancement: add to the fused `[CLS]` of each pair what the `[CLS]` of its text, encoded
    /// alone, calls up. Both are (pairs, text width).
    ///
    /// In flavour aurora the rule is the same for every pair, in training and evaluation. The released rule adds the
    /// batch mean to the first `positives` pairs; pass 0 outside training.
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

    /// Whether [`Prepared::add_context`] reads the texts' own `[CLS]`.
    pub fn has_context(&self) -> bool {
        self.context.is_some()
    }
}
