//! Video decoding: from encoded bytes to selected frames.
//!
//! [`Video::open`] reads an index, the number and timestamps of the frames, without decoding.
//! [`Sampling`] selects, and [`Video::frames`] decodes in order and streams the selected frames one
//! at a time: only the decoder's own frames and the current frame are in memory.
//!
//! GIF, animated PNG and animated WebP are read by every build. H.264 in MP4 needs the feature
//! `video-h264`; everything else the feature `video-ffmpeg` and the program ffmpeg.

mod animation;
pub(crate) mod clip;
#[cfg(feature = "video-ffmpeg")]
mod ffmpeg;
#[cfg(feature = "video-h264")]
mod h264;
#[cfg(feature = "video-h264")]
mod mp4;
mod sampling;
#[cfg(feature = "video-h264")]
mod sps;
#[cfg(feature = "video-h264")]
mod yuv;

use crate::error::printable;
use crate::media_type::{is_animated_png, is_animated_webp};
use crate::{DecodeError, DecodeErrorKind, Image};

pub use clip::FrameSink;
pub use sampling::{Method, Sampling};

/// Pixel limit of a frame; above what H.264 allows and twice those of 4K.
pub const MAX_FRAME_PIXELS: u64 = 1 << 24;

/// Container format, by its magic bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Gif,
    Apng,
    WebP,
    /// MP4 and QuickTime: boxes.
    Mp4,
    Other,
}

/// Decoder of videos that are not animated images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decoder {
    /// The first available; for MP4 the built-in one before ffmpeg.
    #[default]
    Any,
    /// The decoder of the feature `video-h264`.
    H264,
    /// The program of the feature `video-ffmpeg`.
    Ffmpeg,
}

/// Frame index of a video, known before decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoIndex {
    /// Start time of each frame in seconds, in order.
    pub times: Vec<f64>,
    /// End of the last frame in seconds.
    pub end: f64,
}

/// Encoded video.
pub struct Video<'a> {
    index: VideoIndex,
    backend: Backend<'a>,
}

