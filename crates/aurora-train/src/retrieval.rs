//! Losses of image-text retrieval on a batch: ITC + ITM (BLIP, Li et al. 2022, arXiv:2201.12086).
//!
//! ITC compares online features with momentum features and the queue ([`crate::itc`]); ITM classifies positive pairs
//! and hard negatives ([`crate::itm`]). The cross-attention keys and values of an image are computed once and serve its
//! positive pair and every negative it is drawn for.

use aurora_kernels::cross_entropy;
use aurora_layers::{
    Blip, BoundModel, CrossAttention, EncoderKv, flatten_frame_mask, flatten_frames,
    frame_attention_scale,
};
use candle_core::Tensor;

use crate::error::Result;
use crate::itc::{ItcInput, itc_loss};
use crate::itm::{HardNegatives, ItmPairs};
use crate::queue::QueueView;

/// Batch of images, or of clips, some of which may have padding frames.
#[derive(Debug, Clone, Copy)]
pub struct ImageBatch<'a> {
    /// Images (batch, 3, size, size) or clips (batch, frames, 3, size, size), normalized.
    pub pixels: &'a Tensor,
    /// Frame mask of clips (batch, frames): 1 for frames, 0 for padding; `None` if there is no padding.
    pub frame_mask: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for ImageBatch<'a> {
    fn from(pixels: &'a Tensor) -> Self {
        Self { pixels, frame_mask: None }
    }
}

impl ImageBatch<'_> {
    /// Number of images, or of frames of all clips.
    pub fn count(&self) -> usize {
        match *self.pixels.dims() {
            [clips, frames, _, _, _] => clips * frames,
            [images, ..] => images,
            [] => 0,
        }
    }
}

/// Batch of image-text pairs; an image may be a clip.
#[derive(Debug, Clone, Copy)]
pub struct ImageTextBatch<'a> {
    /// Images or clips.
    pub images: ImageBatch<'a>,
    /// Token ids (batch, length), u32.
    pub token_ids: &'a Tensor,
    /// Attention mask (batch, length): 1 for tokens, 0 for padding.
    pub mask: &'a Tensor,
    /// Id of each pair; equal ids are positives.
    pub ids: &'a [i64],
}

/// States and features of a batch from both towers, before fusion.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// Token states of images (batch, tokens, vision width); for a clip those of all frames.
    pub image_states: Tensor,
    /// `[CLS]` states of the texts alone (batch, text width).
    pub text_cls: Tensor,
    /// Image features of unit length (batch, projection).
    pub image: Tensor,
    /// Text features of unit length (batch, projection).
    pub text: Tensor,
    /// Frames of clips; `None` for images.
    pub frames: Option<Frames>,
}

/// Frame features and frame mask of clips.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Features of each frame, of unit length (batch, frames, projection).
    pub features: Tensor,
    /// As in [`ImageBatch::frame_mask`].
    pub mask: Option<Tensor>,
}

impl Frames {
    /// Frames of the clips of these rows.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let mask = self.mask.as_ref().map(|mask| mask.index_select(rows, 0)).transpose()?;
        Ok(Self { features: self.features.index_select(rows, 0)?, mask })
    }
}

/// Output of the vision tower for images or clips.
#[derive(Debug, Clone)]
pub struct EncodedImages {
    /// As in [`EncodedBatch::image_states`].
    pub states: Tensor,
    /// As in [`EncodedBatch::image`].
    pub features: Tensor,
    /// As in [`EncodedBatch::frames`].
    pub frames: Option<Frames>,
}

/// Encodes images or clips with the vision tower.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn encode_images<'a>(
    blip: &Blip,
    bound: &BoundModel,
    images: impl Into<ImageBatch<'a>>,
) -> Result<EncodedImages> {
    let ImageBatch { pixels, frame_mask } = images.into();
    if pixels.rank() == 5 {
        let states = blip.encode_clips(pixels, bound)?;
        let features = bound.frame_features(&states)?;
        return Ok(EncodedImages {
            features: bound.clip_features(&states, frame_mask)?,
            frames: Some(Frames { features, mask: frame_mask.cloned() }),
            states: flatten_frames(&states)?,
        });
    }
    let states = blip.encode_image(pixels, bound)?;
    Ok(EncodedImages { features: bound.image_features(&states)?, states, frames: None })
}

/// Cross-attention keys and values of images or clips for the text encoder; padding frames are masked.
/// `states` (batch, tokens, vision width), `frame_mask` as in [`ImageBatch`].
///
/// # Errors
/// Shapes that do not fit the model.
pub fn image_keys(
    blip: &Blip,
    bound: &BoundModel,
    states: &Tensor,
    frame_mask: Option<&Tensor>,
) -> Result<EncoderKv> {
    let keys = blip.encode_kv(states, bound)?;
    match frame_mask {
        None => Ok(keys),
        Some(mask) => {
            let tokens = states.dim(1)? / mask.dim(1)?;
            Ok(keys.with_mask(&flatten_frame_mask(mask, tokens)?)?)
        }
    }
}

/// Encodes a batch with both towers.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn encode(blip: &Blip, bound: &BoundModel, pairs: &ImageTextBatch) -> Result<EncodedBatch> {
    let EncodedImages { states, features, frames } = encode_images(blip, bound, pairs.images)?;
    let text_cls = blip.encode_text_cls(pairs.token_ids, pairs.mask, bound)?;
    let text = bound.text_cls_features(&text_cls)?;
    Ok(EncodedBatch { image_states: states, text_cls, image: features, text, frames })
}

