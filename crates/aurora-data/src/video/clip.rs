//! Clip frames of a sample: an image, a list of images or a video.

use aurora_kernels::random::Stream;

use super::{Sampling, Video};
use crate::{Dataset, DecodeError, DecodeErrorKind, Error, Image, Media, Result, Sample};

/// Sink of frames: called in order with the index in the clip, and the image.
pub type FrameSink<'s> = dyn FnMut(usize, &Image) -> Result<()> + 's;

impl Dataset {
    /// Streams the frames that `sampling` selects of a sample to `sink`, in order, and returns
    /// their number. One frame is in memory at a time.
    ///
    /// An image is one frame. Stored frames have no timestamps: a rate assumes that they are
    /// already sampled at it.
    ///
    /// # Errors
    /// When `index` is past the end or a frame does not decode; errors of `sink`.
    pub fn frames(
        &self,
        index: usize,
        sampling: Sampling,
        stream: &mut Stream,
        sink: &mut FrameSink<'_>,
    ) -> Result<usize> {
        let sample = self.sample(index)?;
        match &sample.media {
            Media::Image(_) => {
                sink(0, &*self.image(index)?)?;
                Ok(1)
            }
            Media::Frames(stored) => {
                let wanted = pick_stored(stored.len(), sampling, stream);
                for (place, &number) in wanted.iter().enumerate() {
                    let Some(frame) = stored.get(number) else { break };
                    let decoded = Image::decode(&frame.bytes()?)
                        .map_err(|reason| broken(sample, format!("frame {number}: {reason}")))?;
                    sink(place, &decoded)?;
                }
                some(sample, wanted.len())
            }
            Media::Video(video) => {
                let bytes = video.bytes()?;
                let video = Video::open(&bytes).map_err(|error| broken(sample, error.into()))?;
                let video_index = video.index();
                let wanted = sampling.pick(&video_index.times, video_index.end, stream);
                // A video passes on messages only; the sink's own error is kept beside them.
                let mut refused = None;
                let decoded = video.frames(&wanted, &mut |place, image| {
                    sink(place, &image).map_err(|error| {
                        let reason = error.to_string();
                        refused = Some(error);
                        DecodeError::new(DecodeErrorKind::Sink, reason)
                    })
                });
                match (decoded, refused) {
                    (Ok(()), _) => some(sample, wanted.len()),
                    (Err(_), Some(error)) => Err(error),
                    (Err(error), None) => Err(broken(sample, error.into())),
                }
            }
        }
    }
}

fn some(sample: &Sample, frames: usize) -> Result<usize> {
    match frames {
        0 => Err(broken(sample, "it has no frame".to_string())),
        frames => Ok(frames),
    }
}

fn broken(sample: &Sample, reason: String) -> Error {
    Error::Decode { shard: sample.shard.to_string(), key: sample.key.clone(), reason }
}

/// Image, or first frame of a clip.
pub(crate) fn first(media: &Media) -> Result<Image, String> {
    let content = media.contents().first().ok_or("it is a clip without a frame")?;
    let data = content.bytes().map_err(|e| e.to_string())?;
    if !matches!(media, Media::Video(_)) {
        return Ok(Image::decode(&data)?);
    }
    let mut frame = None;
    Video::open(&data)?.frames(&[0], &mut |_, image| {
        frame = Some(image);
        Ok(())
    })?;
    frame.ok_or_else(|| "it has no frame".to_string())
}

/// Indices of the frames taken of `count` stored frames.
pub(crate) fn pick_stored(count: usize, sampling: Sampling, stream: &mut Stream) -> Vec<usize> {
    let sampling = match sampling {
        Sampling::Rate { most, .. } => Sampling::Uniform(most),
        other => other,
    };
    let times: Vec<f64> = (0..count).map(|index| index as f64).collect();
    sampling.pick(&times, count as f64, stream)
}
