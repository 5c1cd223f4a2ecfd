//! Decoded pictures.

use std::io::Cursor;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageFormat};

use crate::{Error, Result};

/// A decoded picture: 8-bit RGB, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// The region of a picture that is scaled, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Picture {
    /// From `3 * width * height` bytes; none if there are not as many, or no pixel.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && rgb.len() == bytes).then_some(Self { width, height, rgb })
    }

    /// Decodes WebP, PNG or JPEG, told apart by content. What is transparent becomes white.
    ///
    /// # Errors
    /// The decoder's message.
    pub fn decode(data: &[u8]) -> Result<Self, String> {
        let Some(format) = sniff(data) else {
            return Err("its first bytes are neither WebP, PNG nor JPEG".to_string());
        };
        let mut reader = image::ImageReader::with_format(Cursor::new(data), format);
        // The default limit of 512 MiB an allocation stands; sides are bounded as well.
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(1 << 15);
        limits.max_image_height = Some(1 << 15);
        reader.limits(limits);
        let decoded = reader.decode().map_err(|e| e.to_string())?;
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let rgb = flatten(decoded);
        Self::new(width, height, rgb).ok_or_else(|| "it has no pixels".to_string())
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

    /// Scales `crop` (or everything) to a square of `size` pixels: bicubic with a = -1/2, the
    /// filter widened when shrinking, as PIL does it. The aspect ratio is not kept.
    ///
    /// # Errors
    /// When `size` is 0 or the crop is not inside the picture.
    pub fn resize(&self, size: usize, crop: Option<Crop>) -> Result<Self> {
        if crop.is_none() && (self.width, self.height) == (size, size) && size > 0 {
            return Ok(self.clone());
        }
        let failed =
            |reason: String| Error::Resize { width: self.width, height: self.height, size, reason };
        if size == 0 || size > 1 << 14 {
            return Err(failed("the side must be 1 to 16384 pixels".to_string()));
        }
        let (width, height) = (self.width as u32, self.height as u32);
        let source = ImageRef::new(width, height, &self.rgb, PixelType::U8x3)
            .map_err(|e| failed(e.to_string()))?;
        let mut out = Image::new(size as u32, size as u32, PixelType::U8x3);
        let mut options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
            .use_alpha(false);
        if let Some(crop) = crop {
            options = options.crop(crop.left, crop.top, crop.width, crop.height);
        }
        Resizer::new()
            .resize(&source, &mut out, Some(&options))
            .map_err(|e| failed(e.to_string()))?;
        Self::new(size, size, out.into_vec()).ok_or_else(|| failed("no pixels".to_string()))
    }
}

/// The format by the first bytes.
pub(crate) fn sniff(data: &[u8]) -> Option<ImageFormat> {
    if data.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(ImageFormat::Png)
    } else if data.starts_with(&[0xff, 0xd8, 0xff]) {
        Some(ImageFormat::Jpeg)
    } else if data.starts_with(b"RIFF") && data.get(8..12) == Some(b"WEBP") {
        Some(ImageFormat::WebP)
    } else {
        None
    }
}

/// RGB bytes, on white where there is transparency.
pub(crate) fn flatten(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let rgba = picture.into_rgba8();
    let mut rgb = Vec::with_capacity(rgba.as_raw().len() / 4 * 3);
    for pixel in rgba.pixels() {
        let [r, g, b, a] = pixel.0.map(u32::from);
        rgb.extend([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8));
    }
    rgb
}
