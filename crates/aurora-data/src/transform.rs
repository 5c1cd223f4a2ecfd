//! Image transforms: decoded image to (3, size, size) f32, normalized.

mod affine;
mod crop;
mod operations;
mod randaugment;

pub use affine::AffineAugment;
pub use operations::Operation;
pub use randaugment::RandAugmentTransform;

use aurora_kernels::random::Stream;

use crate::{Error, Image, Result};

/// BLIP's normalization mean of the red, green and blue channels, on a scale of 0 to 1.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// BLIP's normalization standard deviation of the channels, on a scale of 0 to 1.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Transform of an image into a normalized square.
pub trait Transform: Send + Sync {
    /// Side of the square in pixels.
    fn size(&self) -> usize;

    /// Writes (3, size, size) to `out`, planar. All random numbers come from `stream`.
    ///
    /// # Errors
    /// When the image cannot be resized, or `out` has another length.
    fn apply(&self, image: &Image, stream: &mut Stream, out: &mut [f32]) -> Result<()>;
}

/// Evaluation transform: bicubic resize to a square, normalized, no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalTransform {
    /// Side of the square in pixels.
    pub size: usize,
}

impl Transform for EvalTransform {
    fn size(&self) -> usize {
        self.size
    }

    fn apply(&self, image: &Image, _stream: &mut Stream, out: &mut [f32]) -> Result<()> {
        if (image.width(), image.height()) == (self.size, self.size) {
            return normalize(image, out);
        }
        normalize(&image.resize(self.size, None)?, out)
    }
}

/// Normalization `(value / 255 - mean) / std` per channel, rounded as torchvision does. A lookup
/// table, since a byte has 256 values.
pub(crate) fn normalize(image: &Image, out: &mut [f32]) -> Result<()> {
    let plane = image.width() * image.height();
    check(out, plane)?;
    let (red, rest) = out.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    for (((pixel, red), green), blue) in image.rgb().chunks_exact(3).zip(red).zip(green).zip(blue) {
        *red = NORMALIZED[0][usize::from(pixel[0])];
        *green = NORMALIZED[1][usize::from(pixel[1])];
        *blue = NORMALIZED[2][usize::from(pixel[2])];
    }
    Ok(())
}

/// Normalization lookup table of each channel.
static NORMALIZED: [[f32; 256]; 3] = {
    let mut table = [[0.0; 256]; 3];
    let mut at = 0;
    while at < 3 * 256 {
        let (channel, value) = (at / 256, at % 256);
        table[channel][value] = (value as f32 / 255.0 - MEAN[channel]) / STD[channel];
        at += 1;
    }
    table
};

/// Normalization as scale and shift of one channel: `value * scale + shift` for a value of 0 to 1.
pub(crate) fn line(channel: usize) -> (f32, f32) {
    let (mean, std) = (MEAN[channel % 3], STD[channel % 3]);
    (1.0 / std, -mean / std)
}

/// Errors unless `out` holds three planes.
pub(crate) fn check(out: &[f32], plane: usize) -> Result<()> {
    if out.len() == 3 * plane && plane > 0 {
        return Ok(());
    }
    Err(Error::Option {
        option: "the length of the output",
        value: out.len().to_string(),
        allowed: "three values for each pixel of a square of at least one",
    })
}
