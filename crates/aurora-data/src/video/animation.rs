//! Animated images: GIF, PNG and WebP.
//!
//! The index comes from walking the file's blocks, which detects truncated files and false claims
//! of size without decoding. The frames come from the crate `image`, composited as in a browser;
//! remaining transparency becomes white.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder as _, DynamicImage, Frames, ImageDecoder, Limits};

use super::{Container, Sink, VideoIndex, check_size};
use crate::image::flatten;
use crate::{DecodeError, DecodeErrorKind, Image};

/// Limit of the pixels composited for one video: 16,000 frames of 1080p.
const MAX_COMPOSITED_PIXELS: u64 = 1 << 35;

/// Delays below this many seconds become [`USUAL`], as in browsers.
const LEAST: f64 = 0.02;
const USUAL: f64 = 0.1;

/// Encoded animated image.
pub(super) struct Animation<'a> {
    data: &'a [u8],
    container: Container,
}

/// Result of the walk over a file.
struct Walk {
    width: u64,
    height: u64,
    /// Delay of each frame in seconds.
    delays: Vec<f64>,
}

impl<'a> Animation<'a> {
    pub(super) fn open(
        data: &'a [u8],
        container: Container,
    ) -> Result<(VideoIndex, Self), DecodeError> {
        let walk = match container {
            Container::Gif => gif(data)?,
            Container::Apng => apng(data)?,
            _ => webp(data)?,
        };
        let work = walk.width * walk.height * walk.delays.len() as u64;
        if work > MAX_COMPOSITED_PIXELS {
            let reason = format!(
                "{} frames of {} x {} are more than is composited of one animated image; make a \
                 video of it, or store its frames in a folder",
                walk.delays.len(),
                walk.width,
                walk.height
            );
            return Err(DecodeError::new(DecodeErrorKind::TooLarge, reason));
        }
        let mut end = 0.0;
        let mut times = Vec::with_capacity(walk.delays.len());
        for delay in walk.delays {
            times.push(end);
            end += if delay < LEAST { USUAL } else { delay };
        }
        Ok((VideoIndex { times, end }, Self { data, container }))
    }

    pub(super) fn frames(&self, wanted: &[usize], sink: &mut Sink<'_>) -> Result<(), DecodeError> {
        let mut left = wanted.iter().copied().enumerate().peekable();
        for (index, frame) in self.decoder().map_err(|e| e.to_string())?.enumerate() {
            let frame = frame.map_err(|e| format!("frame {index}: {e}"))?;
            let Some(&(place, next)) = left.peek() else { return Ok(()) };
            if next != index {
                continue;
            }
            left.next();
            let image = DynamicImage::ImageRgba8(frame.into_buffer());
            let (width, height) = (image.width() as usize, image.height() as usize);
            let image = Image::new(width, height, flatten(image))
                .ok_or_else(|| format!("frame {index} has no pixels"))?;
            sink(place, image)?;
            if left.peek().is_none() {
                return Ok(());
            }
        }
        match left.next() {
            None => Ok(()),
            Some((_, missing)) => {
                Err(format!("it ends before frame {missing}, of which its blocks speak").into())
            }
        }
    }

    fn decoder(&self) -> image::ImageResult<Frames<'a>> {
        let data = Cursor::new(self.data);
        let mut limits = Limits::default();
        limits.max_alloc = Some(super::MAX_FRAME_PIXELS * 4 * 5);
        Ok(match self.container {
            Container::Gif => {
                let mut decoder = GifDecoder::new(data)?;
                decoder.set_limits(limits)?;
                decoder.into_frames()
            }
            Container::Apng => PngDecoder::with_limits(data, limits)?.apng()?.into_frames(),
            _ => {
                let mut decoder = WebPDecoder::new(data)?;
                // Without a background color, the decoder never disposes frames.
                decoder.set_background_color(image::Rgba([0; 4]))?;
                decoder.set_limits(limits)?;
                decoder.into_frames()
            }
        })
    }
}

/// Byte reader with messages for truncation.
struct Bytes<'a> {
    rest: &'a [u8],
    frames: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| cut(self.frames))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|byte| byte[0])
    }

    /// Skips a chain of sub-blocks and its terminator.
    fn skip_blocks(&mut self) -> Result<(), String> {
        loop {
            match self.byte()? {
                0 => return Ok(()),
                length => self.take(usize::from(length))?,
            };
        }
    }
}

fn cut(frames: usize) -> String {
    format!("it is cut: it ends in frame {frames} (counted from 0)")
}

fn u16_le(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u24_le(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 3).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], 0])))
}

fn u32_be(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).map_or(0, |b| u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]])))
}

/// Length in bytes of a color table, by its packed field.
fn table(packed: u8) -> usize {
    if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 7) + 1) }
}

