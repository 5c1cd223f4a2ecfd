//! Clips for a model: so many frames each, shorter ones padded, with a mask that says so.

use std::borrow::Cow;

use aurora_kernels::random::Stream;
use candle_core::{Device, Tensor};

use super::{Film, Sampling};
use crate::transform::Transform;
use crate::{Error, Picture, Result, Sample, Visual};

/// The frames that `sampling` takes of a sample: of a film, of stored frames, or the one picture.
///
/// Stored frames have no times: a rate takes them as if they were so many a second already.
///
/// # Errors
/// [`Error::Decode`], with the frame and what is wrong with it.
pub fn frames(sample: &Sample, sampling: Sampling, stream: &mut Stream) -> Result<Vec<Picture>> {
    of_visual(&sample.visual, sampling, stream).map_err(|reason| Error::Decode {
        shard: sample.shard.to_string(),
        key: sample.key.clone(),
        reason,
    })
}

fn of_visual(
    visual: &Visual,
    sampling: Sampling,
    stream: &mut Stream,
) -> Result<Vec<Picture>, String> {
    let read =
        |content: &crate::Content| content.bytes().map(Cow::into_owned).map_err(|e| e.to_string());
    match visual {
        Visual::Picture(content) => Ok(vec![Picture::decode(&read(content)?)?]),
        Visual::Film(content) => Film::open(&read(content)?)?.sample(sampling, stream),
        Visual::Frames(stored) => pick_stored(stored.len(), sampling, stream)
            .into_iter()
            .filter_map(|index| Some((index, stored.get(index)?)))
            .map(|(index, content)| {
                Picture::decode(&read(content)?).map_err(|e| format!("frame {index}: {e}"))
            })
            .collect(),
    }
}

/// A picture, or the first frame of a clip.
pub(crate) fn first(visual: &Visual) -> Result<Picture, String> {
    let content = visual.contents().first().ok_or("it is a clip without a frame")?;
    let data = content.bytes().map_err(|e| e.to_string())?;
    if !matches!(visual, Visual::Film(_)) {
        return Picture::decode(&data);
    }
    let mut frame = None;
    Film::open(&data)?.frames(&[0], &mut |_, picture| {
        frame = Some(picture);
        Ok(())
    })?;
    frame.ok_or_else(|| "it has no frame".to_string())
}

/// Which of so many stored frames are taken.
pub(crate) fn pick_stored(count: usize, sampling: Sampling, stream: &mut Stream) -> Vec<usize> {
    let sampling = match sampling {
        Sampling::Rate { most, .. } => Sampling::Uniform(most),
        other => other,
    };
    let times: Vec<f64> = (0..count).map(|index| index as f64).collect();
    sampling.pick(&times, count as f64, stream)
}

/// Clips as a model takes them.
#[derive(Debug, Clone)]
pub struct Clips {
    /// (batch, frames, 3, size, size) f32, normalised; 0 where a clip has no frame.
    pub frames: Tensor,
    /// (batch, frames) f32, 1 where there is a frame.
    pub mask: Tensor,
}

/// Puts clips of at most `count` frames into a batch. Every frame of a clip is transformed alike:
/// each by a copy of the clip's stream.
///
/// # Errors
/// When there is no clip, one has no frame or more than `count`, or a frame cannot be scaled.
pub fn batch(
    clips: &[Vec<Picture>],
    count: usize,
    transform: &dyn Transform,
    streams: &[Stream],
) -> Result<Clips> {
    let empty = |reason: String| Error::Empty { what: "a clip".to_string(), reason };
    if clips.is_empty() || count == 0 || clips.len() != streams.len() {
        return Err(empty(format!(
            "{} clips of {count} frames with {} streams were asked for",
            clips.len(),
            streams.len()
        )));
    }
    let size = transform.size();
    let pixels = 3 * size * size;
    let mut frames = vec![0f32; clips.len() * count * pixels];
    let mut mask = vec![0f32; clips.len() * count];
    let rows = frames.chunks_mut((count * pixels).max(1)).zip(mask.chunks_mut(count));
    for ((clip, stream), (frames, mask)) in clips.iter().zip(streams).zip(rows) {
        if clip.is_empty() || clip.len() > count {
            return Err(empty(format!("it has {} frames; 1 to {count} fit", clip.len())));
        }
        let places = frames.chunks_mut(pixels.max(1)).zip(mask);
        for (picture, (frame, mask)) in clip.iter().zip(places) {
            transform.apply(picture, &mut stream.clone(), frame)?;
            *mask = 1.0;
        }
    }
    let shape = (clips.len(), count, 3, size, size);
    Ok(Clips {
        frames: Tensor::from_vec(frames, shape, &Device::Cpu)?, // (batch, frames, 3, size, size)
        mask: Tensor::from_vec(mask, (clips.len(), count), &Device::Cpu)?, // (batch, frames)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Augment;

    #[test]
    fn short_clips_are_padded_and_masked() {
        let picture = |value: u8| Picture::new(9, 7, vec![value; 9 * 7 * 3]).unwrap();
        let clips = vec![vec![picture(10); 3], vec![picture(200)]];
        let stream = |index| Stream::new(3, "augment", 0, index);
        let streams = [stream(0), stream(1)];
        let batch = batch(&clips, 3, &Augment::new(8), &streams).unwrap();
        assert_eq!(batch.frames.dims(), [2, 3, 3, 8, 8]);
        assert_eq!(batch.mask.to_vec2::<f32>().unwrap(), [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]);
        let values = batch.frames.flatten(2, 4).unwrap().to_vec3::<f32>().unwrap();
        // The same augmentation for every frame of a clip; padding is zero.
        assert_eq!(values[0][0], values[0][1]);
        assert_eq!(values[0][0], values[0][2]);
        assert!(values[1][0].iter().any(|&v| v != 0.0));
        assert!(values[1][1..].iter().flatten().all(|&v| v == 0.0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let picture = Picture::new(1, 1, vec![0; 3]).unwrap();
        let stream = Stream::new(0, "augment", 0, 0);
        let said = |clips: &[Vec<Picture>], count| {
            batch(clips, count, &Augment::new(4), std::slice::from_ref(&stream))
                .unwrap_err()
                .to_string()
        };
        assert!(said(&[vec![picture.clone(); 3]], 2).contains("it has 3 frames; 1 to 2 fit"));
        assert!(said(&[vec![]], 2).contains("it has 0 frames"));
        assert!(said(&[], 2).contains("0 clips of 2 frames"));
        assert!(said(&[vec![picture]], 0).contains("0 frames"));
    }
}
