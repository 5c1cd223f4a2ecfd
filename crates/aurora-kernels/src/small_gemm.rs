//! Small GEMM, for the matrices of one attention head.
//!
//! A general GEMM first packs its operands, which for a few dozen rows takes longer than multiplying. Here the left
//! operand is read in place, element by element, and the right one in rows that are a multiple of [`PANEL`] long.
//! Where the processor has dot-product instructions for bf16, GEMMs in that precision use its tiles.

use crate::float::Float;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::SmallGemm;
use crate::gemm::{LhsBlock, Matrix, MatrixMut, transpose};
use crate::isa::Isa;
use crate::precision::{Precision, round};
use crate::simd::{Portable, SimdVector};

/// Panel width: the right operand's rows come in multiples of this many elements (one AVX register of f32).
pub(crate) const PANEL: usize = 8;

/// Rows of a tile: with two panels, twelve of sixteen registers are accumulators, and the rest hold operands.
const TILE_ROWS: usize = 6;

/// Rows of a tile with AVX-512, which has 32 registers; a block of 64 queries has no row left over.
const AVX512_ROWS: usize = 8;

/// `length` rounded up to whole panels.
pub(crate) fn padded(length: usize) -> usize {
    length.next_multiple_of(PANEL)
}

/// Packed right operand of small GEMMs, kept by one thread from product to product.
pub(crate) struct PackedRhs<T> {
    precision: Precision,
    /// Rows in whole panels.
    panels: Vec<T>,
    rows: usize,
    columns: usize,
    /// Left operand, where it is rounded.
    left: LhsBlock<T>,
    /// bf16 kernel in place of panels, where the processor has one.
    #[cfg(target_arch = "x86_64")]
    tiles: Option<SmallGemm>,
}

impl<T: Float> PackedRhs<T> {
    /// Empty operand for products in this precision.
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            panels: Vec::new(),
            rows: 0,
            columns: 0,
            left: LhsBlock::new(),
            #[cfg(target_arch = "x86_64")]
            tiles: SmallGemm::of(Isa::in_use(), precision),
        }
    }

    /// Packs an operand, whose rows or columns are dense, in place of the previous one.
    pub(crate) fn take(&mut self, rhs: Matrix<'_, T>) {
        (self.rows, self.columns) = (rhs.rows(), rhs.columns());
        #[cfg(target_arch = "x86_64")]
        if let (Some(tiles), Some(rhs)) = (&mut self.tiles, rhs.as_f32()) {
            return tiles.take(rhs);
        }
        match rhs.column_stride() {
            1 => pack_panels(rhs, &mut self.panels),
            _ => pack_transposed(rhs.t(), &mut self.panels),
        }
        if self.precision == Precision::Bf16 {
            round(&mut self.panels);
        }
    }

    /// GEMM: `out = lhs rhs`, or `out += lhs rhs` if `add`. Where `out` has columns beyond those of the right
    /// operand, up to whole panels, they become zero.
    pub(crate) fn multiply(&mut self, out: &mut MatrixMut<'_, T>, add: bool, lhs: Matrix<'_, T>) {
        let fits = lhs.columns() == self.rows
            && out.rows() == lhs.rows()
            && padded(out.columns()) == padded(self.columns);
        assert!(fits, "operands and product of a small matrix product differ in size");
        assert!(out.initialized() || !add, "cannot add to a product that was never written");
        #[cfg(target_arch = "x86_64")]
        if let (Some(tiles), Some(lhs)) = (&mut self.tiles, lhs.as_f32()) {
            return tiles.multiply(out, add, lhs);
        }
        let lhs = self.left.take(self.precision, lhs);
        let stride = padded(self.columns);
        kernel(out, add, lhs, Matrix::dense(&self.panels, self.rows, stride));
        out.set_initialized();
    }
}

