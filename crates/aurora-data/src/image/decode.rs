//! Image decoding: encoded bytes to 8-bit RGB.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::{Image, MAX_PIXELS, jpeg};
use crate::{DecodeError, DecodeErrorKind};

/// Limit of the sides, JPEG's own.
const MAX_SIDE: u32 = 65_535;

/// Upper bound of the pixels that a byte of JPEG, PNG or GIF can encode (JPEG takes a bit or more
/// for 1024 pixels; deflate in PNG expands a byte to at most 1032, of 8 pixels each), so that a
/// header of a few bytes cannot force an allocation. WebP has no such bound: one color takes the
/// same few bytes at any size.
const PIXELS_A_BYTE: u64 = 1 << 14;

/// Message for a truncated file.
const CUT: &str = "it is cut off: the file ends before its last pixel";

/// Image format by magic bytes.
pub(crate) fn sniff(data: &[u8]) -> Option<ImageFormat> {
    if data.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(ImageFormat::Png)
    } else if data.starts_with(&[0xff, 0xd8, 0xff]) {
        Some(ImageFormat::Jpeg)
    } else if data.starts_with(b"RIFF") && data.get(8..12) == Some(b"WEBP") {
        Some(ImageFormat::WebP)
    } else if data.starts_with(b"GIF87a") || data.starts_with(b"GIF89a") {
        Some(ImageFormat::Gif)
    } else {
        None
    }
}

/// Decodes a file of any format that [`sniff`] detects.
pub(super) fn decode(data: &[u8]) -> Result<Image, DecodeError> {
    if data.is_empty() {
        return Err(DecodeError::new(DecodeErrorKind::Empty, "the file has 0 bytes"));
    }
    let decoded = match sniff(data) {
        Some(ImageFormat::Jpeg) => jpeg::decode(data),
        Some(ImageFormat::WebP) if webp_is_cut(data) => Err(CUT.into()),
        Some(format) => with_image(data, format),
        None => Err(DecodeError::new(
            DecodeErrorKind::UnknownFormat,
            "its first bytes are none of JPEG, PNG, WebP or GIF",
        )),
    };
    // Decoder messages may contain line breaks.
    let one_line = |words: String| words.split_whitespace().collect::<Vec<_>>().join(" ");
    decoded.map_err(|error| error.map_message(one_line))
}

/// True if the file ends before or within its first pixel chunk; the decoder would call that corrupt.
fn webp_is_cut(data: &[u8]) -> bool {
    let mut rest = data.get(12..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > after.len() {
            return true;
        }
        if matches!(&head[..4], b"VP8 " | b"VP8L" | b"ANMF") {
            return false;
        }
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    true
}

/// Decodes PNG, WebP and GIF with the crate `image`.
fn with_image(data: &[u8], format: ImageFormat) -> Result<Image, DecodeError> {
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(most_bytes(data, format)?);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let bytes = if format == ImageFormat::WebP { None } else { Some(data.len()) };
    check_size(width, height, bytes)?;
    // A broken EXIF block is not an error of the image.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;
    oriented(width, height, flatten(decoded), orientation)
}

/// Allocation limit of the decoder: for PNG, whose color profile may inflate to any size, the need
/// of its pixels plus a margin; otherwise four bytes a pixel of the largest image.
fn most_bytes(data: &[u8], format: ImageFormat) -> Result<u64, DecodeError> {
    const MORE: u64 = 8 << 20;
    let side = |at: usize| data.get(at..)?.first_chunk::<4>().map(|side| u32::from_be_bytes(*side));
    let (ImageFormat::Png, Some(width), Some(height)) = (format, side(16), side(20)) else {
        return Ok(4 * MAX_PIXELS);
    };
    check_size(width, height, Some(data.len()))?;
    Ok(8 * u64::from(width) * u64::from(height) + MORE)
}

/// Decoder error as a message, in our terms for truncation and memory.
fn failed(error: image::ImageError) -> String {
    if matches!(error, image::ImageError::Limits(_)) {
        return "it asks for more memory than an image of its size takes: it is damaged"
            .to_string();
    }
    // Each decoder wraps an unexpected end of file differently; the text is the same.
    let words = error.to_string();
    if words.to_lowercase().contains("unexpected end") { CUT.to_string() } else { words }
}

/// Checks the size in a header against the limits before anything is allocated. `bytes` is the
/// length of the file where that bounds the pixels.
pub(super) fn check_size(width: u32, height: u32, bytes: Option<usize>) -> Result<(), DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err("it has no pixels".into());
    }
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        let reason = format!(
            "its header says {width} x {height} pixels; at most {MAX_PIXELS} pixels and {MAX_SIDE} a side \
             are read: scale it down first"
        );
        return Err(DecodeError::new(DecodeErrorKind::TooLarge, reason));
    }
    if let Some(bytes) = bytes.filter(|&bytes| pixels / PIXELS_A_BYTE > bytes as u64) {
        return Err(format!(
            "its header says {width} x {height} pixels, which {bytes} bytes cannot hold: it is cut off or damaged"
        )
        .into());
    }
    Ok(())
}

/// Image of `rgb`, rotated and mirrored by its EXIF orientation.
pub(super) fn oriented(
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    orientation: Orientation,
) -> Result<Image, DecodeError> {
    let no_pixels = || "it has no pixels".into();
    if orientation == Orientation::NoTransforms {
        return Image::new(width as usize, height as usize, rgb).ok_or_else(no_pixels);
    }
    let stored = RgbImage::from_raw(width, height, rgb).ok_or_else(no_pixels)?;
    let mut upright = DynamicImage::ImageRgb8(stored);
    upright.apply_orientation(orientation);
    let (width, height) = (upright.width() as usize, upright.height() as usize);
    Image::new(width, height, upright.into_rgb8().into_raw()).ok_or_else(no_pixels)
}

/// RGB bytes, composited on white where transparent.
pub(crate) fn flatten(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    // In place: the image may be large.
    let mut bytes = image.into_rgba8().into_raw();
    let pixels = bytes.len() / 4;
    for pixel in 0..pixels {
        let alpha = u32::from(bytes[4 * pixel + 3]);
        for channel in 0..3 {
            let value = u32::from(bytes[4 * pixel + channel]);
            bytes[3 * pixel + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    bytes.truncate(3 * pixels);
    bytes
}
