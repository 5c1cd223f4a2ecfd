//! H.264 in MP4, decoded by OpenH264.
//!
//! A video is divided into groups of pictures (GOPs) at its IDR frames. Within a GOP, frames are
//! shown in timestamp order, and no frame of one GOP is shown between those of another, so only the
//! GOPs with wanted frames are decoded, each by its own decoder.

use image::{RgbImage, imageops};
use mp4_atom::Avcc;
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource as _;

use super::mp4::{Track, TrackSample, track};
use super::sps::Sps;
use super::yuv::{Plane, YuvCoding};
use super::{Sink, VideoIndex, check_size};
use crate::{DecodeError, Image};

/// NAL unit types.
const IDR: u8 = 5;
const SPS: u8 = 7;

/// Encoded H.264 video.
pub(super) struct H264<'a> {
    data: &'a [u8],
    track: Track,
    gops: Vec<Gop>,
}

/// Group of pictures: from one IDR frame to the next.
struct Gop {
    /// Samples in coding order, as a range of the track's.
    samples: std::ops::Range<usize>,
    /// Frame index of each picture, in presentation order; `None` where the file's edit list omits
    /// it.
    frames: Vec<Option<usize>>,
}

impl<'a> H264<'a> {
    pub(super) fn open(data: &'a [u8]) -> Result<(VideoIndex, Self), DecodeError> {
        let track = track(data)?;
        for description in &track.descriptions {
            for sps in &description.sequence_parameter_sets {
                let sps = Sps::parse(sps)?;
                check_size(sps.width, sps.height)?;
            }
        }
        let mut starts = Vec::new();
        for (index, sample) in track.samples.iter().enumerate() {
            if has_key_frame(data, &track, sample).map_err(|e| format!("frame {index}: {e}"))? {
                starts.push(index);
            }
        }
        if starts.is_empty() {
            return Err("it has no key frame (IDR) to begin with".into());
        }
        // Samples before the first IDR frame cannot be decoded and are not shown.
        let ends = starts.iter().skip(1).copied().chain([track.samples.len()]);
        let (mut gops, mut times) = (Vec::new(), Vec::new());
        for (start, end) in starts.iter().copied().zip(ends) {
            let mut order: Vec<i64> =
                track.samples.get(start..end).unwrap_or_default().iter().map(|s| s.shown).collect();
            order.sort_unstable();
            let (first, last) = track.shown;
            let mut frame = |time: i64| {
                (time >= first && time < last).then(|| {
                    times.push(time as f64 / track.timescale);
                    times.len() - 1
                })
            };
            let frames = order.into_iter().map(&mut frame).collect();
            gops.push(Gop { samples: start..end, frames });
        }
        let begin = times.first().copied().unwrap_or(0.0);
        times.iter_mut().for_each(|time| *time -= begin);
        let end = times.last().copied().unwrap_or(0.0) + track.duration / track.timescale;
        Ok((VideoIndex { times, end }, Self { data, track, gops }))
    }

    pub(super) fn frames(&self, wanted: &[usize], sink: &mut Sink<'_>) -> Result<(), DecodeError> {
        for gop in &self.gops {
            let is_wanted =
                |frame: &Option<usize>| frame.is_some_and(|f| wanted.binary_search(&f).is_ok());
            if let Some(last) = gop.frames.iter().rposition(is_wanted) {
                self.decode(gop, last, wanted, sink)?;
            }
        }
        Ok(())
    }

