//! Tiles of bf16 pairs: two neighbours in depth of one row, or one column, side by side in four bytes.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{Matrix, SIDE};
use crate::precision::nearest_bf16;
use crate::register::{Register, Singles};

/// Rows or columns of a factor in a tile.
pub(super) const LINES: usize = 16;
/// Depths of a tile.
pub(super) const DEPTHS: usize = 32;

/// 16 by 16 pairs, in lines of the processor's cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([u32; 256]);

/// Which of a tile's pairs lie beside each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Those of a line, along the depth.
    ByLine,
    /// Those of a depth, line after line.
    ByDepth,
}

/// A left factor as tiles, those of 16 rows along all of the depth one after the other, and 16 rows of zeros for a step
/// that has no second half.
pub(in super::super) struct Left {
    tiles: Vec<Tile>,
    /// Tiles along the depth.
    deep: usize,
}

impl Left {
    pub(in super::super) fn of(lhs: Matrix<'_, f32>) -> Self {
        let deep = lhs.columns().div_ceil(DEPTHS);
        let lines = lhs.rows().div_ceil(LINES) + 1;
        let mut tiles = Vec::with_capacity(lines * deep);
        let places = &mut tiles.spare_capacity_mut()[..lines * deep];
        let fill = |(index, places): (usize, &mut [MaybeUninit<Tile>])| {
            for (depth, place) in places.iter_mut().enumerate() {
                place.write(tile(lhs, index * LINES, depth * DEPTHS, Order::ByLine));
            }
        };
        places.par_chunks_mut(deep.max(1)).enumerate().with_min_len(4).for_each(fill);
        // SAFETY: each of them has been written.
        unsafe { tiles.set_len(lines * deep) };
        Self { tiles, deep }
    }

    /// Tiles along the depth from this one on, a multiple of 32.
    pub(super) fn tiles(&self, depth: usize) -> usize {
        self.deep - depth / DEPTHS
    }

    /// The tile that begins at this row and depth, and how many tiles further on the next 16 rows begin.
    pub(super) fn at(&self, row: usize, depth: usize) -> (*const Tile, usize) {
        (&self.tiles[row / LINES * self.deep + depth / DEPTHS], self.deep)
    }
}

/// Some columns and a block of the depth of a right factor as tiles, those of 16 columns one after the other.
pub(in super::super) struct Right {
    tiles: Vec<Tile>,
    deep: usize,
}

impl Right {
    pub(in super::super) fn new() -> Self {
        Self { tiles: Vec::new(), deep: 0 }
    }

    pub(super) fn fill(&mut self, rhs: Matrix<'_, f32>) {
        self.deep = rhs.rows().div_ceil(DEPTHS);
        self.tiles.clear();
        for line in (0..rhs.columns().next_multiple_of(SIDE)).step_by(LINES) {
            for depth in (0..rhs.rows()).step_by(DEPTHS) {
                self.tiles.push(tile(rhs.t(), line, depth, Order::ByDepth));
            }
        }
    }

    /// The tile that begins at this column, and how many tiles further on the next 16 columns begin.
    pub(super) fn at(&self, column: usize) -> (*const Tile, usize) {
        (&self.tiles[column / LINES * self.deep], self.deep)
    }
}

/// The tile of 16 lines of a factor (its rows, with the depth along the columns) from `line` and `depth` on; zeros where
/// it reaches past the factor.
fn tile(factor: Matrix<'_, f32>, line: usize, depth: usize, order: Order) -> Tile {
    // SAFETY: a processor that multiplies bf16 has AVX2, and so has one that runs the tests.
    unsafe { tile_avx2(factor, line, depth, order) }
}

#[target_feature(enable = "avx2,fma")]
fn tile_avx2(factor: Matrix<'_, f32>, line: usize, depth: usize, order: Order) -> Tile {
    let mut tile = Tile([0; 256]);
    let (line_step, depth_step) = (factor.row_stride(), factor.column_stride());
    let lines = factor.rows().saturating_sub(line).min(LINES);
    let depths = factor.columns().saturating_sub(depth).min(DEPTHS);
    let whole = lines == LINES && depths == DEPTHS;
    let found = if whole && depth_step == 1 {
        for (i, to) in tile.0.chunks_exact_mut(LINES).enumerate() {
            let from = &factor.dense_row(line + i)[depth..][..DEPTHS];
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = pair(from[0], from[1]);
            }
        }
        Order::ByLine
    } else if whole && line_step == 1 {
        let turned = factor.t();
        for (p, to) in tile.0.chunks_exact_mut(LINES).enumerate() {
            let first = &turned.dense_row(depth + 2 * p)[line..][..LINES];
            let second = &turned.dense_row(depth + 2 * p + 1)[line..][..LINES];
            for (to, (&first, &second)) in to.iter_mut().zip(first.iter().zip(second)) {
                *to = pair(first, second);
            }
        }
        Order::ByDepth
    } else {
        for (i, to) in tile.0.chunks_exact_mut(LINES).take(lines).enumerate() {
            let at = |p| if p < depths { factor.element(line + i, depth + p) } else { 0.0 };
            for (p, to) in to.iter_mut().enumerate() {
                *to = pair(at(2 * p), at(2 * p + 1));
            }
        }
        Order::ByLine
    };
    if found == order {
        return tile;
    }
    let mut other = Tile([0; 256]);
    let (from, to) = (tile.0.as_ptr().cast::<f32>(), other.0.as_mut_ptr().cast::<f32>());
    for i in [0, 8] {
        for j in [0, 8] {
            // SAFETY: squares of eight within the two tiles. Their bits are moved and not looked at.
            unsafe { Singles::turn(from.add(i * LINES + j), LINES, to.add(j * LINES + i), LINES) };
        }
    }
    other
}

/// The nearest bf16 of two numbers, the first in the lower half.
#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    nearest_bf16(first).to_bits() >> 16 | nearest_bf16(second).to_bits()
}
