//! Rasterization: small square images on white, as WebP.

use std::path::Path;

use anyhow::Context as _;
use image::{RgbImage, imageops};

/// WebP quality of every image in the packs.
const QUALITY: f32 = 85.0;

/// Reads an image, composites it on white and fits it in a square of `side` pixels, centered. With `trim`, the white
/// margin is cropped first.
pub fn square(path: &Path, side: u32, trim: bool) -> anyhow::Result<RgbImage> {
    let image = image::ImageReader::open(path)?
        .with_guessed_format()?
        .decode()
        .with_context(|| path.display().to_string())?
        .to_rgba8();
    let (width, height) = image.dimensions();
    let mut flat = RgbImage::new(width, height);
    for (out, pixel) in flat.pixels_mut().zip(image.pixels()) {
        let [r, g, b, a] = pixel.0.map(u32::from);
        out.0 = [r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8);
    }
    let flat = if trim { trimmed(flat) } else { flat };
    let (width, height) = flat.dimensions();
    let longest = width.max(height).max(1);
    let fit = |n: u32| (n * side + longest / 2).div_euclid(longest).max(1);
    let (w, h) = (fit(width), fit(height));
    let flat = if (w, h) == (width, height) {
        flat
    } else {
        imageops::resize(&flat, w, h, imageops::FilterType::Lanczos3)
    };
    let mut out = RgbImage::from_pixel(side, side, image::Rgb([255; 3]));
    imageops::overlay(&mut out, &flat, i64::from((side - w) / 2), i64::from((side - h) / 2));
    Ok(out)
}

/// Crop of the part that is not white, with a margin of one part in thirty-two.
fn trimmed(image: RgbImage) -> RgbImage {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, pixel) in image.enumerate_pixels() {
        if pixel.0.iter().any(|&c| c < 245) {
            (left, top) = (left.min(x), top.min(y));
            (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
        }
    }
    if left >= right || top >= bottom {
        return image;
    }
    let margin = ((right - left).max(bottom - top) / 32).max(1);
    let (left, top) = (left.saturating_sub(margin), top.saturating_sub(margin));
    let right = (right + margin).min(image.width());
    let bottom = (bottom + margin).min(image.height());
    imageops::crop_imm(&image, left, top, right - left, bottom - top).to_image()
}

/// Encodes lossy WebP.
pub fn webp(image: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut config =
        webp::WebPConfig::new().map_err(|()| anyhow::anyhow!("libwebp has another version"))?;
    config.quality = QUALITY;
    config.method = 6;
    config.use_sharp_yuv = 1;
    let encoder = webp::Encoder::from_rgb(image.as_raw(), image.width(), image.height());
    let memory = encoder
        .encode_advanced(&config)
        .map_err(|e| anyhow::anyhow!("libwebp refused an image: {e:?}"))?;
    Ok(memory.to_vec())
}

/// Thumbnail of 12 x 12 pixels, for comparing images.
pub fn thumbnail(image: &RgbImage) -> Vec<u8> {
    imageops::thumbnail(image, 12, 12).into_raw()
}

/// Mean absolute difference of two thumbnails, 0 to 255.
pub fn difference(a: &[u8], b: &[u8]) -> f32 {
    let sum: u32 = a.iter().zip(b).map(|(x, y)| u32::from(x.abs_diff(*y))).sum();
    sum as f32 / a.len().max(1) as f32
}

/// Share of a thumbnail that is drawn on, 0 to 1.
pub fn ink(thumbnail: &[u8]) -> f32 {
    let sum: u32 = thumbnail.iter().map(|&c| u32::from(255 - c)).sum();
    sum as f32 / 255.0 / thumbnail.len().max(1) as f32
}
