//! Bicubic scaling that gives what Pillow gives, to the bit.
//!
//! The filter is a cubic of a = -1/2, widened by the ratio of the sides when shrinking. Its weights
//! are whole multiples of 2^-22; rows are scaled first and rounded to whole numbers of 0 to 255, then
//! columns. All of that shows in the result: columns before rows, or sums that are not cut to the range
//! between the two, differ by tens of steps at the corners of drawings.

use pulp::{Arch, Simd, WithSimd};

use super::Crop;

/// The reach of the filter on either side, in pixels of the larger scale.
const REACH: f64 = 2.0;
/// Bits of a weight behind the point.
const BITS: u32 = 22;
/// One half, with which every sum begins, so that cutting its bits off rounds it.
const HALF: i32 = 1 << (BITS - 1);
/// Output values of a row that are summed side by side.
const LANES: usize = 16;
/// Rows that are scaled together.
const ROWS: usize = 2;
/// Values that a pixel of [`ROWS`] rows takes: the fourth of each is padding.
const PIXEL: usize = 4 * ROWS;

/// Which pixels make each output pixel, and by how much. All have the same number of taps, so that
/// loops over them have one length; what is too much has weight 0.
struct Weights {
    taps: usize,
    first: Vec<usize>,
    values: Vec<i32>,
}

impl Weights {
    /// For a side of `from` pixels that becomes one of `to`.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let (reach, shrink) = (REACH * stretch, 1.0 / stretch);
        let bounds = |out: usize| {
            let centre = (out as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            (centre, first, end)
        };
        let taps = (0..to).map(bounds).map(|(_, first, end)| end - first).max().unwrap_or(1);
        let mut weights = Self { taps, first: Vec::with_capacity(to), values: vec![0; to * taps] };
        let mut exact = vec![0f64; taps];
        for (out, values) in weights.values.chunks_exact_mut(taps).enumerate() {
            let (centre, first, end) = bounds(out);
            let exact = &mut exact[..end - first];
            for (tap, value) in exact.iter_mut().enumerate() {
                *value = cubic(((first + tap) as f64 - centre + 0.5) * shrink);
            }
            let sum: f64 = exact.iter().sum();
            // At the far edge there may be fewer than `taps` pixels left: begin earlier, with zeros.
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

/// A sum as a whole number of 0 to 255. The largest sum that weights can give is below 2^31.
#[inline(always)]
fn whole(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Scales `crop` of a picture whose rows have `width` pixels to a square.
pub(super) fn square(rgb: &[u8], width: usize, crop: Crop, size: usize) -> Vec<u8> {
    let mut out = vec![0; 3 * size * size];
    Arch::new().dispatch(Scaling { rgb, width, crop, size, out: &mut out });
    out
}

/// The work of [`square`], which is compiled for each instruction set.
struct Scaling<'a> {
    rgb: &'a [u8],
    width: usize,
    crop: Crop,
    size: usize,
    out: &'a mut [u8],
}

impl WithSimd for Scaling<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { rgb, width, crop, size, out } = self;
        let across = Weights::new(crop.width, size);
        let down = Weights::new(crop.height, size);
        let source = |row: usize| {
            let start = ((crop.top + row) * width + crop.left) * 3;
            &rgb[start..start + crop.width * 3]
        };
        // Scaled rows, of which no more are kept than an output row can need.
        let row_length = (3 * size).next_multiple_of(LANES);
        let kept = down.taps + ROWS;
        let mut ring = vec![0u8; kept * row_length];
        let mut pixels = vec![[0i32; PIXEL]; crop.width];
        let mut scaled = 0;
        let mut lines: Vec<usize> = Vec::with_capacity(down.taps);
        for ((line, &first), weights) in
            out.chunks_exact_mut(3 * size).zip(&down.first).zip(down.values.chunks_exact(down.taps))
        {
            while scaled < first + down.taps {
                let rows: [usize; ROWS] =
                    std::array::from_fn(|i| (scaled + i).min(crop.height - 1));
                spread(rows.map(source), &mut pixels);
                let starts = std::array::from_fn(|i| (scaled + i) % kept * row_length);
                scale_rows(&pixels, &across, &mut ring, starts);
                scaled += ROWS;
            }
            lines.clear();
            lines.extend((first..first + down.taps).map(|row| row % kept * row_length));
            combine(&ring, &lines, weights, line);
        }
    }
}

/// Bytes of rows to numbers, the pixels of all rows side by side.
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

/// Scales rows to their new length.
#[inline(always)]
fn scale_rows(
    pixels: &[[i32; PIXEL]],
    across: &Weights,
    ring: &mut [u8],
    starts: [usize; ROWS],
) {
    let taps = across.values.chunks_exact(across.taps);
    for (x, (&first, weights)) in across.first.iter().zip(taps).enumerate() {
        let mut sums = [HALF; PIXEL];
        for (pixel, &weight) in pixels[first..first + across.taps].iter().zip(weights) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += weight * value;
            }
        }
        let sums = sums.map(whole);
        for (row, start) in starts.into_iter().enumerate() {
            let at = start + 3 * x;
            ring[at..at + 3].copy_from_slice(&sums[4 * row..4 * row + 3]);
        }
    }
}

/// One row of the output from the scaled rows that begin at `lines`.
#[inline(always)]
fn combine(ring: &[u8], lines: &[usize], weights: &[i32], out: &mut [u8]) {
    for (number, out) in out.chunks_mut(LANES).enumerate() {
        let mut sums = [HALF; LANES];
        for (&line, &weight) in lines.iter().zip(weights) {
            let at = line + number * LANES;
            for (sum, &value) in sums.iter_mut().zip(&ring[at..at + LANES]) {
                *sum += weight * i32::from(value);
            }
        }
        let sums = sums.map(whole);
        out.copy_from_slice(&sums[..out.len()]);
    }
}
