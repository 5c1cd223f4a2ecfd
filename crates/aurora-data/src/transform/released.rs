//! The training transform of BLIP's released recipe, for photographs.

use aurora_kernels::random::Stream;

use super::{Transform, normalise, operations};
use crate::picture::Crop;
use crate::{Picture, Result};

/// Random resized crop, mirror, RandAugment.
///
/// The crop covers `area` of the picture with an aspect ratio of 3/4 to 4/3 and is scaled bicubic.
/// RandAugment draws `count` of ten operations with replacement; each is done with probability
/// one half at strength `level` of 10. As in the released code, brightness and sharpness scale as
/// `1.8 level / 10 + 0.1`, so at level 5 both leave the picture as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Released {
    /// The side of the square in pixels.
    pub size: usize,
    /// Smallest and largest share of the picture's area that a crop covers.
    pub area: (f32, f32),
    /// Operations drawn.
    pub count: usize,
    /// Their strength, 0 to 10.
    pub level: f32,
}

impl Released {
    /// Area 0.5 to 1, RandAugment(2, 5).
    pub fn new(size: usize) -> Self {
        Self { size, area: (0.5, 1.0), count: 2, level: 5.0 }
    }

    /// A crop of random area and aspect; the largest of a fair aspect if ten do not fit.
    fn crop(&self, picture: &Picture, stream: &mut Stream) -> Crop {
        let (width, height) = (picture.width() as f64, picture.height() as f64);
        let limit = (4f64 / 3.0).ln();
        for _ in 0..10 {
            let (low, high) = (f64::from(self.area.0), f64::from(self.area.1));
            let area = width * height * (low + (high - low) * stream.uniform());
            let aspect = (limit * (2.0 * stream.uniform() - 1.0)).exp();
            let (w, h) = ((area * aspect).sqrt().round(), (area / aspect).sqrt().round());
            if w >= 1.0 && h >= 1.0 && w <= width && h <= height {
                let left = stream.below((width - w) as usize + 1) as f64;
                let top = stream.below((height - h) as usize + 1) as f64;
                return Crop { left, top, width: w, height: h };
            }
        }
        let w = width.min((height * 4.0 / 3.0).round());
        let h = height.min((width * 4.0 / 3.0).round());
        Crop {
            left: ((width - w) / 2.0).floor(),
            top: ((height - h) / 2.0).floor(),
            width: w,
            height: h,
        }
    }

    /// One operation of the ten.
    fn operation(&self, picture: &mut Picture, number: usize, stream: &mut Stream) {
        let share = self.level / 10.0;
        let factor = 1.8 * share + 0.1;
        let sign = if stream.uniform() < 0.5 { -1.0 } else { 1.0 };
        let (shear, shift, angle) = (sign * 0.3 * share, sign * 10.0 * share, sign * 30.0 * share);
        match number {
            0 => {}
            1 => operations::auto_contrast(picture),
            2 => operations::brightness(picture, factor),
            3 => operations::sharpness(picture, factor),
            4 => operations::equalize(picture),
            5 => operations::affine(picture, [1.0, shear, 0.0, 0.0, 1.0, 0.0]),
            6 => operations::affine(picture, [1.0, 0.0, 0.0, shear, 1.0, 0.0]),
            7 => operations::affine(picture, [1.0, 0.0, shift, 0.0, 1.0, 0.0]),
            8 => operations::affine(picture, [1.0, 0.0, 0.0, 0.0, 1.0, shift]),
            _ => operations::rotate(picture, angle),
        }
    }
}

impl Transform for Released {
    fn size(&self) -> usize {
        self.size
    }

    fn apply(&self, picture: &Picture, stream: &mut Stream, out: &mut [f32]) -> Result<()> {
        let crop = self.crop(picture, stream);
        let mut picture = picture.resize(self.size, Some(crop))?;
        if stream.uniform() < 0.5 {
            operations::flip(&mut picture);
        }
        for _ in 0..self.count {
            let number = stream.below(10);
            if stream.uniform() < 0.5 {
                self.operation(&mut picture, number, stream);
            }
        }
        normalise(&picture, out)
    }
}
