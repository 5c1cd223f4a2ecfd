//! Shard members of a sample: its images and its record.

use std::io::Cursor;
use std::str::FromStr;

use aurora_kernels::random::Stream;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder as _, ImageFormat};
use serde::Serialize;

use super::ShardOptions;
use crate::image::sniff;
use crate::media_type::{MediaType, media_type};
use crate::question::{QuestionId, WeightedAnswer};
use crate::video::clip::pick_stored;
use crate::video::{Sampling, Video};
use crate::{ByteSource, Error, Image, Media, Result, Sample, Split};

/// Encoding of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// JPEG of quality 95: small and slightly lossy.
    #[default]
    Jpeg,
    /// Lossless WebP.
    WebP,
    /// PNG.
    Png,
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            "png" => Ok(Self::Png),
            other => Err(Error::Option {
                option: "encoding",
                value: other.to_string(),
                allowed: "one of jpeg, webp, png",
            }),
        }
    }
}

impl Encoding {
    fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Png => "png",
        }
    }

    fn encode(self, image: &Image) -> Result<Vec<u8>, String> {
        let mut out = Cursor::new(Vec::new());
        let (width, height) = (image.width() as u32, image.height() as u32);
        let (rgb, color) = (image.rgb(), ExtendedColorType::Rgb8);
        let done = match self {
            Self::Jpeg => {
                JpegEncoder::new_with_quality(&mut out, 95).write_image(rgb, width, height, color)
            }
            Self::WebP => {
                WebPEncoder::new_lossless(&mut out).write_image(rgb, width, height, color)
            }
            Self::Png => PngEncoder::new(&mut out).write_image(rgb, width, height, color),
        };
        done.map_err(|e| format!("it cannot be encoded: {e}"))?;
        Ok(out.into_inner())
    }
}

/// Members of a sample: file name suffix and bytes.
pub(super) struct ShardMembers {
    pub files: Vec<(String, Vec<u8>)>,
}

impl ShardMembers {
    /// Reads sample `number` and converts it to members.
    pub(super) fn prepare(sample: &Sample, number: u64, options: &ShardOptions) -> Result<Self> {
        if sample.captions.is_empty() && sample.question.is_none() {
            return Err(Error::NoCaption {
                shard: sample.shard.to_string(),
                key: sample.key.clone(),
            });
        }
        let failed = |reason| Error::Decode {
            shard: sample.shard.to_string(),
            key: sample.key.clone(),
            reason,
        };
        let mut stream = Stream::new(options.seed, "frames", 0, number);
        let mut files = media_files(&sample.media, options, &mut stream).map_err(failed)?;
        files.push(("json".to_string(), record(sample)));
        Ok(Self { files })
    }
}

fn read(content: &ByteSource) -> Result<std::borrow::Cow<'_, [u8]>, String> {
    content.bytes().map_err(|e| e.to_string())
}

fn media_files(
    media: &Media,
    options: &ShardOptions,
    stream: &mut Stream,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    match media {
        Media::Image(content) => {
            let (extension, data) = image_file(content, options)?;
            Ok(vec![(extension.to_string(), data)])
        }
        Media::Frames(frames) => {
            let sampling = options.video.unwrap_or(Sampling::Uniform(frames.len()));
            let picked = pick_stored(frames.len(), sampling, stream);
            let stored = picked.iter().filter_map(|&index| frames.get(index)).enumerate();
            let stored: Vec<_> = stored
                .map(|(place, content)| {
                    let (extension, data) =
                        image_file(content, options).map_err(|e| format!("frame {place}: {e}"))?;
                    Ok((frame_name(place, extension), data))
                })
                .collect::<Result<_, String>>()?;
            if stored.is_empty() { Err("it has no frame".to_string()) } else { Ok(stored) }
        }
        Media::Video(content) => {
            let data = read(content)?;
            let Some(sampling) = options.video else {
                let extension = video_extension(&data);
                return Ok(vec![(extension.to_string(), data.into_owned())]);
            };
            let video = Video::open(&data)?;
            let video_index = video.index();
            let wanted = sampling.pick(&video_index.times, video_index.end, stream);
            let mut stored = Vec::with_capacity(wanted.len());
            video.frames(&wanted, &mut |place, frame| {
                let frame = match options.size {
                    Some(size) if is_larger(&frame, size) => {
                        frame.resize(size, None).map_err(|e| e.to_string())?
                    }
                    _ => frame,
                };
                let name = frame_name(place, options.encoding.extension());
                stored.push((name, options.encoding.encode(&frame)?));
                Ok(())
            })?;
            Ok(stored)
        }
    }
}

/// Name suffix of a stored frame by its index: `0007.jpg`.
fn frame_name(place: usize, extension: &str) -> String {
    format!("{place:04}.{extension}")
}

fn is_larger(image: &Image, size: usize) -> bool {
    image.width().max(image.height()) > size
}

/// Member of an image: unchanged or resized; of an animated file, the first frame, since the shard
/// reader would take the file for a video. Unchanged images are decoded all the same, so that
/// broken ones are found now and not during training.
fn image_file(
    content: &ByteSource,
    options: &ShardOptions,
) -> Result<(&'static str, Vec<u8>), String> {
    let data = read(content)?;
    let decoded = Image::decode(&data)?;
    if let Some(size) = options.size.filter(|&size| is_larger(&decoded, size)) {
        let scaled = decoded.resize(size, None).map_err(|e| e.to_string())?;
        return Ok((options.encoding.extension(), options.encoding.encode(&scaled)?));
    }
    if media_type(&data) == Some(MediaType::Video) {
        return Ok((options.encoding.extension(), options.encoding.encode(&decoded)?));
    }
    let extension = match sniff(&data) {
        Some(ImageFormat::Jpeg) => "jpg",
        Some(ImageFormat::Png) => "png",
        _ => "webp",
    };
    Ok((extension, data.into_owned()))
}

/// File extension by which the shard reader recognizes a video.
fn video_extension(data: &[u8]) -> &'static str {
    match data {
        [b'G', b'I', b'F', ..] => "gif",
        [0x89, b'P', ..] => "apng",
        [0x1a, 0x45, ..] => "mkv",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', ..] => "avi",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        _ => "mp4",
    }
}

/// Record of a sample in the form that the shard reader parses.
#[derive(Serialize)]
struct StoredRecord<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    captions: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    keywords: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question_id: Option<&'a QuestionId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    answers: Vec<WeightedAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concept: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<Split>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    /// Original location of the sample; not read again.
    key: &'a str,
}

/// JSON record of a sample; deterministic.
pub(super) fn record(sample: &Sample) -> Vec<u8> {
    let question = sample.question.as_ref();
    let answers = question.map_or(&[][..], |question| &question.answers);
    let answers = answers
        .iter()
        .map(|(answer, weight)| WeightedAnswer { answer: answer.clone(), weight: *weight });
    let record = StoredRecord {
        captions: &sample.captions,
        keywords: &sample.keywords,
        question: question.map(|question| question.text.as_str()),
        question_id: question.and_then(|question| question.id.as_ref()),
        answers: answers.collect(),
        answer_type: question.and_then(|question| question.answer_type.as_deref()),
        concept: sample.concept.as_deref(),
        split: sample.split,
        source: sample.source.as_deref(),
        key: &sample.key,
    };
    // Infallible: only texts, numbers and lists.
    serde_json::to_vec(&record).unwrap_or_default()
}
