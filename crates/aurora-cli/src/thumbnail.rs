//! Thumbnails: small encoded copies of images, for pages.

use std::io::Cursor;

use anyhow::{Context, Result};
use aurora_data::Image;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, RgbImage};

use crate::page;

/// Longest side of an image on a page, in pixels: sharp at the size it is shown, on dense screens.
const MAX_SIDE: u32 = 320;

/// Longest side, in pixels, of images kept lossless: drawings of this size are small anyway, and JPEG frays their
/// edges.
const LOSSLESS_SIDE: u32 = 128;

/// JPEG quality of larger images.
const QUALITY: u8 = 85;

/// Thumbnail of `image` for a page, under `name`.
///
/// # Errors
/// None in practice: any image that was decoded can be encoded.
pub fn thumbnail(image: &Image, name: &str) -> Result<page::EmbeddedImage> {
    let (width, height) = (image.width() as u32, image.height() as u32);
    let pixels = RgbImage::from_raw(width, height, image.rgb().to_vec())
        .context("an image has three bytes for each pixel")?;
    let mut bytes = Cursor::new(Vec::new());
    if width.max(height) <= LOSSLESS_SIDE {
        let encoder = WebPEncoder::new_lossless(&mut bytes);
        encoder.encode(pixels.as_raw(), width, height, ExtendedColorType::Rgb8)?;
    } else {
        let scaled = fit(pixels);
        JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&scaled)?;
    }
    page::EmbeddedImage::new(name, bytes.get_ref())
        .context("an encoded image is known by its bytes")
}

/// Downscales the image until its longest side fits, keeping the aspect ratio.
fn fit(pixels: RgbImage) -> RgbImage {
    let (width, height) = pixels.dimensions();
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return pixels;
    }
    let scaled =
        |side: u32| (u64::from(side) * u64::from(MAX_SIDE) / u64::from(longest)).max(1) as u32;
    imageops::resize(&pixels, scaled(width), scaled(height), FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Html;

    fn shown(width: usize, height: usize) -> String {
        let pixels = (0..3 * width * height).map(|i| (i % 251) as u8).collect();
        let image = Image::new(width, height, pixels).unwrap();
        let mut html = Html::new();
        thumbnail(&image, "p").unwrap().write(&mut html, "p");
        html.into_string()
    }

    #[test]
    fn small_images_keep_every_pixel() {
        assert!(shown(64, 64).contains("data:image/webp;base64,"));
        assert!(shown(1, 1).contains("data:image/webp;base64,"));
    }

    #[test]
    fn large_images_shrink() {
        let page = shown(2000, 10);
        assert!(page.contains("data:image/jpeg;base64,"));
        assert!(page.len() < 20_000, "{}", page.len());
        assert_eq!(fit(RgbImage::new(2000, 10)).dimensions(), (320, 1));
        assert_eq!(fit(RgbImage::new(300, 200)).dimensions(), (300, 200));
    }
}
