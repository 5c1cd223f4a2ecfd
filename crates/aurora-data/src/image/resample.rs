//! Bicubic resampling, bit-identical to Pillow 13.
//!
//! The filter is a cubic with a = -1/2, widened by the ratio of the sides when downscaling. Weights
//! are multiples of 2^-22. The image is scaled in one direction and rounded to 8 bits, then in the
//! other. The order changes values at the edges of drawings by tens of steps; [`down_first`] is
//! Pillow's choice, found by comparing both orders with its output (versions before 13 always
//! scaled horizontally first).

use pulp::{Arch, Simd, WithSimd};

use super::Crop;

/// Filter support on either side, in pixels of the larger scale.
const REACH: f64 = 2.0;
/// Fraction bits of a weight.
const BITS: u32 = 22;
/// Rounding term: one half, the initial value of every sum.
const HALF: i32 = 1 << (BITS - 1);
/// SIMD lanes of a row.
const LANES: usize = 16;
/// Rows scaled together.
const ROWS: usize = 2;
/// Values of a pixel of [`ROWS`] rows; the fourth of each is padding.
const PIXEL: usize = 4 * ROWS;

/// Filter weights: source pixels and their weights for each output pixel. All have the same number
/// of taps, for loops of constant length; excess taps have weight 0.
struct Weights {
    taps: usize,
    first: Vec<usize>,
    values: Vec<i32>,
}

impl Weights {
    /// Weights for scaling a side of `from` pixels to `to`.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let (reach, shrink) = (REACH * stretch, 1.0 / stretch);
        let bounds = |out: usize| {
            let center = (out as f64 + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(from);
            (center, first, end)
        };
        let taps = (0..to).map(bounds).map(|(_, first, end)| end - first).max().unwrap_or(1);
        let mut weights = Self { taps, first: Vec::with_capacity(to), values: vec![0; to * taps] };
        let mut exact = vec![0f64; taps];
        for (out, values) in weights.values.chunks_exact_mut(taps).enumerate() {
            let (center, first, end) = bounds(out);
            let exact = &mut exact[..end - first];
            for (tap, value) in exact.iter_mut().enumerate() {
                *value = cubic(((first + tap) as f64 - center + 0.5) * shrink);
            }
            let sum: f64 = exact.iter().sum();
            // At the far edge fewer than `taps` pixels may remain: begin earlier, with zero
            // weights.
            let start = first.min(from - taps);
            for (value, exact) in values[first - start..].iter_mut().zip(exact) {
                *value = (*exact / sum * f64::from(1 << BITS)).round() as i32;
            }
            weights.first.push(start);
        }
        weights
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < REACH {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Fixed-point sum rounded and clamped to 8 bits. No sum of weights reaches 2^31.
#[inline(always)]
fn whole(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes `crop` of an image whose rows have `width` pixels to a square.
pub(super) fn square(rgb: &[u8], width: usize, crop: Crop, size: usize) -> Vec<u8> {
    let source = Rows {
        bytes: &rgb[3 * (crop.top * width + crop.left)..],
        step: 3 * width,
        width: crop.width,
        height: crop.height,
    };
    Arch::new().dispatch(Square { source, size })
}

/// True if columns are scaled before rows: where the height shrinks by more than twice as many
/// pixels as the width.
fn down_first(from: &Rows<'_>, size: usize) -> bool {
    let (width, height, size) = (from.width as i64, from.height as i64, size as i64);
    height > size && height - size > 2 * (width - size)
}

/// Row view of an image or a part of it.
struct Rows<'a> {
    /// Bytes from the first pixel on.
    bytes: &'a [u8],
    /// Row stride in bytes.
    step: usize,
    width: usize,
    height: usize,
}

impl<'a> Rows<'a> {
    /// View of a whole image.
    fn all(bytes: &'a [u8], width: usize, height: usize) -> Self {
        Self { bytes, step: 3 * width, width, height }
    }

    #[inline(always)]
    fn row(&self, number: usize) -> &'a [u8] {
        &self.bytes[number * self.step..][..3 * self.width]
    }
}

/// Body of [`square`], compiled for each instruction set.
struct Square<'a> {
    source: Rows<'a>,
    size: usize,
}

impl WithSimd for Square<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Vec<u8> {
        let Self { source, size } = self;
        if down_first(&source, size) {
            let scaled = down(&source, size);
            across(&Rows::all(&scaled, source.width, size), size)
        } else {
            let scaled = across(&source, size);
            down(&Rows::all(&scaled, size, source.height), size)
        }
    }
}

/// Scales horizontally to `size` pixels.
#[inline(always)]
fn across(source: &Rows<'_>, size: usize) -> Vec<u8> {
    let weights = Weights::new(source.width, size);
    let mut out = vec![0; 3 * size * source.height];
    let mut pixels = vec![[0; PIXEL]; source.width];
    for (number, rows) in out.chunks_mut(3 * size * ROWS).enumerate() {
        // The last row substitutes for missing rows.
        let row = |i: usize| source.row((number * ROWS + i).min(source.height - 1));
        spread(std::array::from_fn(row), &mut pixels);
        let taps = weights.values.chunks_exact(weights.taps);
        for (x, (&first, taps)) in weights.first.iter().zip(taps).enumerate() {
            let mut sums = [HALF; PIXEL];
            for (pixel, &weight) in pixels[first..first + weights.taps].iter().zip(taps) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * value;
                }
            }
            let sums = sums.map(whole);
            for (row, sums) in rows.chunks_exact_mut(3 * size).zip(sums.chunks_exact(4)) {
                row[3 * x..3 * x + 3].copy_from_slice(&sums[..3]);
            }
        }
    }
    out
}

/// Widens row bytes to `i32`, the pixels of all rows interleaved.
#[inline(always)]
fn spread(rows: [&[u8]; ROWS], pixels: &mut [[i32; PIXEL]]) {
    for (row, bytes) in rows.into_iter().enumerate() {
        for (pixel, rgb) in pixels.iter_mut().zip(bytes.chunks_exact(3)) {
            for channel in 0..3 {
                pixel[4 * row + channel] = i32::from(rgb[channel]);
            }
        }
    }
}

/// Scales vertically to `size` pixels.
#[inline(always)]
fn down(source: &Rows<'_>, size: usize) -> Vec<u8> {
    let weights = Weights::new(source.height, size);
    let length = 3 * source.width;
    let mut out = vec![0; length * size];
    let taps = weights.values.chunks_exact(weights.taps);
    for ((out, &first), taps) in out.chunks_exact_mut(length).zip(&weights.first).zip(taps) {
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        let tail = blocks.len() * LANES;
        for (number, block) in blocks.iter_mut().enumerate() {
            *block = combined(source, first, taps, number * LANES);
        }
        for (number, value) in rest.iter_mut().enumerate() {
            [*value] = combined(source, first, taps, tail + number);
        }
    }
    out
}

/// Weighted sum of rows: `N` values from index `at` on.
#[inline(always)]
fn combined<const N: usize>(source: &Rows<'_>, first: usize, taps: &[i32], at: usize) -> [u8; N] {
    let mut sums = [HALF; N];
    for (tap, &weight) in taps.iter().enumerate() {
        let row = &source.row(first + tap)[at..at + N];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += weight * i32::from(value);
        }
    }
    sums.map(whole)
}