/// Product by the widest registers that the processor has.
fn kernel<T: Float>(out: &mut MatrixMut<'_, T>, add: bool, lhs: Matrix<'_, T>, rhs: Matrix<'_, T>) {
    // SAFETY: the sizes were compared before, and the processor has what `Isa` says.
    unsafe {
        match Isa::in_use() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => with_avx512(out, add, lhs, rhs),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => with_avx2(out, add, lhs, rhs),
            _ => all_tiles::<T, Portable<T>>(out, add, lhs, rhs, 0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<T: Float>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { all_tiles::<T, T::Avx2>(out, add, lhs, rhs, 0) }
}

/// AVX-512: pairs of the widest registers as long as there are columns for them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn with_avx512<T: Float>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
) {
    let (columns, pair) = (out.columns(), 2 * T::Avx512::LANES);
    let whole = columns / pair * pair;
    // SAFETY: compiled for the registers that it uses; each column of tiles ends at or before the last column.
    unsafe {
        for column in (0..whole).step_by(pair) {
            column_of_tiles::<T, T::Avx512, AVX512_ROWS, 2>(out, add, lhs, rhs, column);
        }
        all_tiles::<T, T::Avx2>(out, add, lhs, rhs, whole);
    }
}

/// Tiles of the product from a column on.
///
/// # Safety
/// The sizes fit and the processor has the register `R`, of one panel.
#[inline(always)]
unsafe fn all_tiles<T: Float, R: SimdVector<T>>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    mut column: usize,
) {
    while column < out.columns() {
        // SAFETY: a column of tiles starts inside of `out`, and the right operand is padded.
        unsafe {
            if out.columns() - column > PANEL {
                column_of_tiles::<T, R, TILE_ROWS, 2>(out, add, lhs, rhs, column);
                column += 2 * PANEL;
            } else {
                column_of_tiles::<T, R, TILE_ROWS, 1>(out, add, lhs, rhs, column);
                column += PANEL;
            }
        }
    }
}

/// Column of tiles: `REGISTERS` registers' columns of the product from `column` on, in tiles of `ROWS`.
///
/// # Safety
/// The columns lie within the right operand's rows and the processor has the register `R`.
#[inline(always)]
unsafe fn column_of_tiles<T: Float, R: SimdVector<T>, const ROWS: usize, const REGISTERS: usize>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    column: usize,
) {
    let mut row = 0;
    // SAFETY: each tile ends at or before the last row.
    unsafe {
        while row + ROWS <= out.rows() {
            tile::<T, R, ROWS, REGISTERS>(out, add, lhs, rhs, row, column);
            row += ROWS;
        }
        if row + 4 <= out.rows() {
            tile::<T, R, 4, REGISTERS>(out, add, lhs, rhs, row, column);
            row += 4;
        }
        match out.rows() - row {
            1 => tile::<T, R, 1, REGISTERS>(out, add, lhs, rhs, row, column),
            2 => tile::<T, R, 2, REGISTERS>(out, add, lhs, rhs, row, column),
            3 => tile::<T, R, 3, REGISTERS>(out, add, lhs, rhs, row, column),
            _ => {}
        }
    }
}

