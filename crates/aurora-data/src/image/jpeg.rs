//! JPEG decoding with a check for truncation.
//!
//! Even in strict mode, zune-jpeg fills the rest of an image with gray when the file ends in its
//! last rows. So the markers of the file are walked first, up to the end marker.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Image;
use super::decode::{check_size, oriented};
use crate::DecodeError;

/// Start of image (SOI) marker.
const START: u8 = 0xd8;
/// End of image (EOI) marker.
const END: u8 = 0xd9;
/// Start of scan (SOS) marker.
const SCAN: u8 = 0xda;

pub(super) fn decode(data: &[u8]) -> Result<Image, DecodeError> {
    find_end(data)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no header")?;
    check_size(width as u32, height as u32, Some(data.len()))?;
    let mut rgb = vec![0; width * height * 3];
    decoder.decode_into(&mut rgb).map_err(|e| e.to_string())?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    oriented(width as u32, height as u32, rgb, orientation.unwrap_or(Orientation::NoTransforms))
}

/// Errors unless the markers reach the end marker.
fn find_end(data: &[u8]) -> Result<(), String> {
    let mut at = 2;
    let mut scans = 0;
    loop {
        let cut = || {
            let place =
                if scans == 0 { "before its pixels begin" } else { "before its last pixel" };
            format!("it is cut off: the file ends {place} (no end marker in {} bytes)", data.len())
        };
        // A marker is one or more 0xff bytes followed by a byte that is neither 0 nor 0xff.
        let rest = data.get(at..).ok_or_else(cut)?;
        at += rest.iter().position(|&byte| byte == 0xff).ok_or_else(cut)?;
        let rest = data.get(at..).unwrap_or_default();
        at += rest.iter().position(|&byte| byte != 0xff).ok_or_else(cut)?;
        let marker = data.get(at).copied().unwrap_or(0);
        at += 1;
        match marker {
            END => return Ok(()),
            // A stuffed byte of the scan, or a marker without a segment.
            0 | 0x01 | 0xd0..=0xd7 | START => {}
            _ => {
                let length = data.get(at..at + 2).ok_or_else(cut)?;
                scans += usize::from(marker == SCAN);
                at += usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