fn gif(data: &[u8]) -> Result<Walk, DecodeError> {
    let mut bytes = Bytes { rest: data, frames: 0 };
    let screen = bytes.take(13)?;
    let (width, height) = (u16_le(screen, 6), u16_le(screen, 8));
    check_size(width, height)?;
    bytes.take(table(screen[10]))?;
    let mut delays = Vec::new();
    let mut delay = 0.0;
    loop {
        bytes.frames = delays.len();
        match bytes.byte()? {
            b';' => return Ok(Walk { width, height, delays }),
            b'!' => {
                // The graphic control extension holds the delay of the next frame.
                if bytes.byte()? == 0xf9 && bytes.rest.first() == Some(&4) {
                    let control = bytes.rest.get(..5).ok_or_else(|| cut(delays.len()))?;
                    delay = u16_le(control, 2) as f64 / 100.0;
                }
                bytes.skip_blocks()?;
            }
            b',' => {
                let place = bytes.take(9)?;
                check_size(u16_le(place, 4), u16_le(place, 6))?;
                bytes.take(table(place[8]))?;
                bytes.byte()?;
                bytes.skip_blocks()?;
                delays.push(delay);
                delay = 0.0;
            }
            other => {
                return Err(format!(
                    "it is damaged: a block of kind {other:#04x} after frame {}, which no GIF has",
                    delays.len()
                )
                .into());
            }
        }
    }
}

/// Chunks of a PNG: type and content.
struct PngChunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for PngChunks<'a> {
    type Item = Result<([u8; 4], &'a [u8]), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let chunk = (|| {
            let (head, rest) = self.rest.split_first_chunk::<8>()?;
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let content = rest.get(..length)?;
            self.rest = rest.get(length.checked_add(4)?..)?;
            Some(([head[4], head[5], head[6], head[7]], content))
        })();
        if chunk.is_none() {
            self.rest = &[];
        }
        Some(chunk.ok_or(()))
    }
}

fn apng(data: &[u8]) -> Result<Walk, DecodeError> {
    let (mut width, mut height, mut said) = (0, 0, 0);
    let mut delays = Vec::new();
    let mut ended = false;
    for chunk in (PngChunks { rest: data.get(8..).unwrap_or_default() }) {
        let (kind, content) = chunk.map_err(|()| cut(delays.len()))?;
        match &kind {
            b"IHDR" => {
                (width, height) = (u32_be(content, 0), u32_be(content, 4));
                check_size(width, height)?;
            }
            b"acTL" => said = u32_be(content, 0),
            b"fcTL" => {
                let number = |at: usize| {
                    content.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
                };
                let parts = match number(22) {
                    0 => 100,
                    parts => parts,
                };
                delays.push(f64::from(number(20)) / f64::from(parts));
            }
            b"IEND" => {
                ended = true;
                break;
            }
            _ => {}
        }
    }
    if !ended {
        return Err(cut(delays.len()).into());
    }
    if said != delays.len() as u64 {
        return Err(format!("it says that it has {said} frames and has {}", delays.len()).into());
    }
    Ok(Walk { width, height, delays })
}

fn webp(data: &[u8]) -> Result<Walk, DecodeError> {
    let mut bytes = Bytes { rest: data, frames: 0 };
    bytes.take(12)?;
    let (mut width, mut height) = (0, 0);
    let mut delays = Vec::new();
    let mut cleared = false;
    while !bytes.rest.is_empty() {
        bytes.frames = delays.len();
        let head = bytes.take(8)?;
        let length = head.get(4..8).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let content = bytes.take(length as usize)?;
        // Chunks of odd length are padded; the last may lack the padding.
        bytes.rest = bytes.rest.get(length as usize % 2..).unwrap_or_default();
        match &head[..4] {
            b"VP8X" => {
                (width, height) = (u24_le(content, 4) + 1, u24_le(content, 7) + 1);
                check_size(width, height)?;
            }
            b"ANMF" => {
                let size = (u24_le(content, 6) + 1, u24_le(content, 9) + 1);
                check_size(size.0, size.1)?;
                // The decoder clears the wrong pixels before such a frame; an error is better than
                // wrong pixels.
                let opaque = content.get(16..20) == Some(b"VP8 ");
                if cleared && opaque && size != (width, height) {
                    return Err(format!(
                        "frame {} is a lossy part behind one that is cleared, which is not decoded \
                         rightly; store its frames in a folder",
                        delays.len()
                    )
                    .into());
                }
                cleared = content.get(15).is_some_and(|flags| flags & 1 != 0);
                delays.push(u24_le(content, 12) as f64 / 1000.0);
            }
            _ => {}
        }
    }
    // The RIFF length, which detects a cut between two frames as well.
    let said = data.get(4..8).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if (data.len() as u64) < u64::from(said) + 8 {
        return Err(cut(delays.len()).into());
    }
    Ok(Walk { width, height, delays })
}
