//! BLIP's training transform, for photographs: random resized crop, flip, RandAugment.

use aurora_kernels::random::Stream;

use super::{Operation, Transform, crop, normalize};
use crate::{Image, Result};

/// Random resized crop, horizontal flip, RandAugment (Cubuk et al. 2019, arXiv:1909.13719),
/// normalization.
///
/// The crop covers `area` of the image with an aspect ratio of 3/4 to 4/3 and is resized
/// bicubically. RandAugment draws `count` of the ten [`Operation`]s with replacement; each is
/// applied with probability 1/2 at strength `level` of 10. As in the reference code, brightness and
/// sharpness have the factor `1.8 level / 10 + 0.1`, so at level 5 both are the identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandAugmentTransform {
    /// Side of the square in pixels.
    pub size: usize,
    /// Range of the crop's share of the image area.
    pub area: (f32, f32),
    /// Number of operations.
    pub count: usize,
    /// Strength of the operations, 0 to 10.
    pub level: f32,
}

impl RandAugmentTransform {
    /// Defaults: area 0.5 to 1, RandAugment(2, 5).
    pub fn new(size: usize) -> Self {
        Self { size, area: (0.5, 1.0), count: 2, level: 5.0 }
    }
}

impl Transform for RandAugmentTransform {
    fn size(&self) -> usize {
        self.size
    }

    fn apply(&self, image: &Image, stream: &mut Stream, out: &mut [f32]) -> Result<()> {
        let crop = crop::random(image.width(), image.height(), self.area, stream);
        let mut image = image.resize(self.size, Some(crop))?;
        if stream.uniform() < 0.5 {
            image.mirror();
        }
        for _ in 0..self.count {
            let number = stream.below(10);
            if stream.uniform() < 0.5 {
                Operation::draw(number, self.level, stream).apply(&mut image);
            }
        }
        normalize(&image, out)
    }
}