/// Features of a batch, (batch, projection) each, without token states: those of [`EncodedBatch::image`] and
/// [`EncodedBatch::text`] for less work.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn encode_features(
    blip: &Blip,
    bound: &BoundModel,
    pairs: &ImageTextBatch,
) -> Result<[Tensor; 2]> {
    let ImageBatch { pixels, frame_mask } = pairs.images;
    let image = match pixels.rank() {
        5 => bound.clip_cls_features(&blip.encode_clips_cls(pixels, bound)?, frame_mask)?,
        _ => bound.image_cls_features(&blip.encode_image_cls(pixels, bound)?)?,
    };
    let text_cls = blip.encode_text_cls(pairs.token_ids, pairs.mask, bound)?;
    Ok([image, bound.text_cls_features(&text_cls)?])
}

/// Frame-aware key scale of each pair's clip: from text features (pairs, projection) and the frames of each pair's
/// clip, with `keys` tokens in a clip. `None` where frames are not weighed: for images, without frame-aware attention,
/// and outside of training in the reference variant.
pub(crate) fn frame_weights(
    bound: &BoundModel,
    training: bool,
    text: &Tensor,
    frames: Option<&Frames>,
    keys: usize,
) -> Result<Option<Tensor>> {
    let Some(Frames { features, mask }) = frames.filter(|_| bound.needs_frame_features(training))
    else {
        return Ok(None);
    };
    Ok(Some(frame_attention_scale(text, features, mask.as_ref(), keys / features.dim(1)?)?))
}

/// Inputs of ITC beside the batch.
#[derive(Debug, Clone, Copy)]
pub struct ItcContext<'a> {
    /// Momentum features of the batch's images and texts; `None` without a momentum model.
    pub momentum: Option<[&'a Tensor; 2]>,
    /// Queue of earlier momentum features.
    pub queue: Option<&'a QueueView>,
    /// Weight of the soft targets.
    pub alpha: f64,
    /// Temperature, one value.
    pub temperature: &'a Tensor,
}

/// ITC loss of an encoded batch, and its similarities (batch, batch) for drawing hard negatives.
///
/// # Errors
/// As [`itc_loss`].
pub fn itc(encoded: &EncodedBatch, ids: &[i64], context: &ItcContext) -> Result<(Tensor, Tensor)> {
    let &ItcContext { momentum, queue, alpha, temperature } = context;
    let input = ItcInput {
        image: &encoded.image,
        text: &encoded.text,
        momentum,
        queue,
        ids,
        alpha,
        temperature,
    };
    let output = itc_loss(&input)?;
    Ok((output.loss, output.similarity))
}

/// ITM loss of the first `rows` pairs of a batch, with hard negatives drawn from the whole batch by `similarity`
/// (batch, batch). Each pair costs three passes of the fusion layers, so `rows` may be part of the batch.
///
/// # Errors
/// As [`HardNegatives::draw`] and [`itm`].
pub fn itm_with_hard_negatives(
    (blip, bound): (&Blip, &BoundModel),
    pairs: &ImageTextBatch,
    encoded: &EncodedBatch,
    similarity: &Tensor,
    rows: usize,
    (seed, step): (u64, u64),
) -> Result<Tensor> {
    let mut negatives = HardNegatives::draw(&similarity.detach(), pairs.ids, seed, step)?;
    negatives.truncate(rows);
    itm(blip, bound, pairs, encoded, &negatives)
}

/// ITM loss: two-way cross-entropy over the positives that have negatives and those negatives, three pairs a row in one
/// pass.
///
/// With negatives over all ranks, `pairs` and `encoded` are those of all ranks (gathered with their gradients) and
/// `negatives` those that [`HardNegatives::draw_rows`] drew for the rank's own rows; the mean over ranks with equally
/// many rows is the loss of the whole batch.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn itm(
    blip: &Blip,
    bound: &BoundModel,
    pairs: &ImageTextBatch,
    encoded: &EncodedBatch,
    negatives: &HardNegatives,
) -> Result<Tensor> {
    let chosen = ItmPairs::new(negatives);
    let device = pairs.token_ids.device();
    let text_rows = Tensor::from_slice(&chosen.text_rows, chosen.len(), device)?;
    let mask = encoded.frames.as_ref().and_then(|frames| frames.mask.as_ref());
    let keys = image_keys(blip, bound, &encoded.image_states, mask)?;
    let ids = pairs.token_ids.index_select(&text_rows, 0)?; // (3 rows, length)
    let mask = pairs.mask.index_select(&text_rows, 0)?;
    let image_rows = Tensor::from_slice(&chosen.image_rows, chosen.len(), device)?;
    let frames = encoded.frames.as_ref().map(|frames| frames.rows(&image_rows));
    let weights = frame_weights(
        bound,
        true,
        &encoded.text.index_select(&text_rows, 0)?,
        frames.transpose()?.as_ref(),
        encoded.image_states.dim(1)?,
    )?;
    let seen =
        CrossAttention::new(&keys).rows(chosen.image_rows.as_slice()).with_key_scale(weights);
    let fused = blip.fuse_cls(&ids, &mask, &seen, bound)?; // (3 rows, width)
    let fused = if bound.has_context() {
        let text_cls = encoded.text_cls.index_select(&text_rows, 0)?;
        bound.add_context(&fused, &text_cls, negatives.len())?
    } else {
        fused
    };
    let logits = bound.match_logits(&fused)?; // (3 rows, 2)
    Ok(cross_entropy(&logits, &chosen.label_tensor(device)?)?)
}