    /// Decodes a GOP up to its frame number `last` in presentation order.
    fn decode(
        &self,
        gop: &Gop,
        last: usize,
        wanted: &[usize],
        sink: &mut Sink<'_>,
    ) -> Result<(), DecodeError> {
        // Flushing would output frames out of order.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let mut decoder = Decoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|e| e.to_string())?;
        let mut shown =
            Shown { gop, wanted, coding: YuvCoding::default(), turns: self.track.turns, count: 0 };
        let mut stream = Vec::new();
        for index in gop.samples.clone() {
            let Some(sample) = self.track.samples.get(index) else { break };
            let Some(description) = self.track.descriptions.get(sample.description) else { break };
            let wrong = |reason: String| format!("frame {index} (in coding order): {reason}");
            stream.clear();
            if index == gop.samples.start {
                let sets = &description.sequence_parameter_sets;
                for set in sets.iter().chain(&description.picture_parameter_sets) {
                    append(&mut stream, set);
                }
                if let Some(sps) = sets.first() {
                    shown.coding = Sps::parse(sps).map_err(wrong)?.coding;
                }
            }
            for nal in nals(self.data, description, sample) {
                let nal = nal.map_err(wrong)?;
                if nal.first().is_some_and(|head| head & 31 == SPS) {
                    let sps = Sps::parse(nal).map_err(wrong)?;
                    check_size(sps.width, sps.height).map_err(|error| error.map_message(wrong))?;
                    shown.coding = sps.coding;
                }
                append(&mut stream, nal);
            }
            if let Some(frame) = decoder.decode(&stream).map_err(|e| wrong(e.to_string()))? {
                shown.take(&frame, sink)?;
            }
            if shown.count > last {
                return Ok(());
            }
        }
        for frame in decoder.flush_remaining().map_err(|e| e.to_string())? {
            shown.take(&frame, sink)?;
        }
        if shown.count <= last {
            return Err(format!(
                "{} of the {} frames from frame {} on decode; it is damaged",
                shown.count,
                gop.samples.len(),
                gop.samples.start
            )
            .into());
        }
        Ok(())
    }
}

/// Receives the frames of a GOP in presentation order.
struct Shown<'p> {
    gop: &'p Gop,
    wanted: &'p [usize],
    coding: YuvCoding,
    turns: u8,
    count: usize,
}

impl Shown<'_> {
    fn take(&mut self, frame: &DecodedYUV<'_>, sink: &mut Sink<'_>) -> Result<(), DecodeError> {
        let number = self.gop.frames.get(self.count).copied().flatten();
        self.count += 1;
        let Some(place) = number.and_then(|number| self.wanted.binary_search(&number).ok()) else {
            return Ok(());
        };
        let (size, strides) = (frame.dimensions(), frame.strides());
        check_size(size.0 as u64, size.1 as u64)?;
        let planes = [
            Plane { bytes: frame.y(), stride: strides.0 },
            Plane { bytes: frame.u(), stride: strides.1 },
            Plane { bytes: frame.v(), stride: strides.2 },
        ];
        let short = || "the decoder gave less than a frame".to_string();
        let rgb = self.coding.to_rgb(size, planes).ok_or_else(short)?;
        let image = rotated(size, rgb, self.turns).ok_or_else(short)?;
        sink(place, image)
    }
}

/// Image rotated clockwise by quarter turns.
fn rotated((width, height): (usize, usize), rgb: Vec<u8>, turns: u8) -> Option<Image> {
    if turns == 0 {
        return Image::new(width, height, rgb);
    }
    let image = RgbImage::from_raw(width as u32, height as u32, rgb)?;
    let image = match turns {
        1 => imageops::rotate90(&image),
        2 => imageops::rotate180(&image),
        _ => imageops::rotate270(&image),
    };
    Image::new(image.width() as usize, image.height() as usize, image.into_raw())
}

fn has_key_frame(data: &[u8], track: &Track, sample: &TrackSample) -> Result<bool, String> {
    let Some(description) = track.descriptions.get(sample.description) else { return Ok(false) };
    for nal in nals(data, description, sample) {
        if nal?.first().is_some_and(|head| head & 31 == IDR) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Appends a NAL unit with its start code.
fn append(stream: &mut Vec<u8>, nal: &[u8]) {
    stream.extend([0, 0, 0, 1]);
    stream.extend(nal);
}

/// NAL units of a sample, each stored after its length.
fn nals<'a>(
    data: &'a [u8],
    description: &Avcc,
    sample: &TrackSample,
) -> impl Iterator<Item = Result<&'a [u8], String>> + use<'a> {
    let size = usize::from(description.length_size);
    let mut rest = data.get(sample.start..sample.start + sample.length).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let nal = rest.split_at_checked(size).and_then(|(length, after)| {
            let length = length.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
            after.split_at_checked(length)
        });
        let Some((nal, after)) = nal else {
            rest = &[];
            return Some(Err("a unit is longer than the frame".to_string()));
        };
        rest = after;
        Some(Ok(nal))
    })
}
