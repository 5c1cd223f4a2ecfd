//! GEMM micro-kernel: a tile of the product, accumulated in registers.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::pack::Panels;
use super::{Matrix, MatrixMut};
use crate::float::Float;
use crate::isa::Isa;
use crate::simd::{Portable, SimdVector};

/// Products added in sequence before their sum joins the others (a chain): an f32 sum loses a bit with every doubling
/// of its length, which shows after a few steps of training. Where the accumulators fill the registers, each chain
/// takes one turn through memory.
pub(super) const ACC_CHAIN: usize = 96;

/// Operands of the micro-kernel: a block of rows times panels.
pub(super) struct Microkernel<'a, T> {
    pub(super) panels: &'a Panels<T>,
    /// Left operand; its rows are dense, and as long as the panels are deep.
    pub(super) lhs: Matrix<'a, T>,
    /// True to add the sums to the existing output.
    pub(super) add: bool,
}

impl<T: Float> Microkernel<'_, T> {
    /// Multiplies the block, to `out`.
    pub(super) fn multiply(&self, isa: Isa, out: &mut MatrixMut<'_, T>) {
        // SAFETY: the processor has what `isa` says.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => with_avx512(self, out),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => with_avx2(self, out),
                _ => all_tiles::<T, Portable<T>>(self, out, |_, _, _| 0),
            }
        }
        out.set_initialized();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<T: Float>(tiles: &Microkernel<'_, T>, out: &mut MatrixMut<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { all_tiles::<T, T::Avx2>(tiles, out, |_, _, _| 0) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn with_avx512<T: Float>(tiles: &Microkernel<'_, T>, out: &mut MatrixMut<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { all_tiles::<T, T::Avx512>(tiles, out, avx512::whole_tiles) }
}

/// Rows of a tile: with two registers each, twelve of sixteen registers are accumulators, and the rest hold operands.
const ROWS: usize = 6;

/// Computes all tiles, panel after panel, down the rows from where `done` has come to in that panel, then the
/// remainder.
///
/// # Safety
/// The processor has the register `R`.
#[inline(always)]
unsafe fn all_tiles<T: Float, R: SimdVector<T>>(
    tiles: &Microkernel<'_, T>,
    out: &mut MatrixMut<'_, T>,
    done: unsafe fn(&Microkernel<'_, T>, &mut MatrixMut<'_, T>, usize) -> usize,
) {
    let rows = out.rows();
    for column in (0..out.columns()).step_by(tiles.panels.width()) {
        // SAFETY: each tile ends at or before the last row.
        unsafe {
            let mut row = done(tiles, out, column);
            while row + ROWS <= rows {
                tile::<T, R, ROWS>(tiles, out, row, column);
                row += ROWS;
            }
            match rows - row {
                1 => tile::<T, R, 1>(tiles, out, row, column),
                2 => tile::<T, R, 2>(tiles, out, row, column),
                3 => tile::<T, R, 3>(tiles, out, row, column),
                4 => tile::<T, R, 4>(tiles, out, row, column),
                5 => tile::<T, R, 5>(tiles, out, row, column),
                _ => {}
            }
        }
    }
}

/// One tile of the product: `ROWS` rows and a panel.
///
/// # Safety
/// The rows lie within `out` and the left operand, and the processor has the register `R`.
#[inline(always)]
unsafe fn tile<T: Float, R: SimdVector<T>, const ROWS: usize>(
    tiles: &Microkernel<'_, T>,
    out: &mut MatrixMut<'_, T>,
    row: usize,
    column: usize,
) {
    let (lhs, panel) = (tiles.lhs, tiles.panels.at(column));
    let (step, width, depth) = (lhs.row_stride(), 2 * R::LANES, lhs.columns());
    // SAFETY: element (row + i, p) lies within the left operand for i < ROWS and p < depth, and row p of the panel
    // within it. What is written lies within `out`, and is read only when it has been written; a panel that reaches
    // past the last column goes through a copy.
    unsafe {
        let mut totals = [[R::zero(); 2]; ROWS];
        let mut a = lhs.pointer().add(row * step);
        let mut b = panel.as_ptr();
        let mut left = depth;
        while left > 0 {
            let chain = left.min(ACC_CHAIN);
            if left == chain {
                // The product is far larger than a cache; without this every tile would wait for its lines at the end.
                for i in 0..ROWS {
                    prefetch(out.pointer().add((row + i) * out.row_stride() + column));
                }
            }
            let mut sums = [[R::zero(); 2]; ROWS];
            for _ in 0..chain / 4 {
                for p in 0..4 {
                    rank1_update::<T, R, ROWS>(&mut sums, a.add(p), step, b.add(p * width));
                }
                a = a.add(4);
                b = b.add(4 * width);
            }
            for _ in 0..chain % 4 {
                rank1_update::<T, R, ROWS>(&mut sums, a, step, b);
                a = a.add(1);
                b = b.add(width);
            }
            for (totals, sums) in totals.iter_mut().zip(sums) {
                totals[0] = totals[0].add(sums[0]);
                totals[1] = totals[1].add(sums[1]);
            }
            left -= chain;
        }
        let columns = width.min(out.columns() - column);
        for (i, sums) in totals.into_iter().enumerate() {
            let c = out.pointer().add((row + i) * out.row_stride() + column);
            if columns == width {
                for (j, sum) in sums.into_iter().enumerate() {
                    let c = c.add(j * R::LANES);
                    if tiles.add { R::load(c).add(sum) } else { sum }.store(c);
                }
            } else {
                let mut copy = [T::zero(); 32];
                sums[0].store(copy.as_mut_ptr());
                sums[1].store(copy.as_mut_ptr().add(R::LANES));
                for (k, &sum) in copy[..columns].iter().enumerate() {
                    let c = c.add(k);
                    c.write(if tiles.add { *c + sum } else { sum });
                }
            }
        }
    }
}

/// Prefetches the cache line at this address for writing.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it reads nothing that the program could see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Rank-1 update: a column of the left operand times a row of a panel, added to the sums.
///
/// # Safety
/// The column has `ROWS` elements, `step` apart, the row two registers, and the processor the register `R`.
#[inline(always)]
unsafe fn rank1_update<T: Float, R: SimdVector<T>, const ROWS: usize>(
    sums: &mut [[R; 2]; ROWS],
    a: *const T,
    step: usize,
    b: *const T,
) {
    // SAFETY: vouched for by the caller.
    unsafe {
        let panels = [R::load(b), R::load(b.add(R::LANES))];
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = R::splat(*a.add(i * step));
            sums[0] = a.fma(panels[0], sums[0]);
            sums[1] = a.fma(panels[1], sums[1]);
        }
    }
}
