//! Decoded 8-bit RGB images.

mod decode;
mod jpeg;
mod resample;

pub(crate) use decode::{flatten, sniff};

use crate::{DecodeError, Error, Result};

/// Pixel limit of [`Image::decode`]: above it, Pillow raises `DecompressionBombError`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Decoded image: 8-bit RGB, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Box cropped from an image before resizing, in pixels. Pixels outside do not contribute, not even
/// at its edge (torchvision's `resized_crop`).
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
    /// Image of `3 * width * height` bytes; `None` for another length or no pixel.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && rgb.len() == bytes).then_some(Self { width, height, rgb })
    }

    /// Decodes JPEG, PNG, WebP or GIF, detected by magic bytes.
    ///
    /// The image is rotated and mirrored by its EXIF orientation, composited on white where it is
    /// transparent, and converted to 8 bits a channel from gray, palette, 16 bits or CMYK. Of an
    /// animation it is the first frame. Color profiles are not applied.
    ///
    /// # Errors
    /// A file that is truncated, damaged, or larger than [`MAX_PIXELS`] or 65,535 pixels a side. The
    /// size in the header is checked before anything is allocated.
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

    /// Pixel bytes, `3 * width * height`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Mutable pixel bytes.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Mirrors the image horizontally.
    pub fn mirror(&mut self) {
        let (pixels, _) = self.rgb.as_chunks_mut::<3>();
        pixels.chunks_exact_mut(self.width).for_each(<[_]>::reverse);
    }

    /// Resizes `crop` (or the whole image) to a square of `size` pixels: bicubic with a = -1/2 and
    /// antialiasing, equal to Pillow. The aspect ratio is not kept.
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
