//! Video clips: frames pass the vision tower one by one; cross-attention reads the tokens of all of them.
//!
//! The states of clips are (clips, frames, tokens, width); token 0 of every frame is its `[CLS]`. A clip with fewer
//! frames than the longest is padded; a mask (clips, frames) is one for frames and zero for padding. Padding frames are
//! inert: masked as keys, excluded from means, zero gradient.

use crate::cross_attention::additive;
use crate::heads::normalize;
use crate::text::cls;
use crate::{Blip, BoundModel, Result};
use aurora_kernels::Precision;
use candle_core::{D, Tensor};

/// Temperature of the softmax over the frames: similarities are divided by it.
const TEMPERATURE: f64 = 4.0;

/// Mode of frame-aware attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameAware {
    Never,
    /// In training only, as in the reference code.
    InTraining,
    Always,
}

impl Blip {
    /// Video encoder: clips (clips, frames, 3, size, size), normalized, to states (clips, frames, tokens, vision
    /// width).
    pub fn encode_clips(&self, clips: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let (count, frames, ..) = clips.dims5()?;
        let states = self.encode_image(&clips.flatten(0, 1)?, bound)?;
        let (_, tokens, width) = states.dims3()?;
        Ok(states.reshape((count, frames, tokens, width))?)
    }

    /// Video encoder, `[CLS]` states of the frames only: (clips, frames, vision width). Cheaper than
    /// [`Self::encode_clips`].
    pub fn encode_clips_cls(&self, clips: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        let (count, frames, ..) = clips.dims5()?;
        let states = self.encode_image_cls(&clips.flatten(0, 1)?, bound)?;
        Ok(states.reshape((count, frames, ()))?)
    }
}

/// States of clips as cross-attention takes them, frame after frame: (clips, frames * tokens, width).
pub fn flatten_frames(states: &Tensor) -> Result<Tensor> {
    Ok(states.flatten(1, 2)?)
}

/// Token mask (clips, frames * tokens) from a frame mask (clips, frames), for [`crate::EncoderKv::with_mask`].
pub fn flatten_frame_mask(mask: &Tensor, tokens: usize) -> Result<Tensor> {
    let (clips, frames) = mask.dims2()?;
    Ok(mask.unsqueeze(2)?.broadcast_as((clips, frames, tokens))?.contiguous()?.flatten(1, 2)?)
}

impl BoundModel {
    /// Clip features of unit length, from the mean `[CLS]` of the unmasked frames: (clips, projection).
    pub fn clip_features(&self, states: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        self.clip_cls_features(&cls(states)?, mask)
    }

    /// Clip features of unit length from the `[CLS]` states of the frames (clips, frames, vision width).
    pub fn clip_cls_features(&self, frame_cls: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let mean = match mask {
            None => frame_cls.mean(1)?,
            Some(mask) => {
                let mask = mask.to_dtype(frame_cls.dtype())?;
                let there = frame_cls.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
                there.broadcast_div(&mask.sum_keepdim(1)?.maximum(1.0)?)?
            }
        };
        normalize(&self.heads()?.vision_proj.forward(&mean, Precision::F32)?)
    }

    /// Frame features of unit length: states of clips to (clips, frames, projection).
    pub fn frame_features(&self, states: &Tensor) -> Result<Tensor> {
        normalize(&self.heads()?.vision_proj.forward(&cls(states)?, Precision::F32)?)
    }

    /// True if a pass with frame-aware attention needs frame features.
    pub fn needs_frame_features(&self, training: bool) -> bool {
        match self.frame_aware {
            FrameAware::Never => false,
            FrameAware::InTraining => training,
            FrameAware::Always => true,
        }
    }
}

/// Frame-aware attention: key weights of each text, for [`crate::CrossAttention::with_key_scale`].
///
/// Takes text features (pairs, projection), features of the frames of each text's clip (pairs, frames, projection),
/// both of unit length, and the frame mask (pairs, frames); every frame has `tokens` tokens. The tokens of frame t get
/// `frames softmax_t(similarity / 4)`, its `[CLS]` 1; softmax and count are over unmasked frames. Returns (pairs,
/// frames * tokens), without gradient.
pub fn frame_attention_scale(
    text: &Tensor,
    frames: &Tensor,
    mask: Option<&Tensor>,
    tokens: usize,
) -> Result<Tensor> {
    let (pairs, count, _) = frames.dims3()?;
    let similarity = frames.detach().broadcast_mul(&text.detach().unsqueeze(1)?)?.sum(D::Minus1)?;
    let scores = (similarity / TEMPERATURE)?; // (pairs, frames)
    let scores = match mask {
        None => scores,
        Some(mask) => (&scores + additive(mask, scores.dtype())?)?,
    };
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let weights = match mask {
        None => (weights * count as f64)?,
        Some(mask) => weights.broadcast_mul(&mask.to_dtype(weights.dtype())?.sum_keepdim(1)?)?,
    };
    let weights = weights.unsqueeze(2)?; // (pairs, frames, 1)
    let others = weights.broadcast_as((pairs, count, tokens - 1))?;
    Ok(Tensor::cat(&[&weights.ones_like()?, &others.contiguous()?], 2)?.flatten(1, 2)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn frames_share_their_number_and_cls_keeps_its_keys() {
        let text = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu).unwrap();
        let frames =
            Tensor::new(&[[[1f32, 0.], [0., 1.]], [[0., 1.], [0., 1.]]], &Device::Cpu).unwrap();
        let scale =
            frame_attention_scale(&text, &frames, None, 3).unwrap().to_vec2::<f32>().unwrap();
        let near = 2.0 * (0.25f32.exp() / (0.25f32.exp() + 1.0));
        for (found, wanted) in scale[0].iter().zip([1.0, near, near, 1.0, 2.0 - near, 2.0 - near]) {
            assert!((found - wanted).abs() < 1e-6, "{scale:?}");
        }
        assert_eq!(scale[1], [1.0; 6]);
    }

    #[test]
    fn frames_that_are_not_there_change_nothing() {
        let text = Tensor::new(&[[1f32, 0.]], &Device::Cpu).unwrap();
        let frames = Tensor::new(&[[[1f32, 0.], [0., 1.], [0.6, 0.8]]], &Device::Cpu).unwrap();
        let mask = Tensor::new(&[[1f32, 1., 0.]], &Device::Cpu).unwrap();
        let masked = frame_attention_scale(&text, &frames, Some(&mask), 2)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        let short = frames.narrow(1, 0, 2).unwrap();
        let short =
            frame_attention_scale(&text, &short, None, 2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(masked[0][..4], short[0][..]);
        let tokens = flatten_frame_mask(&mask, 2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(tokens, [[1., 1., 1., 1., 0., 0.]]);
    }
}
