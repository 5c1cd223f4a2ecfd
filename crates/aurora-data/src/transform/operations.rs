//! The picture operations of RandAugment, on 8-bit RGB.

use crate::Picture;

/// What is outside a picture that is sheared, shifted or turned.
const FILL: [u8; 3] = [128, 128, 128];

/// Stretches each channel to the whole range. A channel of one value stays.
pub(super) fn auto_contrast(picture: &mut Picture) {
    per_channel(picture, |counts| {
        let low = counts.iter().position(|&n| n > 0).unwrap_or(0);
        let high = counts.iter().rposition(|&n| n > 0).unwrap_or(255);
        std::array::from_fn(|value| {
            if low >= high {
                return value as u8;
            }
            let stretched = (value as f32 - low as f32) * 255.0 / (high - low) as f32;
            stretched.clamp(0.0, 255.0) as u8
        })
    });
}

/// Flattens the histogram of each channel: a value becomes the share of pixels below it.
pub(super) fn equalize(picture: &mut Picture) {
    per_channel(picture, |counts| {
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

/// Replaces values by a table that is made of each channel's histogram.
fn per_channel(picture: &mut Picture, table: impl Fn(&[usize; 256]) -> [u8; 256]) {
    for channel in 0..3 {
        let mut counts = [0usize; 256];
        for pixel in picture.rgb().chunks_exact(3) {
            counts[usize::from(pixel[channel])] += 1;
        }
        let table = table(&counts);
        for pixel in picture.rgb_mut().chunks_exact_mut(3) {
            pixel[channel] = table[usize::from(pixel[channel])];
        }
    }
}

/// Multiplies every value.
pub(super) fn brightness(picture: &mut Picture, factor: f32) {
    for value in picture.rgb_mut() {
        *value = (f32::from(*value) * factor).clamp(0.0, 255.0) as u8;
    }
}

/// Blends a smoothed picture (weights 1, the middle 5, of 13) with the picture by `factor`: 0 is
/// smooth, 1 the picture, more is sharper. The outermost pixels stay.
pub(super) fn sharpness(picture: &mut Picture, factor: f32) {
    let (width, height) = (picture.width(), picture.height());
    if width < 3 || height < 3 {
        return;
    }
    let old = picture.rgb().to_vec();
    let out = picture.rgb_mut();
    let row = width * 3;
    for y in 1..height - 1 {
        for at in y * row + 3..(y + 1) * row - 3 {
            let mut sum = 4.0 * f32::from(old[at]);
            for line in [at - row, at, at + row] {
                sum += [line - 3, line, line + 3].map(|i| f32::from(old[i])).iter().sum::<f32>();
            }
            let smooth = sum / 13.0;
            let blended = smooth + factor * (f32::from(old[at]) - smooth);
            out[at] = blended.clamp(0.0, 255.0) as u8;
        }
    }
}

/// Moves every output pixel (x, y) of the source's (a x + b y + c, d x + e y + f), sampled with
/// four neighbours; grey outside.
pub(super) fn affine(picture: &mut Picture, [a, b, c, d, e, f]: [f32; 6]) {
    let (width, height) = (picture.width(), picture.height());
    let old = picture.rgb().to_vec();
    let at = |x: i64, y: i64| -> [f32; 3] {
        let inside = x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height;
        let start = if inside { (y as usize * width + x as usize) * 3 } else { usize::MAX - 3 };
        let pixel = old.get(start..start + 3).unwrap_or(&FILL);
        [pixel[0], pixel[1], pixel[2]].map(f32::from)
    };
    for (number, pixel) in picture.rgb_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = ((number % width) as f32, (number / width) as f32);
        let (source_x, source_y) = (a * x + b * y + c, d * x + e * y + f);
        let (left, top) = (source_x.floor(), source_y.floor());
        let (right, down) = (source_x - left, source_y - top);
        let (x, y) = (left as i64, top as i64);
        let corners = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
        for (channel, value) in pixel.iter_mut().enumerate() {
            let [p, q, r, s] = corners.map(|c| c[channel]);
            let (first, second) = (p + (q - p) * right, r + (s - r) * right);
            *value = (first + (second - first) * down + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Turns about the middle by `degrees`.
pub(super) fn rotate(picture: &mut Picture, degrees: f32) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (x, y) = ((picture.width() - 1) as f32 / 2.0, (picture.height() - 1) as f32 / 2.0);
    affine(picture, [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]);
}

/// Mirrors left and right.
pub(super) fn flip(picture: &mut Picture) {
    let row = picture.width() * 3;
    for line in picture.rgb_mut().chunks_exact_mut(row) {
        let (mut left, mut right) = (0, row - 3);
        while left < right {
            for channel in 0..3 {
                line.swap(left + channel, right + channel);
            }
            left += 3;
            right -= 3;
        }
    }
}
