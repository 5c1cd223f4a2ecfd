//! Decoded images.

mod decode;
mod jpeg;
mod resample;

pub(crate) use decode::{flatten, sniff};

use crate::{DecodeError, Error, Result};

/// The most pixels that [`Image::decode`] decodes; Pillow refuses an image above the same number.
pub const MAX_PIXELS: u64 = 178_956_970;

/// A decoded image: 8-bit RGB, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// The part of an image that is cut out before it is scaled, in pixels. What lies outside has no
/// part in the result, not even at its edge (torchvision's `resized_crop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Left edge.
    pub left: usize,
    /// Upper edge.
    pub top: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

impl Image {
    /// From `3 * width * height` bytes; none if there are not as many, or no pixel.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && rgb.len() == bytes).then_some(Self { width, height, rgb })
    }

    /// Decodes JPEG, PNG, WebP or GIF, told apart by content.
    ///
    /// The image is as one sees it: oriented and mirrored as its EXIF orientation says, on white where
    /// it is transparent, 8 bits of each color whatever the file has (grey, palette, 16 bits, CMYK).
    /// Of an animation it is the first frame. Color profiles are not applied.
    ///
    /// # Errors
    /// What is wrong with the file: cut off, damaged, or larger than [`MAX_PIXELS`] or 65,535 pixels a
    /// side, which its header is asked before anything is allocated.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        decode::decode(data)
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `3 * width * height` bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The pixels, to be changed.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Swaps left and right.
    pub fn mirror(&mut self) {
        let (pixels, _) = self.rgb.as_chunks_mut::<3>();
        pixels.chunks_exact_mut(self.width).for_each(<[_]>::reverse);
    }

    /// Scales `crop` (or everything) to a square of `size` pixels: bicubic with a = -1/2, the
    /// filter widened when shrinking, as Pillow does it. The aspect ratio is not kept.
    ///
    /// # Errors
    /// When `size` is 0 or the crop is not inside the image.
    pub fn resize(&self, size: usize, crop: Option<Crop>) -> Result<Self> {
        let failed =
            |reason: String| Error::Resize { width: self.width, height: self.height, size, reason };
        if size == 0 || size > 1 << 14 {
            return Err(failed("the side must be 1 to 16384 pixels".to_string()));
        }
        let whole = Crop { left: 0, top: 0, width: self.width, height: self.height };
        let crop = crop.unwrap_or(whole);
        let inside = |start: usize, length: usize, side: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= side)
        };
        if !inside(crop.left, crop.width, self.width) || !inside(crop.top, crop.height, self.height)
        {
            return Err(failed(format!("{crop:?} is not inside the image")));
        }
        if crop == whole && (self.width, self.height) == (size, size) {
            return Ok(self.clone());
        }
        Ok(Self {
            width: size,
            height: size,
            rgb: resample::square(&self.rgb, self.width, crop, size),
        })
    }
}
