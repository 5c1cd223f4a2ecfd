//! Frame sampling of videos.

use std::fmt;
use std::str::FromStr;

use aurora_kernels::random::Stream;

use crate::Error;

/// Frame sampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Centers of so many segments of equal length. Deterministic.
    Uniform(usize),
    /// So many distinct frames, uniformly random, in order.
    Random(usize),
    /// Constant rate: the frame shown at each moment. Deterministic.
    Rate {
        /// Frames per second.
        fps: f64,
        /// Limit of frames; of a longer video the first ones.
        most: usize,
    },
}

impl Sampling {
    /// Frames selected of a video whose frame `i` is shown from `times[i]` seconds on, the last
    /// until `end`: strictly increasing, empty for an empty video.
    ///
    /// A video with no more frames than requested gives all of them. Only [`Self::Random`] draws
    /// from `stream`.
    pub fn pick(&self, times: &[f64], end: f64, stream: &mut Stream) -> Vec<usize> {
        let frames = times.len();
        match *self {
            Self::Uniform(count) | Self::Random(count) if frames <= count => (0..frames).collect(),
            Self::Uniform(count) => {
                // The center of segment i is (i + 1/2) frames / count; no product overflows.
                let middle = |i: usize| (2 * i as u128 + 1) * frames as u128 / (2 * count as u128);
                (0..count).map(|i| middle(i) as usize).collect()
            }
            Self::Random(count) => random_sorted(frames, count, stream),
            Self::Rate { fps, most } => by_rate(times, end, fps, most),
        }
    }

    /// Limit of the frames taken.
    pub fn most(&self) -> usize {
        match *self {
            Self::Uniform(count) | Self::Random(count) => count,
            Self::Rate { most, .. } => most,
        }
    }

    /// Deterministic variant, for evaluation.
    #[must_use]
    pub fn evaluation(self) -> Self {
        match self {
            Self::Random(count) => Self::Uniform(count),
            other => other,
        }
    }
}

/// Floyd's sampling of `count` distinct numbers below `frames`, in order; memory proportional to
/// `count`.
fn random_sorted(frames: usize, count: usize, stream: &mut Stream) -> Vec<usize> {
    let mut chosen = std::collections::BTreeSet::new();
    for last in frames - count..frames {
        let drawn = stream.below(last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// Frames shown at 0, 1/fps, 2/fps, ... after the first frame. A video of a lower frame rate gives
/// each frame once.
fn by_rate(times: &[f64], end: f64, fps: f64, most: usize) -> Vec<usize> {
    let Some(&first) = times.first() else { return Vec::new() };
    let mut picked: Vec<usize> = Vec::new();
    // The first moment without a frame yet.
    let mut moment = 0.0f64;
    for (index, &time) in times.iter().enumerate() {
        if picked.len() >= most {
            break;
        }
        let until = times.get(index + 1).copied().unwrap_or(end.max(time));
        // Tolerance: a frame that begins 1e-9 s after its moment is the one meant.
        let served = (until - first - 1e-6) * fps;
        if moment <= served || (index + 1 == times.len() && picked.is_empty()) {
            picked.push(index);
            moment = (served.floor() + 1.0).max(moment + 1.0);
        }
    }
    picked
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform(count) => write!(f, "uniform {count}"),
            Self::Random(count) => write!(f, "random {count}"),
            Self::Rate { fps, most } => write!(f, "{fps} a second, at most {most}"),
        }
    }
}

/// Sampling method in settings: `uniform`, `random` or a rate such as `2fps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// [`Sampling::Uniform`].
    Uniform,
    /// [`Sampling::Random`].
    Random,
    /// [`Sampling::Rate`].
    Rate(f64),
}

