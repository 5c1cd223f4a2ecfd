//! Image operations of RandAugment (Cubuk et al. 2019, arXiv:1909.13719) on 8-bit RGB.

use aurora_kernels::random::Stream;

use crate::Image;

/// Fill color outside a sheared, translated or rotated image.
const FILL: [u8; 3] = [128, 128, 128];
/// Level of the maximum strength.
const STRONGEST: f32 = 10.0;

/// One of the ten operations of BLIP's RandAugment list, with its strength.
///
/// Color operations equal Pillow's `ImageOps.autocontrast`, `ImageOps.equalize` and `ImageEnhance`.
/// Geometric operations sample bilinearly with gray outside the image, as the reference code
/// (OpenCV) does; Pillow clamps to the nearest pixel inside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Identity.
    Identity,
    /// Stretches each channel to the full range. A constant channel is unchanged.
    AutoContrast,
    /// Multiplies every value by the factor.
    Brightness(f32),
    /// Blends a smoothed image (factor 0) with the image (1); larger factors sharpen. Border pixels
    /// are unchanged.
    Sharpness(f32),
    /// Equalizes the histogram of each channel: a value becomes the share of pixels below it.
    Equalize,
    /// Shifts row `y` right by the factor times `y`.
    ShearX(f32),
    /// Shifts column `x` down by the factor times `x`.
    ShearY(f32),
    /// Translates left by so many pixels.
    TranslateX(f32),
    /// Translates up by so many pixels.
    TranslateY(f32),
    /// Rotates counter-clockwise about the center by so many degrees.
    Rotate(f32),
}

impl Operation {
    /// Draws one of the ten operations uniformly, at `level` of 10. Brightness and sharpness have
    /// the factor `1.8 level / 10 + 0.1`; shear 0.3, translation 10 pixels and rotation 30 degrees
    /// are multiplied by `level / 10`, with random sign.
    pub(super) fn draw(number: usize, level: f32, stream: &mut Stream) -> Self {
        let share = level / STRONGEST;
        let factor = 1.8 * share + 0.1;
        let sign = if stream.uniform() < 0.5 { -share } else { share };
        match number {
            0 => Self::Identity,
            1 => Self::AutoContrast,
            2 => Self::Brightness(factor),
            3 => Self::Sharpness(factor),
            4 => Self::Equalize,
            5 => Self::ShearX(sign * 0.3),
            6 => Self::ShearY(sign * 0.3),
            7 => Self::TranslateX(sign * 10.0),
            8 => Self::TranslateY(sign * 10.0),
            _ => Self::Rotate(sign * 30.0),
        }
    }

    /// Applies the operation in place.
    pub fn apply(self, image: &mut Image) {
        match self {
            Self::Identity => {}
            Self::AutoContrast => auto_contrast(image),
            Self::Brightness(factor) => brightness(image, factor),
            Self::Sharpness(factor) => sharpness(image, factor),
            Self::Equalize => equalize(image),
            Self::ShearX(factor) => affine(image, [1.0, -factor, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY(factor) => affine(image, [1.0, 0.0, 0.0, -factor, 1.0, 0.0]),
            Self::TranslateX(pixels) => affine(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0]),
            Self::TranslateY(pixels) => affine(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels]),
            Self::Rotate(degrees) => rotate(image, degrees),
        }
    }
}

fn auto_contrast(image: &mut Image) {
    per_channel(image, |counts| {
        let low = counts.iter().position(|&n| n > 0).unwrap_or(0);
        let high = counts.iter().rposition(|&n| n > 0).unwrap_or(255);
        if low >= high {
            return std::array::from_fn(|value| value as u8);
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|value| (value as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    });
}

fn equalize(image: &mut Image) {
    per_channel(image, |counts| {
        let total: usize = counts.iter().sum();
        let last = counts.iter().rev().copied().find(|&n| n > 0).unwrap_or(0);
        let step = (total - last) / 255;
        let mut below = step / 2;
        std::array::from_fn(|value| {
            if step == 0 {
                return value as u8;
            }
            let level = (below / step).min(255) as u8;
            below += counts[value];
            level
        })
    });
}

/// Applies a lookup table computed from each channel's histogram.
fn per_channel(image: &mut Image, table: impl Fn(&[usize; 256]) -> [u8; 256]) {
    let mut counts = [[0usize; 256]; 3];
    for pixel in image.rgb().chunks_exact(3) {
        for (counts, &value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(value)] += 1;
        }
    }
    let tables = counts.each_ref().map(table);
    for pixel in image.rgb_mut().chunks_exact_mut(3) {
        for (table, value) in tables.iter().zip(pixel) {
            *value = table[usize::from(*value)];
        }
    }
}

fn brightness(image: &mut Image, factor: f32) {
    let table: [u8; 256] =
        std::array::from_fn(|value| (value as f32 * factor).clamp(0.0, 255.0) as u8);
    for value in image.rgb_mut() {
        *value = table[usize::from(*value)];
    }
}

/// Sharpness by a smoothing kernel of weight 1 (center 5) of 13, in integers.
fn sharpness(image: &mut Image, factor: f32) {
    let (width, height) = (image.width(), image.height());
    if width < 3 || height < 3 {
        return;
    }
    let old = image.rgb().to_vec();
    let row = 3 * width;
    for y in 1..height - 1 {
        let lines = [y - 1, y, y + 1].map(|line| &old[line * row..(line + 1) * row]);
        let out = &mut image.rgb_mut()[y * row..(y + 1) * row];
        for at in 3..row - 3 {
            let middle = u32::from(lines[1][at]);
            let sum = lines.iter().fold(4 * middle, |sum, line| {
                sum + u32::from(line[at - 3]) + u32::from(line[at]) + u32::from(line[at + 3])
            });
            let smooth = ((sum + 6) / 13) as f32;
            out[at] = (smooth + factor * (middle as f32 - smooth)).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Affine warp: output pixel (x, y) samples the source at (a x + b y + c, d x + e y + f).
fn affine(image: &mut Image, [a, b, c, d, e, f]: [f32; 6]) {
    let (width, height) = (image.width(), image.height());
    let old = image.rgb().to_vec();
    let pixel = |x: i64, y: i64| -> [f32; 3] {
        let inside = x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height;
        let start = inside.then(|| (y as usize * width + x as usize) * 3);
        let pixel = start.and_then(|start| old.get(start..start + 3)).unwrap_or(&FILL);
        [pixel[0], pixel[1], pixel[2]].map(f32::from)
    };
    for (y, line) in image.rgb_mut().chunks_exact_mut(3 * width).enumerate() {
        let y = y as f32;
        for (x, out) in line.chunks_exact_mut(3).enumerate() {
            let x = x as f32;
            let (source_x, source_y) = (a * x + b * y + c, d * x + e * y + f);
            let (left, top) = (source_x.floor(), source_y.floor());
            let (right, down) = (source_x - left, source_y - top);
            let (x, y) = (left as i64, top as i64);
            let corners = [pixel(x, y), pixel(x + 1, y), pixel(x, y + 1), pixel(x + 1, y + 1)];
            for (channel, value) in out.iter_mut().enumerate() {
                let [p, q, r, s] = corners.map(|c| c[channel]);
                let (first, second) = (p + (q - p) * right, r + (s - r) * right);
                *value = (first + (second - first) * down + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

fn rotate(image: &mut Image, degrees: f32) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (x, y) = ((image.width() - 1) as f32 / 2.0, (image.height() - 1) as f32 / 2.0);
    affine(image, [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]);
}
