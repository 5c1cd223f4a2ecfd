//! Clips: frames go through the vision tower one by one, fused attention sees the tokens of all of them.
//!
//! The states of clips are (clips, frames, tokens, width); token 0 of every frame is its `[CLS]`.

use crate::heads::normalize;
use crate::text::cls;
use crate::{Blip, Prepared, Result};
use aurora_kernels::Precision;
use candle_core::{D, Tensor};

/// What the similarities of a text with the frames are divided by before the softmax over the frames.
const TEMPERATURE: f64 = 4.0;

/// When frame-aware attention weighs the frames of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameAware {
    Never,
    /// As in the released code: on in training, off in evaluation.
    InTraining,
    Always,
}

impl Blip {
    /// Clips (clips, frames, 3, size, size), normalised, to states (clips, frames, tokens, vision width).
    pub fn encode_clips(&self, clips: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        let (count, frames, ..) = clips.dims5()?;
        let states = self.encode_image(&clips.flatten(0, 1)?, prepared)?;
        let (_, tokens, width) = states.dims3()?;
        Ok(states.reshape((count, frames, tokens, width))?)
    }

    /// The `[CLS]` states of the frames alone, (clips, frames, vision width), for less work.
    pub fn encode_clips_cls(&self, clips: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        let (count, frames, ..) = clips.dims5()?;
        let states = self.encode_image_cls(&clips.flatten(0, 1)?, prepared)?;
        Ok(states.reshape((count, frames, ()))?)
    }
}

/// The states of clips as fused attention takes them, all frames one after the other: (clips, frames * tokens, width).
pub fn clip_tokens(states: &Tensor) -> Result<Tensor> {
    Ok(states.flatten(1, 2)?)
}

impl Prepared {
    /// States of clips to features of unit length, of the mean of the frames' `[CLS]`: (clips, projection).
    pub fn clip_features(&self, states: &Tensor) -> Result<Tensor> {
        self.clip_cls_features(&cls(states)?)
    }

    /// The same from the `[CLS]` states of the frames alone, (clips, frames, vision width).
    pub fn clip_cls_features(&self, frame_cls: &Tensor) -> Result<Tensor> {
        normalize(&self.heads()?.vision_proj.plain(&frame_cls.mean(1)?, Precision::F32)?)
    }

    /// States of clips to features of unit length of every frame: (clips, frames, projection).
    pub fn frame_features(&self, states: &Tensor) -> Result<Tensor> {
        normalize(&self.heads()?.vision_proj.plain(&cls(states)?, Precision::F32)?)
    }

    /// Whether a pass with frame-aware attention needs the features of frames.
    pub fn weighs_frames(&self, training: bool) -> bool {
        match self.frame_aware {
            FrameAware::Never => false,
            FrameAware::InTraining => training,
            FrameAware::Always => true,
        }
    }
}

/// Frame-aware attention: what each text multiplies the keys of its clip's frames by, for [`crate::Seen::scaled`].
///
/// Text features (pairs, projection), features of the frames of each text's clip (pairs, frames, projection), both of
/// unit length; every frame has `tokens` tokens. Frame t gets `frames softmax_t(similarity / 4)`, its `[CLS]` 1.
/// Result: (pairs, frames * tokens), without gradient.
pub fn frame_scale(text: &Tensor, frames: &Tensor, tokens: usize) -> Result<Tensor> {
    let (pairs, count, _) = frames.dims3()?;
    let similarity = frames.detach().broadcast_mul(&text.detach().unsqueeze(1)?)?.sum(D::Minus1)?;
    let scores = (similarity / TEMPERATURE)?; // (pairs, frames)
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let weights = (weights * count as f64)?.unsqueeze(2)?; // (pairs, frames, 1)
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
        let scale = frame_scale(&text, &frames, 3).unwrap().to_vec2::<f32>().unwrap();
        let near = 2.0 * (0.25f32.exp() / (0.25f32.exp() + 1.0));
        for (found, wanted) in scale[0].iter().zip([1.0, near, near, 1.0, 2.0 - near, 2.0 - near]) {
            assert!((found - wanted).abs() < 1e-6, "{scale:?}");
        }
        assert_eq!(scale[1], [1.0; 6]);
    }
}
