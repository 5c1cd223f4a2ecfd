//! bf16 packing: tiles of pairs, two neighbors along the depth of one row, or one column, side by side in four bytes.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Matrix;
use crate::precision::nearest_bf16;
use crate::simd::transpose_16x16;

/// Rows or columns of an operand in a tile.
pub(super) const LINES: usize = 16;
/// Depth of a tile.
pub(super) const DEPTHS: usize = 32;

/// Groups of 16 lines packed by one task.
const TOGETHER: usize = 4;

/// Tile of 16 by 16 pairs, aligned to cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([u32; 256]);

/// Order of the pairs in a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum PackOrder {
    /// Pairs of one line adjacent, along the depth: a left operand.
    ByLine,
    /// Pairs of one depth adjacent, line after line: a right operand.
    ByDepth,
}

/// Packed operand: the tiles of 16 lines (rows of a left operand, columns of a right one) along all of the depth, one
/// after the other, and 16 lines of zeros for a kernel call that has no second half.
#[derive(Default)]
pub(in super::super) struct PackedOperand {
    tiles: Vec<Tile>,
    /// Tiles along the depth.
    deep: usize,
}

impl PackedOperand {
    /// Packs a matrix whose rows are the lines, on all threads.
    pub(in super::super) fn of(lines: Matrix<'_, f32>, order: PackOrder) -> Self {
        let mut factor = Self::default();
        factor.make(lines, |places, deep| {
            let some = |(index, places): (usize, &mut [_])| {
                fill_some(places, deep, lines, index * TOGETHER, order);
            };
            places.par_chunks_mut(TOGETHER * deep).enumerate().for_each(some);
        });
        factor
    }

    /// Packs a matrix on this thread, in place of the previous contents.
    pub(super) fn take(&mut self, lines: Matrix<'_, f32>, order: PackOrder) {
        self.make(lines, |places, deep| fill_some(places, deep, lines, 0, order));
    }

    /// Makes all tiles; `fill` is given their places and how many there are along the depth.
    fn make(&mut self, lines: Matrix<'_, f32>, fill: impl FnOnce(&mut [MaybeUninit<Tile>], usize)) {
        self.deep = lines.columns().div_ceil(DEPTHS).max(1);
        let count = (lines.rows().div_ceil(LINES) + 1) * self.deep;
        self.tiles.clear();
        self.tiles.reserve(count);
        fill(&mut self.tiles.spare_capacity_mut()[..count], self.deep);
        // SAFETY: `fill_some` writes each tile of the lines that it is given, which are all.
        unsafe { self.tiles.set_len(count) };
    }

    /// Tiles along the depth.
    pub(super) fn deep(&self) -> usize {
        self.deep
    }

    /// Tiles of the lines from this one on, a multiple of 16.
    pub(super) fn from(&self, line: usize) -> *const Tile {
        &raw const self.tiles[line / LINES * self.deep]
    }
}

/// Writes the tiles of some lines, from 16 times `first` on, in the order of memory.
fn fill_some(
    places: &mut [MaybeUninit<Tile>],
    deep: usize,
    lines: Matrix<'_, f32>,
    first: usize,
    order: PackOrder,
) {
    let there = places.len() / deep;
    let mut one = |line: usize, depth: usize| {
        let at = ((first + line) * LINES, depth * DEPTHS);
        fill(&mut places[line * deep + depth], lines, at, order);
    };
    if lines.row_stride() == 1 {
        (0..deep).for_each(|depth| (0..there).for_each(|line| one(line, depth)));
    } else {
        (0..there).for_each(|line| (0..deep).for_each(|depth| one(line, depth)));
    }
}

/// Writes the tile of 16 lines of an operand (its rows, with the depth along the columns) from `line` and `depth` on;
/// zeros beyond the operand.
fn fill(
    place: &mut MaybeUninit<Tile>,
    factor: Matrix<'_, f32>,
    (line, depth): (usize, usize),
    order: PackOrder,
) {
    let lines = factor.rows().saturating_sub(line).min(LINES);
    let depths = factor.columns().saturating_sub(depth).min(DEPTHS);
    let (line_step, depth_step) = (factor.row_stride(), factor.column_stride());
    if lines == LINES && depths == DEPTHS && is_x86_feature_detected!("avx512bf16") {
        let from = factor.pointer().wrapping_add(line * line_step + depth * depth_step);
        // SAFETY: the processor has the instructions, and all of the tile's elements lie within the operand.
        unsafe {
            match (line_step, depth_step) {
                (_, 1) => return by_line(place, from, line_step, order),
                (1, _) => return by_depth(place, from, depth_step, order),
                _ => {}
            }
        }
    }
    let Tile(tile) = place.write(Tile([0; 256]));
    for i in 0..lines {
        let at = |p| if p < depths { factor.element(line + i, depth + p) } else { 0.0 };
        for p in 0..depths.div_ceil(2) {
            let to = if order == PackOrder::ByLine { i * LINES + p } else { p * LINES + i };
            tile[to] = pair(at(2 * p), at(2 * p + 1));
        }
    }
}

/// Nearest bf16 of two numbers, the first in the lower half.
fn pair(first: f32, second: f32) -> u32 {
    nearest_bf16(first).to_bits() >> 16 | nearest_bf16(second).to_bits()
}

/// Packs a whole tile of lines that are dense, `step` elements apart.
///
/// # Safety
/// The lines are there, and the processor has the instructions.
#[target_feature(enable = "avx512bf16,avx512bw,avx512f")]
unsafe fn by_line(place: &mut MaybeUninit<Tile>, from: *const f32, step: usize, order: PackOrder) {
    // SAFETY: vouched for by the caller.
    let pairs = std::array::from_fn(|i| unsafe {
        let from = from.add(i * step);
        bits(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(LINES)), _mm512_loadu_ps(from)))
    });
    store(place, if order == PackOrder::ByLine { pairs } else { transpose_16x16(pairs) });
}

/// Packs a whole tile of depths that are dense, `step` elements apart.
///
/// # Safety
/// The depths are there, and the processor has the instructions.
#[target_feature(enable = "avx512bf16,avx512bw,avx512f")]
unsafe fn by_depth(place: &mut MaybeUninit<Tile>, from: *const f32, step: usize, order: PackOrder) {
    // Interleaves two rows of sixteen.
    const BESIDE: [u16; 32] = {
        let mut beside = [0; 32];
        let mut i = 0;
        while i < 32 {
            beside[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        beside
    };
    // SAFETY: vouched for by the caller.
    let pairs = std::array::from_fn(|p| unsafe {
        let (first, second) = (from.add(2 * p * step), from.add((2 * p + 1) * step));
        let rows = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first));
        _mm512_permutexvar_epi16(_mm512_loadu_epi16(BESIDE.as_ptr().cast()), bits(rows))
    });
    store(place, if order == PackOrder::ByDepth { pairs } else { transpose_16x16(pairs) });
}

#[target_feature(enable = "avx512f")]
fn bits(pairs: __m512bh) -> __m512i {
    // SAFETY: both are 512 bits, any of which are a value.
    unsafe { std::mem::transmute(pairs) }
}

#[target_feature(enable = "avx512f")]
fn store(place: &mut MaybeUninit<Tile>, lines: [__m512i; LINES]) {
    for (i, line) in lines.into_iter().enumerate() {
        // SAFETY: a tile has sixteen lines of 64 bytes, each where a register of 64 bytes may lie.
        unsafe { _mm512_store_si512(place.as_mut_ptr().cast::<__m512i>().add(i), line) };
    }
}
