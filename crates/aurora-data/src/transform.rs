//! From a picture to what a vision tower takes: (3, size, size) f32, normalised.

mod augment;
mod operations;
mod released;

pub use augment::Augment;
pub use released::Released;

use aurora_kernels::random::Stream;

use crate::{Error, Picture, Result};

/// Mean of the red, green and blue channels, of 1, that BLIP's pictures are normalised with.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of the red, green and blue channels, of 1.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Turns a picture into a normalised square.
pub trait Transform: Send + Sync {
    /// The side of the square in pixels.
    fn size(&self) -> usize;

    /// Writes (3, size, size) to `out`, channel by channel. All random numbers come from
    /// `stream`.
    ///
    /// # Errors
    /// When the picture cannot be scaled, or `out` has another length.
    fn apply(&self, picture: &Picture, stream: &mut Stream, out: &mut [f32]) -> Result<()>;
}

/// The transform of evaluation: bicubic to a square, no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// The side of the square in pixels.
    pub size: usize,
}

impl Transform for Evaluation {
    fn size(&self) -> usize {
        self.size
    }

    fn apply(&self, picture: &Picture, _stream: &mut Stream, out: &mut [f32]) -> Result<()> {
        if (picture.width(), picture.height()) == (self.size, self.size) {
            return normalise(picture, out);
        }
        normalise(&picture.resize(self.size, None)?, out)
    }
}

/// `(value / 255 - mean) / std`, channel by channel.
pub(crate) fn normalise(picture: &Picture, out: &mut [f32]) -> Result<()> {
    let plane = picture.width() * picture.height();
    check(out, plane)?;
    for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
        let (scale, shift) = line(channel);
        for (value, pixel) in plane.iter_mut().zip(picture.rgb().chunks_exact(3)) {
            *value = f32::from(pixel[channel]) * (scale / 255.0) + shift;
        }
    }
    Ok(())
}

/// Scale and shift of one channel: a value of 0 to 1 is normalised as `value * scale + shift`.
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
