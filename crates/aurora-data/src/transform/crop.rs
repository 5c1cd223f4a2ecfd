//! Random resized crop, equal to torchvision's `RandomResizedCrop`.

use aurora_kernels::random::Stream;

use crate::image::Crop;

/// Range of the aspect ratio, width to height.
const ASPECT: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);
/// Draws before the central crop is taken.
const TRIES: usize = 10;

/// Source of a crop's random numbers.
pub(super) trait Draws {
    /// Uniform number of 0 to 1.
    fn uniform(&mut self) -> f32;
    /// Uniform integer below `end`.
    fn below(&mut self, end: usize) -> usize;
}

impl Draws for Stream {
    fn uniform(&mut self) -> f32 {
        self.uniform() as f32
    }

    fn below(&mut self, end: usize) -> usize {
        self.below(end)
    }
}

/// Crop box of random area share, aspect ratio and position; if none of ten draws fits, the largest
/// central box with an aspect ratio in the range. Numbers are drawn in torchvision's order and
/// computed in its precisions.
pub(super) fn random(
    width: usize,
    height: usize,
    share: (f32, f32),
    draws: &mut impl Draws,
) -> Crop {
    let area = (width * height) as f64;
    let (low, high) = (ASPECT.0.ln(), ASPECT.1.ln());
    for _ in 0..TRIES {
        let covered = area * f64::from(share.0 + draws.uniform() * (share.1 - share.0));
        let aspect = f64::from((low + draws.uniform() * (high - low)).exp());
        let wide = (covered * aspect).sqrt().round_ties_even() as usize;
        let tall = (covered / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&wide) && (1..=height).contains(&tall) {
            let top = draws.below(height - tall + 1);
            let left = draws.below(width - wide + 1);
            return Crop { left, top, width: wide, height: tall };
        }
    }
    let aspect = width as f64 / height as f64;
    let (mut wide, mut tall) = (width, height);
    if aspect < 3.0 / 4.0 {
        tall = (width as f64 / (3.0 / 4.0)).round_ties_even() as usize;
    } else if aspect > 4.0 / 3.0 {
        wide = (height as f64 * (4.0 / 3.0)).round_ties_even() as usize;
    }
    Crop { left: (width - wide) / 2, top: (height - tall) / 2, width: wide, height: tall }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Random numbers and boxes of torchvision (`tests/transform/make.py`).
    #[derive(Deserialize)]
    struct Case {
        width: usize,
        height: usize,
        uniform: Vec<f32>,
        below: Vec<(usize, usize)>,
        crop: [usize; 4],
    }

    impl Draws for Case {
        fn uniform(&mut self) -> f32 {
            self.uniform.remove(0)
        }

        fn below(&mut self, end: usize) -> usize {
            let (asked, number) = self.below.remove(0);
            assert_eq!(asked, end);
            number
        }
    }

    #[test]
    fn the_same_numbers_give_torchvisions_boxes() {
        let cases = include_str!("../../tests/transform/crops.jsonl");
        let mut fallbacks = 0;
        for line in cases.lines() {
            let mut case: Case = serde_json::from_str(line).unwrap();
            let [left, top, width, height] = case.crop;
            fallbacks += usize::from(case.below.is_empty());
            let crop = random(case.width, case.height, (0.5, 1.0), &mut case);
            assert_eq!(crop, Crop { left, top, width, height }, "{line}");
            assert!(case.uniform.is_empty() && case.below.is_empty(), "{line}");
        }
        assert!(cases.lines().count() >= 144 && fallbacks >= 20);
    }
}
