//! One step of image-text retrieval: from a batch to its losses.
//!
//! `loss = ITC + ITM`. ITC compares online features with momentum features and the queue ([`crate::itc`]); ITM asks of
//! right pairs and hard negatives ([`crate::itm`]) whether they belong together. The cross-attention keys and values of
//! an image are computed once and serve its right pair and every negative it is drawn for.

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

/// Images, or clips of which some may have fewer frames than others.
#[derive(Debug, Clone, Copy)]
pub struct ImageBatch<'a> {
    /// Images (batch, 3, size, size) or clips (batch, frames, 3, size, size), normalized.
    pub pixels: &'a Tensor,
    /// Of clips, ones for frames and zeros for what fills a short clip up, (batch, frames); without it all are there.
    pub frame_mask: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for ImageBatch<'a> {
    fn from(pixels: &'a Tensor) -> Self {
        Self { pixels, frame_mask: None }
    }
}

impl ImageBatch<'_> {
    /// Images, or frames of all clips.
    pub fn count(&self) -> usize {
        match *self.pixels.dims() {
            [clips, frames, _, _, _] => clips * frames,
            [images, ..] => images,
            [] => 0,
        }
    }
}

/// Pairs of images, or clips, and texts.
#[derive(Debug, Clone, Copy)]
pub struct ImageTextBatch<'a> {
    /// Images or clips.
    pub images: ImageBatch<'a>,
    /// Token ids (batch, length), u32.
    pub token_ids: &'a Tensor,
    /// Ones for tokens and zeros for padding, (batch, length).
    pub mask: &'a Tensor,
    /// What each pair shows; equal ids are right for each other.
    pub ids: &'a [i64],
}

/// States and features of a batch, each tower on its own.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// Image tokens (batch, tokens, vision width); of a clip those of all frames.
    pub image_states: Tensor,
    /// The texts' own `[CLS]` states (batch, text width).
    pub text_cls: Tensor,
    /// Image features of unit length (batch, projection).
    pub image: Tensor,
    /// Text features of unit length (batch, projection).
    pub text: Tensor,
    /// The frames, of clips.
    pub frames: Option<Frames>,
}

/// The frames of clips.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Features of unit length of each frame (batch, frames, projection).
    pub features: Tensor,
    /// As in [`ImageBatch::frame_mask`].
    pub mask: Option<Tensor>,
}

impl Frames {
    /// The frames of the clips of these rows.
    ///
    /// # Errors
    /// A row that does not exist.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let mask = self.mask.as_ref().map(|mask| mask.index_select(rows, 0)).transpose()?;
        Ok(Self { features: self.features.index_select(rows, 0)?, mask })
    }
}

/// What a vision tower makes of images or clips.
#[derive(Debug, Clone)]
pub struct EncodedImages {
    /// As in [`EncodedBatch::image_states`].
    pub states: Tensor,
    /// As in [`EncodedBatch::image`].
    pub features: Tensor,
    /// As in [`EncodedBatch::frames`].
    pub frames: Option<Frames>,
}

/// Images or clips through the vision tower.
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

/// The cross-attention keys and values of images or clips for the text encoder; what fills short clips up is not seen.
/// States (batch, tokens, vision width), `frame_mask` as in [`ImageBatch`].
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

/// Both towers over a batch.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn encode(blip: &Blip, bound: &BoundModel, pairs: &ImageTextBatch) -> Result<EncodedBatch> {
    let EncodedImages { states, features, frames } = encode_images(blip, bound, pairs.images)?;
    let text_cls = blip.encode_text_cls(pairs.token_ids, pairs.mask, bound)?;
    let text = bound.text_cls_features(&text_cls)?;
    Ok(EncodedBatch { image_states: states, text_cls, image: features, text, frames })
}

/// The features of a batch, (batch, projection) each, where nothing will look at the states: those of
/// [`EncodedBatch::image`] and [`EncodedBatch::text`] for less work.
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

/// What frame-aware attention multiplies the keys of each pair's clip by: text features (pairs, projection), the frames
/// of each pair's clip, `keys` tokens in a clip. None where frames are not
/// weighed: for images, without frame-aware attention, and outside of training in variant reference.
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

/// What ITC needs beside the batch.
#[derive(Debug, Clone, Copy)]
pub struct ItcContext<'a> {
    /// Momentum features of the batch's images and texts; none in a model without a momentum copy.
    pub momentum: Option<[&'a Tensor; 2]>,
    /// Earlier momentum features.
    pub queue: Option<&'a QueueView>,
    /// Weight of the soft targets.
    pub alpha: f64,
    /// One value.
    pub temperature: &'a Tensor,
}

/// The contrastive loss of an encoded batch, and its similarities for drawing negatives, (batch, batch).
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

/// The matching loss of the first `rows` pairs of a batch, with hard negatives drawn from the whole batch by
/// `similarity` (batch, batch). Each pair costs three passes of the fusion layers, so a part of the batch may have to
/// do.
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

/// The matching loss: two-way cross-entropy over the right pairs that have negatives and those negatives, three
/// pairs a row in one pass.
///
/// With negatives over all ranks, `pairs` and `encoded` are those of all ranks (gathered with their gradients) and
/// `negatives` those that [`HardNegatives::draw_rows`] drew for the rank's own rows; the mean over ranks of as many
/// rows each is the loss of the whole batch.
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
