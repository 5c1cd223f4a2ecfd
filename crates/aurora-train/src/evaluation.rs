//! Two-stage retrieval evaluation: feature similarity of all pairs, then matching logits (ITM) of the best candidates.

use aurora_layers::{Blip, BoundModel, CrossAttention};
use candle_core::Tensor;

use crate::error::Result;
use crate::progress::Progress;
use crate::rerank::{Candidates, Reranked, rerank};
use crate::retrieval::{Frames, ImageBatch, encode_images, frame_weights, image_keys};

/// Pairs per pass of the fusion layers.
const PAIRS_PER_CALL: usize = 512;

/// Encoded images and texts of an evaluation.
#[derive(Debug)]
pub struct Gallery {
    image_states: Vec<Tensor>,    // each (1, tokens, vision width)
    frames: Vec<Frames>,          // one clip each; none of images
    text_cls: Vec<Tensor>,        // each (1, text width)
    texts: Vec<(Tensor, Tensor)>, // token ids and mask, each (1, length)
    /// Image features (images, projection).
    pub image: Tensor,
    /// Text features (texts, projection).
    pub text: Tensor,
}

/// Builder of a [`Gallery`], batch by batch.
#[derive(Debug, Default)]
pub struct GalleryBuilder {
    image_states: Vec<Tensor>,
    frames: Vec<Frames>,
    text_cls: Vec<Tensor>,
    texts: Vec<(Tensor, Tensor)>,
    image: Vec<Tensor>,
    text: Vec<Tensor>,
}

impl GalleryBuilder {
    /// Adds images (batch, 3, size, size), or clips (batch, frames, 3, size, size), all of as many frames, padding
    /// frames included; either all clips come with a frame mask or none.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn images<'a>(
        &mut self,
        blip: &Blip,
        bound: &BoundModel,
        images: impl Into<ImageBatch<'a>>,
    ) -> Result<()> {
        let encoded = encode_images(blip, bound, images)?;
        self.image.push(encoded.features.detach());
        let states = encoded.states.detach();
        for row in 0..states.dim(0)? {
            self.image_states.push(states.narrow(0, row, 1)?);
            if let Some(Frames { features, mask }) = &encoded.frames {
                let mask = mask.as_ref().map(|mask| mask.narrow(0, row, 1)).transpose()?;
                self.frames.push(Frames { features: features.detach().narrow(0, row, 1)?, mask });
            }
        }
        Ok(())
    }

    /// Adds images by their token states (batch, tokens, vision width), from an earlier pass or a file.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn image_states(&mut self, bound: &BoundModel, states: &Tensor) -> Result<()> {
        let states = states.detach();
        self.image.push(bound.image_features(&states)?.detach());
        for row in 0..states.dim(0)? {
            self.image_states.push(states.narrow(0, row, 1)?);
        }
        Ok(())
    }

    /// Adds texts: ids and mask (batch, length).
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn texts(
        &mut self,
        blip: &Blip,
        bound: &BoundModel,
        ids: &Tensor,
        mask: &Tensor,
    ) -> Result<()> {
        let text_cls = blip.encode_text_cls(ids, mask, bound)?.detach();
        self.text.push(bound.text_cls_features(&text_cls)?.detach());
        for row in 0..ids.dim(0)? {
            self.text_cls.push(text_cls.narrow(0, row, 1)?);
            self.texts.push((ids.narrow(0, row, 1)?, mask.narrow(0, row, 1)?));
        }
        Ok(())
    }

    /// Builds the gallery of everything added.
    ///
    /// # Errors
    /// Any candle error, for instance for an empty gallery.
    pub fn finish(self) -> Result<Gallery> {
        let (image, text) = (Tensor::cat(&self.image, 0)?, Tensor::cat(&self.text, 0)?);
        Ok(Gallery {
            image_states: self.image_states,
            frames: self.frames,
            text_cls: self.text_cls,
            texts: self.texts,
            image,
            text,
        })
    }
}

impl Gallery {
    /// Feature similarity, (images, texts).
    ///
    /// # Errors
    /// Any candle error.
    pub fn similarity(&self) -> Result<Tensor> {
        Ok(self.image.matmul(&self.text.t()?)?)
    }

    /// Matching logits of the positive class for the `k_test` most similar candidates of every image and text.
    ///
    /// # Errors
    /// Shapes that do not fit the model, values that are not numbers.
    pub fn rerank(
        &self,
        blip: &Blip,
        bound: &BoundModel,
        k_test: usize,
        progress: &mut dyn Progress,
    ) -> Result<Reranked> {
        let total = self.image_states.len() as u64;
        let mut done = 0;
        progress.on_part("re-ranking", done, total);
        let mut scorer = |work: &[Candidates]| -> Result<Vec<Vec<f32>>> {
            let scores = self.score(blip, bound, work)?;
            done += work.len() as u64;
            progress.on_part("re-ranking", done, total);
            Ok(scores)
        };
        rerank(&self.similarity()?, k_test, PAIRS_PER_CALL, &mut scorer)
    }