/// One tile: `ROWS` rows and `REGISTERS` registers' columns of the product, accumulated in registers.
///
/// # Safety
/// The tile's rows lie within `out`, its columns within the right operand's rows, and the processor
/// has the register `R`.
#[inline(always)]
unsafe fn tile<T: Float, R: SimdVector<T>, const ROWS: usize, const REGISTERS: usize>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    row: usize,
    column: usize,
) {
    let (row_step, step) = (lhs.row_stride(), lhs.column_stride());
    // SAFETY: (row + i, p) lies within the left operand for i < ROWS and p < its columns, and
    // the panels of row p within the right one, whose rows are dense. Element (row + i, column
    // and after) of `out` lies within it, and is read only when it has been written; a panel
    // that reaches past the last column goes through a copy.
    unsafe {
        let mut sums = [[R::zero(); REGISTERS]; ROWS];
        let mut a = lhs.pointer().wrapping_add(row * row_step);
        let mut b = rhs.pointer().wrapping_add(column);
        for _ in 0..lhs.columns() {
            let mut panels = [R::zero(); REGISTERS];
            for (j, panel) in panels.iter_mut().enumerate() {
                *panel = R::load(b.add(j * R::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = R::splat(*a.add(i * row_step));
                for (sum, panel) in sums.iter_mut().zip(panels) {
                    *sum = a.fma(panel, *sum);
                }
            }
            a = a.wrapping_add(step);
            b = b.wrapping_add(rhs.row_stride());
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let first = column + j * R::LANES;
                let c = out.pointer().add((row + i) * out.row_stride() + first);
                let columns = R::LANES.min(out.columns() - first);
                if columns == R::LANES {
                    if add { R::load(c).add(sum) } else { sum }.store(c);
                } else {
                    let mut copy = [T::zero(); 16];
                    sum.store(copy.as_mut_ptr());
                    for (k, &sum) in copy[..columns].iter().enumerate() {
                        let c = c.add(k);
                        c.write(if add { *c + sum } else { sum });
                    }
                }
            }
        }
    }
}

/// Packs the transpose of a block of rows into `workspace`, its rows padded with zeros to whole panels.
fn pack_transposed<T: Float>(block: Matrix<'_, T>, workspace: &mut Vec<T>) {
    workspace.clear();
    let stride = padded(block.rows());
    workspace.resize(block.columns() * stride, T::zero());
    // SAFETY: the workspace has a row of that length for each column.
    unsafe { transpose(block.t(), workspace.as_mut_ptr(), stride) };
}

/// Packs a block of rows into `workspace`, each padded with zeros to whole panels. A copy even where they are such
/// already: rows far apart would conflict in the same few lines of the cache.
fn pack_panels<T: Float>(block: Matrix<'_, T>, workspace: &mut Vec<T>) {
    let stride = padded(block.columns());
    workspace.clear();
    for row in 0..block.rows() {
        workspace.extend_from_slice(block.dense_row(row));
        workspace.resize((row + 1) * stride, T::zero());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn agrees_with_the_general_product() {
        let mut stream = Stream::new(0, "small product", 0, 0);
        let mut numbers = |n: usize| (0..n).map(|_| stream.normal()).collect::<Vec<f64>>();
        for (rows, inner, columns) in
            [(1, 1, 1), (4, 3, 8), (5, 7, 9), (37, 64, 37), (3, 2, 17), (6, 37, 64), (2, 0, 5)]
        {
            for (transposed_left, add) in [(false, false), (true, true), (false, true)] {
                let a = numbers(rows * inner);
                let b = numbers(inner * columns);
                let start = numbers(rows * columns);
                let lhs = if transposed_left {
                    Matrix::dense(&a, inner, rows).t()
                } else {
                    Matrix::dense(&a, rows, inner)
                };
                let rhs = Matrix::dense(&b, inner, columns);
                let (mut want, mut got) = (start.clone(), start.clone());
                let mut out = MatrixMut::dense(&mut want, rows, columns);
                crate::gemm::gemm(&mut out, add, lhs, rhs, Precision::F32, None);
                let mut right = PackedRhs::new(Precision::F32);
                right.take(rhs);
                right.multiply(&mut MatrixMut::dense(&mut got, rows, columns), add, lhs);
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-12, "{rows} {inner} {columns}");
                }
            }
        }
    }

    #[test]
    fn a_transpose_is_padded_with_zeros() {
        let data: Vec<f64> = (0..30).map(f64::from).collect();
        let mut workspace = vec![7.0; 3];
        let block = Matrix::new(&data[2..], 9, 2, 3, 1);
        pack_transposed(block, &mut workspace);
        assert_eq!(workspace.len(), 2 * 16);
        for column in 0..2 {
            for row in 0..16 {
                let want = if row < 9 { data[2 + row * 3 + column] } else { 0.0 };
                assert_eq!(workspace[column * 16 + row], want);
            }
        }
    }
}