impl Method {
    /// Sampling of at most `frames` frames.
    pub fn of(self, frames: usize) -> Sampling {
        match self {
            Self::Uniform => Sampling::Uniform(frames),
            Self::Random => Sampling::Random(frames),
            Self::Rate(fps) => Sampling::Rate { fps, most: frames },
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rate = || text.strip_suffix("fps")?.trim().parse::<f64>().ok();
        match text {
            "uniform" => Ok(Self::Uniform),
            "random" => Ok(Self::Random),
            _ => match rate() {
                Some(fps) if fps > 0.0 && fps <= 1000.0 => Ok(Self::Rate(fps)),
                _ => Err(Error::Option {
                    option: "sampling",
                    value: text.to_string(),
                    allowed: "one of uniform, random, or a rate above 0 and up to 1000 as in 2fps",
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed, "frames", 0, 0)
    }

    fn even(frames: usize, fps: f64) -> Vec<f64> {
        (0..frames).map(|i| i as f64 / fps).collect()
    }

    #[test]
    fn uniform_takes_the_middles() {
        let pick =
            |frames, count| Sampling::Uniform(count).pick(&even(frames, 25.0), 9.0, &mut stream(0));
        assert_eq!(pick(100, 4), [12, 37, 62, 87]);
        assert_eq!(pick(9, 3), [1, 4, 7]);
        assert_eq!(pick(3, 8), [0, 1, 2]);
        assert_eq!(pick(5, 1), [2]);
        assert!(pick(5, 0).is_empty() && pick(0, 5).is_empty());
    }

    #[test]
    fn a_rate_takes_what_is_shown_at_its_moments() {
        let pick = |times: &[f64], end, fps, most| {
            Sampling::Rate { fps, most }.pick(times, end, &mut stream(0))
        };
        assert_eq!(pick(&even(24, 12.0), 2.0, 2.0, 99), [0, 6, 12, 18]);
        assert_eq!(
            pick(&even(30, 29.97), 30.0 / 29.97, 10.0, 99),
            [0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29]
        );
        assert_eq!(pick(&even(24, 12.0), 2.0, 2.0, 3), [0, 6, 12]);
        // A lower frame rate gives each frame once. Uneven: the frame shown at the moment.
        assert_eq!(pick(&even(4, 1.0), 4.0, 25.0, 99), [0, 1, 2, 3]);
        assert_eq!(pick(&[0.0, 0.1, 0.2, 3.0], 3.1, 1.0, 99), [0, 2, 3]);
        assert_eq!(pick(&[5.0], 5.0, 1.0, 99), [0]);
        assert!(pick(&[], 1.0, 1.0, 99).is_empty());
    }

    #[test]
    fn methods_have_names() {
        assert_eq!("uniform".parse::<Method>().unwrap().of(8), Sampling::Uniform(8));
        assert_eq!("random".parse::<Method>().unwrap().of(8), Sampling::Random(8));
        let rate = "0.5fps".parse::<Method>().unwrap().of(8);
        assert_eq!(rate, Sampling::Rate { fps: 0.5, most: 8 });
        for bad in ["", "fps", "0fps", "-1fps", "nanfps", "inffps", "1e9fps", "middle", "2"] {
            let error = bad.parse::<Method>().unwrap_err().to_string();
            assert!(error.contains("uniform, random"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Selected frames are ordered, distinct, in range, no more than requested, and as many as
        /// requested where the video has them.
        #[test]
        fn picked_frames_are_in_order_and_there(
            frames in 0usize..400, count in 0usize..40, seed: u64, fps in 0.01..200.0f64,
            gaps in proptest::collection::vec(0.0..2.0f64, 400),
        ) {
            let mut time = 0.0;
            let times: Vec<f64> = gaps[..frames].iter().map(|gap| { time += gap; time }).collect();
            for sampling in [Sampling::Uniform(count), Sampling::Random(count), Sampling::Rate { fps, most: count }] {
                let picked = sampling.pick(&times, time + 0.1, &mut stream(seed));
                prop_assert!(picked.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", picked);
                prop_assert!(picked.iter().all(|&i| i < frames));
                prop_assert!(picked.len() <= sampling.most());
                match sampling {
                    Sampling::Rate { .. } => prop_assert_eq!(picked.is_empty(), frames == 0 || count == 0),
                    _ => prop_assert_eq!(picked.len(), frames.min(count)),
                }
                // The selection is a function of the seed; evaluation does not depend on it.
                prop_assert_eq!(&picked, &sampling.pick(&times, time + 0.1, &mut stream(seed)));
                let fixed = sampling.evaluation();
                prop_assert_eq!(
                    fixed.pick(&times, time + 0.1, &mut stream(seed)),
                    fixed.pick(&times, time + 0.1, &mut stream(!seed))
                );
            }
        }

        /// Uniform frames are as evenly spaced as integers allow.
        #[test]
        fn uniform_frames_are_evenly_apart(frames in 1usize..5000, count in 1usize..64) {
            let picked = Sampling::Uniform(count).pick(&even(frames, 25.0), 1.0, &mut stream(0));
            let gaps: Vec<usize> = picked.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let (Some(least), Some(most)) = (gaps.iter().min(), gaps.iter().max()) {
                prop_assert!(most - least <= 1, "{:?}", picked);
            }
        }
    }

    /// Every frame is drawn about equally often.
    #[test]
    fn random_frames_are_fair() {
        let mut counts = [0; 10];
        for seed in 0..4000 {
            for index in Sampling::Random(3).pick(&even(10, 1.0), 10.0, &mut stream(seed)) {
                counts[index] += 1;
            }
        }
        // 1,200 each, with a standard deviation of 29.
        assert!(counts.iter().all(|&n| (1080..1320).contains(&n)), "{counts:?}");
    }
}