    /// Frames of these clips, concatenated; `None` for images.
    fn frames(&self, clips: impl Iterator<Item = usize>) -> Result<Option<Frames>> {
        if self.frames.is_empty() {
            return Ok(None);
        }
        let frames: Vec<&Frames> = clips.map(|clip| &self.frames[clip]).collect();
        let features: Vec<&Tensor> = frames.iter().map(|frames| &frames.features).collect();
        let masks: Vec<&Tensor> = frames.iter().filter_map(|frames| frames.mask.as_ref()).collect();
        let mask = match masks.is_empty() {
            true => None,
            false => Some(Tensor::cat(&masks, 0)?),
        };
        Ok(Some(Frames { features: Tensor::cat(&features, 0)?, mask }))
    }

    /// Frame-aware key scale of each candidate pair, (pairs, keys); `None` where frames are not weighed.
    fn frame_weights(&self, bound: &BoundModel, work: &[Candidates]) -> Result<Option<Tensor>> {
        if self.frames.is_empty() || !bound.needs_frame_features(false) {
            return Ok(None);
        }
        let pairs =
            || work.iter().flat_map(|item| item.texts.iter().map(|&text| (item.image, text)));
        let frames = self.frames(pairs().map(|(image, _)| image))?;
        let texts: Vec<u32> = pairs().map(|(_, text)| text as u32).collect();
        let count = texts.len();
        let texts = Tensor::from_vec(texts, count, self.text.device())?;
        let text = self.text.index_select(&texts, 0)?;
        let keys = self.image_states.first().map_or(0, |states| states.dims()[1]);
        frame_weights(bound, false, &text, frames.as_ref(), keys)
    }

    /// Matching logits of images with their candidate texts. Keys and values are computed once per image, or absorbed
    /// into the queries where few tokens attend to each image.
    ///
    /// # Errors
    /// Shapes that do not fit the model.
    pub fn score(
        &self,
        blip: &Blip,
        bound: &BoundModel,
        work: &[Candidates],
    ) -> Result<Vec<Vec<f32>>> {
        let states = work.iter().map(|item| &self.image_states[item.image]).collect::<Vec<_>>();
        let states = Tensor::cat(&states, 0)?; // (images, tokens, vision width)
        let texts: Vec<usize> = work.iter().flat_map(|item| item.texts.iter().copied()).collect();
        let rows: Vec<u32> = (0u32..)
            .zip(work)
            .flat_map(|(row, item)| item.texts.iter().map(move |_| row))
            .collect();
        // Texts differ in length: pad to the longest of this call.
        let length = texts.iter().map(|&text| self.texts[text].0.dims()[1]).max().unwrap_or(0);
        let gather = |part: fn(&(Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
            let rows = texts.iter().map(|&text| {
                let row = part(&self.texts[text]);
                row.pad_with_zeros(1, 0, length - row.dims()[1])
            });
            Ok(Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        };
        let (ids, mask) = (gather(|text| &text.0)?, gather(|text| &text.1)?);
        let weights = self.frame_weights(bound, work)?;
        let clips = self.frames(work.iter().map(|item| item.image))?;
        let frame_mask = clips.and_then(|frames| frames.mask);
        let folded = weights.is_none()
            && frame_mask.is_none()
            && states.device().is_cpu()
            && blip.prefers_absorbed(texts.len() * length, work.len());
        let keys = match folded {
            true => blip.lazy_kv(&states)?,
            false => image_keys(blip, bound, &states, frame_mask.as_ref())?,
        };
        let seen = CrossAttention::new(&keys).rows(rows).with_key_scale(weights);
        let fused = blip.fuse_cls(&ids, &mask, &seen, bound)?; // (pairs, width)
        let fused = if bound.has_context() {
            let own: Vec<&Tensor> = texts.iter().map(|&text| &self.text_cls[text]).collect();
            bound.add_context(&fused, &Tensor::cat(&own, 0)?, 0)?
        } else {
            fused
        };
        let logits: Vec<f32> =
            bound.match_logits(&fused)?.narrow(1, 1, 1)?.flatten_all()?.to_vec1()?;
        let mut rest = logits.as_slice();
        let mut scores = Vec::with_capacity(work.len());
        for item in work {
            let (own, others) = rest.split_at(item.texts.len());
            scores.push(own.to_vec());
            rest = others;
        }
        Ok(scores)
    }
}
