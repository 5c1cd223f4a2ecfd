//! Augmentation for small sets of drawings: affine map and color jitter, cheap enough for one core.

use aurora_kernels::random::Stream;

use super::{Transform, check, line};
use crate::{Image, Result};

/// Random affine map (scale, shift, rotation, flip) on white, color jitter, and random grayscale.
///
/// Images much larger than the output are resized to it first, so that bilinear sampling suffices.
/// Every random number is drawn whatever the options, so that disabling one leaves the others
/// unchanged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineAugment {
    /// Side of the square in pixels.
    pub size: usize,
    /// Range of the magnification.
    pub scale: (f32, f32),
    /// Maximum shift along each axis, as a fraction of the side.
    pub shift: f32,
    /// Maximum rotation in either direction, in degrees.
    pub rotation: f32,
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Maximum change of brightness, contrast and saturation: factors of 1 - color to 1 + color.
    pub color: f32,
    /// Probability of grayscale.
    pub gray: f32,
}

impl AffineAugment {
    /// Defaults: scale 0.74 to 1.25, shift 12 %, rotation 14 degrees, flip 50 %, color 20 %,
    /// grayscale 8 %.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            scale: (0.74, 1.25),
            shift: 0.12,
            rotation: 14.0,
            flip: 0.5,
            color: 0.2,
            gray: 0.08,
        }
    }
}

/// Affine map from output to source pixels: `source = matrix * output + offset`.
struct Affine {
    matrix: [f32; 4],
    offset: [f32; 2],
}

impl Affine {
    fn draw(options: &AffineAugment, width: usize, height: usize, stream: &mut Stream) -> Self {
        let mut between = |low: f32, high: f32| low + (high - low) * stream.uniform() as f32;
        let scale = between(options.scale.0, options.scale.1).max(1e-3);
        let shift_x = between(-options.shift, options.shift);
        let shift_y = between(-options.shift, options.shift);
        let angle = between(-options.rotation, options.rotation).to_radians();
        let mirror = if between(0.0, 1.0) < options.flip { -1.0 } else { 1.0 };
        let (sin, cos) = angle.sin_cos();
        // In output coordinates of -1/2 to 1/2: inverse shift, inverse rotation, inverse scale,
        // flip; then scaled to the source's sides.
        let size = options.size as f32;
        let (step_x, step_y) = (width as f32 / size / scale, height as f32 / size / scale);
        let matrix = [mirror * cos * step_x, mirror * sin * step_x, -sin * step_y, cos * step_y];
        let center = [size / 2.0 + shift_x * size - 0.5, size / 2.0 + shift_y * size - 0.5];
        let [a, b, c, d] = matrix;
        let offset = [
            width as f32 / 2.0 - 0.5 - a * center[0] - b * center[1],
            height as f32 / 2.0 - 0.5 - c * center[0] - d * center[1],
        ];
        Self { matrix, offset }
    }
}

/// Color jitter as an affine map of colors of 0 to 1: `out = matrix * in + offset`.
struct ColorJitter {
    matrix: [[f32; 3]; 3],
    offset: f32,
}

/// Luma weights of red, green and blue (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl ColorJitter {
    /// Draws brightness, then contrast about `mean` (the image's mean luma), then saturation.
    fn draw(options: &AffineAugment, mean: f32, stream: &mut Stream) -> Self {
        let mut factor = || 1.0 + options.color * (2.0 * stream.uniform() as f32 - 1.0);
        let (brightness, contrast, saturation) = (factor(), factor(), factor());
        let gray = (stream.uniform() as f32) < options.gray;
        let saturation = if gray { 0.0 } else { saturation };
        let gain = brightness * contrast;
        let mut matrix = [[0.0; 3]; 3];
        for (i, row) in matrix.iter_mut().enumerate() {
            for (j, (value, luma)) in row.iter_mut().zip(LUMA).enumerate() {
                let same = if i == j { saturation } else { 0.0 };
                *value = gain * (same + (1.0 - saturation) * luma);
            }
        }
        // Saturation leaves gray unchanged, so the offset of the contrast passes through it.
        Self { matrix, offset: brightness * mean * (1.0 - contrast) }
    }
}

