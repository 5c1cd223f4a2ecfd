//! The frames of a sample, whatever it is: a picture, a list of pictures or a film.

use aurora_kernels::random::Stream;

use crate::video::{Film, Sampling};
use crate::{Dataset, Error, Picture, Result, Sample, Visual};

/// What takes the frames, one after the other: the place of each in the clip, and the picture.
pub type FrameSink<'s> = dyn FnMut(usize, &Picture) -> Result<()> + 's;

impl Dataset {
    /// Hands the frames that `sampling` takes of a sample to `sink`, in order, and says how many
    /// they are. One frame is in memory at a time.
    ///
    /// A picture is one frame. Frames that lie in a folder or shard one by one have no times: they
    /// count as a second apart.
    ///
    /// # Errors
    /// When `index` is past the end or a frame does not decode; what `sink` says.
    pub fn frames(
        &self,
        index: usize,
        sampling: Sampling,
        stream: &mut Stream,
        sink: &mut FrameSink<'_>,
    ) -> Result<usize> {
        let sample = self.sample(index)?;
        match &sample.visual {
            Visual::Picture(_) => {
                sink(0, &*self.picture(index)?)?;
                Ok(1)
            }
            Visual::Frames(frames) => {
                let times: Vec<f64> = (0..frames.len()).map(|second| second as f64).collect();
                let wanted = sampling.pick(&times, times.len() as f64, stream);
                for (place, &number) in wanted.iter().enumerate() {
                    let Some(frame) = frames.get(number) else { break };
                    let decoded = Picture::decode(&frame.bytes()?)
                        .map_err(|reason| broken(sample, format!("frame {number}: {reason}")))?;
                    sink(place, &decoded)?;
                }
                some(sample, wanted.len())
            }
            Visual::Film(film) => {
                let bytes = film.bytes()?;
                let film = Film::open(&bytes).map_err(|reason| broken(sample, reason))?;
                let outline = film.outline();
                let wanted = sampling.pick(&outline.times, outline.end, stream);
                // A film passes on no more than words; the sink's own error is kept beside them.
                let mut refused = None;
                let decoded = film.frames(&wanted, &mut |place, picture| {
                    sink(place, &picture).map_err(|error| {
                        let reason = error.to_string();
                        refused = Some(error);
                        reason
                    })
                });
                match (decoded, refused) {
                    (Ok(()), _) => some(sample, wanted.len()),
                    (Err(_), Some(error)) => Err(error),
                    (Err(reason), None) => Err(broken(sample, reason)),
                }
            }
        }
    }
}

/// The first frame of a film.
pub(crate) fn first_frame(data: &[u8]) -> Result<Picture, String> {
    let mut first = None;
    Film::open(data)?.frames(&[0], &mut |_, picture| {
        first = Some(picture);
        Ok(())
    })?;
    first.ok_or_else(|| "it has no frame".to_string())
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
