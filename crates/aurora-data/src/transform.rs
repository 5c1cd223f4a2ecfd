//! From an image to what a vision tower takes: (3, size, size) f32, normalized.

mod affine;
mod crop;
mod operations;
mod randaugment;

pub use affine::AffineAugment;
pub use operations::Operation;
pub use randaugment::RandAugmentTransform;

use aurora_kernels::random::Stream;

use crate::{Error, Image, Result};

/// Mean of the red, green and blue channels, of 1, that BLIP's images are normalized with.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of the red, green and blue channels, of 1.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Turns an image into a normalized square.
pub trait Transform: Send + Sync {
    /// The side of the square in pixels.
    fn size(&self) -> usize;

    /// Writes (3, size, size) to `out`, channel by channel. All random numbers come from
    /// `stream`.
    ///
    /// # Errors
    /// When the image cannot be scaled, or `out` has another length.
    fn apply(&self, image: &Image, stream: &mut Stream, out: &mut [f32]) -> Result<()>;
}

/// The transform of evaluation: bicubic to a square, no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalTransform {
    /// The side of the square in pixels.
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

/// `(value / 255 - mean) / std`, channel by channel, as torchvision rounds it: a table, since a byte
/// has 256 values.
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

/// What the values of each channel become.
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

/// Scale and shift of one channel: a value of 0 to 1 is normalized as `value * scale + shift`.
pub(crate) fn line(channel: usize) -> (f32, f32) {
    let (mean, std) = (MEAN[channel % 3], STD[channel % 3]);
    (1.0 / std, -mean / std)
}

/// That `out` holds three planes.
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