impl Transform for AffineAugment {
    fn size(&self) -> usize {
        self.size
    }

    fn apply(&self, image: &Image, stream: &mut Stream, out: &mut [f32]) -> Result<()> {
        let size = self.size;
        let plane = size * size;
        check(out, plane)?;
        let large = image.width().max(image.height()) * 2 > size * 3;
        let scaled = if large { Some(image.resize(size, None)?) } else { None };
        let image = scaled.as_ref().unwrap_or(image);
        let affine = Affine::draw(self, image.width(), image.height(), stream);
        let sum = warp(image, &affine, size, out);

        let color = ColorJitter::draw(self, sum / plane as f32, stream);
        let lines = [line(0), line(1), line(2)];
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let old = [*red, *green, *blue];
            for ((new, row), (scale, shift)) in
                [red, green, blue].into_iter().zip(&color.matrix).zip(lines)
            {
                let mixed = row[0] * old[0] + row[1] * old[1] + row[2] * old[2] + color.offset;
                *new = mixed.clamp(0.0, 1.0) * scale + shift;
            }
        }
        Ok(())
    }
}

/// Samples `image` under `affine` bilinearly, white outside, into the three planes of `out` as 0 to
/// 1. Returns the sum of the luma.
fn warp(image: &Image, affine: &Affine, size: usize, out: &mut [f32]) -> f32 {
    let (width, height) = (image.width(), image.height());
    let rgb = image.rgb();
    let [a, b, c, d] = affine.matrix;
    let plane = size * size;
    let (red, rest) = out.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    let mut sum = 0.0;
    for y in 0..size {
        let at = y * size..(y + 1) * size;
        let (red, green, blue) = (&mut red[at.clone()], &mut green[at.clone()], &mut blue[at]);
        let mut source_x = b * y as f32 + affine.offset[0];
        let mut source_y = d * y as f32 + affine.offset[1];
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let (left, top) = (source_x.floor(), source_y.floor());
            let (right, down) = (source_x - left, source_y - top);
            let (x, y) = (left as i32, top as i32);
            let inside = x >= 0 && y >= 0 && (x as usize) < width - 1 && (y as usize) < height - 1;
            let mut pixel = [0.0; 3];
            if inside {
                let start = (y as usize * width + x as usize) * 3;
                let below = start + width * 3;
                if let (Some(upper), Some(lower)) =
                    (rgb.get(start..start + 6), rgb.get(below..below + 6))
                {
                    for channel in 0..3 {
                        let [p, q] = [upper[channel], upper[channel + 3]].map(f32::from);
                        let [r, s] = [lower[channel], lower[channel + 3]].map(f32::from);
                        let (first, second) = (p + (q - p) * right, r + (s - r) * right);
                        pixel[channel] = first + (second - first) * down;
                    }
                }
            } else {
                let weights = [
                    (x, y, (1.0 - right) * (1.0 - down)),
                    (x + 1, y, right * (1.0 - down)),
                    (x, y + 1, (1.0 - right) * down),
                    (x + 1, y + 1, right * down),
                ];
                for (x, y, weight) in weights {
                    let found = (x >= 0 && y >= 0 && (x as usize) < width)
                        .then(|| (y as usize * width + x as usize) * 3)
                        .and_then(|start| rgb.get(start..start + 3));
                    for channel in 0..3 {
                        pixel[channel] += weight * found.map_or(255.0, |p| f32::from(p[channel]));
                    }
                }
            }
            let [r, g, b] = pixel.map(|v| v * (1.0 / 255.0));
            sum += LUMA[0] * r + LUMA[1] * g + LUMA[2] * b;
            (*red, *green, *blue) = (r, g, b);
            source_x += a;
            source_y += c;
        }
    }
    sum
}