/// Decoding backend.
enum Backend<'a> {
    Animation(animation::Animation<'a>),
    #[cfg(feature = "video-h264")]
    H264(h264::H264<'a>),
    #[cfg(feature = "video-ffmpeg")]
    Ffmpeg(ffmpeg::Ffmpeg),
}

/// Sink of [`Video::frames`]: called with the index among the wanted frames, and the image.
pub type Sink<'s> = dyn FnMut(usize, Image) -> Result<(), DecodeError> + 's;

fn container(data: &[u8]) -> Container {
    if data.starts_with(b"GIF87a") || data.starts_with(b"GIF89a") {
        Container::Gif
    } else if is_animated_png(data) {
        Container::Apng
    } else if is_animated_webp(data) {
        Container::WebP
    } else if matches!(data.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide")) {
        Container::Mp4
    } else {
        Container::Other
    }
}

impl<'a> Video<'a> {
    /// Reads the index of a video.
    ///
    /// # Errors
    /// A broken file, or one that needs another feature, which is named.
    pub fn open(data: &'a [u8]) -> Result<Self, DecodeError> {
        Self::open_with(data, Decoder::Any)
    }

    /// Like [`Self::open`], with the given decoder. Animated images have only one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(data: &'a [u8], decoder: Decoder) -> Result<Self, DecodeError> {
        Self::indexed(data, decoder).map_err(in_one_line)
    }

    fn indexed(data: &'a [u8], decoder: Decoder) -> Result<Self, DecodeError> {
        if data.is_empty() {
            return Err(DecodeError::new(DecodeErrorKind::Empty, "it has no bytes"));
        }
        let container = container(data);
        if let Container::Gif | Container::Apng | Container::WebP = container {
            let (video_index, animation) = animation::Animation::open(data, container)?;
            return Self::checked(video_index, Backend::Animation(animation));
        }
        let reason = "no decoder in this build reads it";
        let mut error = DecodeError::new(DecodeErrorKind::Unsupported, reason);
        if container == Container::Mp4 && decoder != Decoder::Ffmpeg {
            match Self::h264(data) {
                Ok(video) => return Ok(video),
                Err(said) => error = said,
            }
        }
        // ffmpeg may read what the other cannot: a truncated video, or another codec.
        if decoder != Decoder::H264 && cfg!(feature = "video-ffmpeg") {
            return Self::ffmpeg(data);
        }
        Err(error.map_message(|reason| reason + Self::way_out(container)))
    }

    #[cfg(feature = "video-h264")]
    fn h264(data: &'a [u8]) -> Result<Self, DecodeError> {
        let (video_index, h264) = h264::H264::open(data)?;
        Self::checked(video_index, Backend::H264(h264))
    }

    #[cfg(not(feature = "video-h264"))]
    fn h264(_: &'a [u8]) -> Result<Self, DecodeError> {
        let reason = "it is a video in MP4, which this build does not read";
        Err(DecodeError::new(DecodeErrorKind::Unsupported, reason))
    }

    #[cfg(feature = "video-ffmpeg")]
    fn ffmpeg(data: &'a [u8]) -> Result<Self, DecodeError> {
        let (video_index, ffmpeg) = ffmpeg::Ffmpeg::open(data)?;
        Self::checked(video_index, Backend::Ffmpeg(ffmpeg))
    }

    #[cfg(not(feature = "video-ffmpeg"))]
    fn ffmpeg(_: &'a [u8]) -> Result<Self, DecodeError> {
        let reason = "this build does not use ffmpeg";
        Err(DecodeError::new(DecodeErrorKind::Unsupported, reason))
    }

    /// Feature that reads a video that this build does not.
    fn way_out(container: Container) -> &'static str {
        match (container, cfg!(feature = "video-h264"), cfg!(feature = "video-ffmpeg")) {
            (_, _, true) => "",
            (Container::Mp4, false, _) => {
                "; build with --features video-h264 (H.264 alone) or video-ffmpeg, or store its frames in a folder"
            }
            _ => "; build with --features video-ffmpeg, or store its frames in a folder",
        }
    }

    fn checked(video_index: VideoIndex, backend: Backend<'a>) -> Result<Self, DecodeError> {
        if video_index.times.is_empty() {
            return Err("it has no frame".into());
        }
        Ok(Self { index: video_index, backend })
    }

    /// Frame index: number and timestamps of the frames.
    pub fn index(&self) -> &VideoIndex {
        &self.index
    }

    /// Decodes the frames `wanted`, strictly increasing, and streams each to `sink`. Frames may
    /// differ in size.
    ///
    /// # Errors
    /// The frame that does not decode and why, or the error of `sink`.
    pub fn frames(&self, wanted: &[usize], sink: &mut Sink<'_>) -> Result<(), DecodeError> {
        let last = self.index.times.len() - 1;
        let ordered = wanted.windows(2).all(|pair| pair[0] < pair[1]);
        if !ordered || wanted.last().is_some_and(|&index| index > last) {
            let reason =
                format!("frames {wanted:?} are not in order, or past frame {last}, the last");
            return Err(DecodeError::new(DecodeErrorKind::FrameOutOfRange, reason));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let decoded = match &self.backend {
            Backend::Animation(animation) => animation.frames(wanted, sink),
            #[cfg(feature = "video-h264")]
            Backend::H264(h264) => h264.frames(wanted, sink),
            #[cfg(feature = "video-ffmpeg")]
            Backend::Ffmpeg(ffmpeg) => ffmpeg.frames(wanted, sink),
        };
        decoded.map_err(in_one_line)
    }

    /// Frames that `sampling` selects, in memory.
    ///
    /// # Errors
    /// As [`Self::frames`].
    pub fn sample(
        &self,
        sampling: Sampling,
        stream: &mut aurora_kernels::random::Stream,
    ) -> Result<Vec<Image>, DecodeError> {
        let wanted = sampling.pick(&self.index.times, self.index.end, stream);
        let mut out = Vec::with_capacity(wanted.len());
        self.frames(&wanted, &mut |_, image| {
            out.push(image);
            Ok(())
        })?;
        Ok(out)
    }
}

/// Decoders quote bytes of the file.
fn in_one_line(error: DecodeError) -> DecodeError {
    error.map_message(|reason| printable(&reason).into_owned())
}

/// Checks the size in a header against the pixel limit before anything is allocated.
fn check_size(width: u64, height: u64) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err("its frames have no pixels".into());
    }
    if width.saturating_mul(height) > MAX_FRAME_PIXELS {
        let reason = format!(
            "its frames are {width} x {height}; more than {MAX_FRAME_PIXELS} pixels are not decoded"
        );
        return Err(DecodeError::new(DecodeErrorKind::TooLarge, reason));
    }
    Ok(())
}
