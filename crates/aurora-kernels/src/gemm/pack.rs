//! GEMM packing: the right operand in panels as wide as two registers, row after row, padded with zeros; the left one
//! in place, or rounded in a copy.

use super::{Matrix, transpose};
use crate::float::Float;
use crate::isa::Isa;
use crate::precision::{Precision, round, round_to};
use crate::simd::{Portable, SimdVector};

/// Cache line in bytes. Rows of panels begin with one, so that no register is read from two.
const LINE: usize = 64;

/// Packed panels of some columns of a right operand.
pub(super) struct Panels<T> {
    data: Vec<T>,
    /// Start of the first panel.
    start: usize,
    /// Depth of the panels.
    depth: usize,
    /// Panel width in columns.
    width: usize,
}

impl<T: Float> Panels<T> {
    pub(super) fn new() -> Self {
        Self { data: Vec::new(), start: 0, depth: 0, width: 0 }
    }

    /// Panel that begins at this column, a multiple of the width.
    #[inline(always)]
    pub(super) fn at(&self, column: usize) -> &[T] {
        &self.data[self.start + column * self.depth..][..self.width * self.depth]
    }

    /// Panel width in columns.
    #[inline(always)]
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Panel width in columns, for this instruction set.
    pub(super) fn width_by(isa: Isa) -> usize {
        2 * match isa {
            Isa::Plain => Portable::<T>::LANES,
            Isa::Avx2 => T::Avx2::LANES,
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => T::Avx512::LANES,
        }
    }

    /// Packs all of `rhs` for this instruction set, in this precision.
    pub(super) fn fill(&mut self, isa: Isa, precision: Precision, rhs: Matrix<'_, T>) {
        // SAFETY: the processor has what `isa` says.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => fill_avx512(self, precision, rhs),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => fill_avx2(self, precision, rhs),
                _ => fill::<T, Portable<T>>(self, precision, rhs),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fill_avx2<T: Float>(panels: &mut Panels<T>, precision: Precision, rhs: Matrix<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { fill::<T, T::Avx2>(panels, precision, rhs) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn fill_avx512<T: Float>(panels: &mut Panels<T>, precision: Precision, rhs: Matrix<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { fill::<T, T::Avx512>(panels, precision, rhs) }
}

/// # Safety
/// The processor has the register `R`.
#[inline(always)]
unsafe fn fill<T: Float, R: SimdVector<T>>(
    panels: &mut Panels<T>,
    precision: Precision,
    rhs: Matrix<'_, T>,
) {
    let (width, depth) = (2 * R::LANES, rhs.rows());
    panels.width = width;
    panels.depth = depth;
    let count = rhs.columns().next_multiple_of(width) * depth;
    panels.data.resize(count + LINE / size_of::<T>(), T::zero());
    panels.start = panels.data.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
    let data = &mut panels.data[panels.start..][..count];
    let size = (width * depth).max(1);
    let whole = rhs.columns() / width;
    let (filled, rest) = data.split_at_mut(whole * size);
    if rhs.column_stride() == 1 {
        // Row by row, so that memory is read as it lies.
        for row in 0..depth {
            for (from, panel) in
                rhs.dense_row(row).chunks_exact(width).zip(filled.chunks_exact_mut(size))
            {
                panel[row * width..][..width].copy_from_slice(from);
            }
        }
    } else {
        for (index, panel) in filled.chunks_exact_mut(size).enumerate() {
            let rhs = rhs.t().from(index * width, width).t();
            if rhs.row_stride() == 1 {
                // SAFETY: the panel has as many rows and columns as the operand.
                unsafe { transpose::in_registers::<T, R>(rhs, panel.as_mut_ptr(), width) }
            } else {
                copy(panel, width, rhs);
            }
        }
    }
    if !rest.is_empty() {
        rest.fill(T::zero());
        let first = whole * width;
        copy(rest, width, rhs.t().from(first, rhs.columns() - first).t());
    }
    if precision == Precision::Bf16 {
        round(data);
    }
}

/// Copies any columns to the beginning of each row of a panel, element by element.
fn copy<T: Float>(panel: &mut [T], width: usize, rhs: Matrix<'_, T>) {
    for (row, to) in panel.chunks_exact_mut(width).enumerate() {
        for (column, to) in to[..rhs.columns()].iter_mut().enumerate() {
            *to = rhs.element(row, column);
        }
    }
}

/// Buffer for a block of a left operand.
pub(crate) struct LhsBlock<T>(Vec<T>);

impl<T: Float> LhsBlock<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Left operand in this precision: `lhs`, whose rows or columns are dense, itself if nothing is to be rounded,
    /// else a copy in this buffer with the same layout.
    pub(crate) fn take<'a>(
        &'a mut self,
        precision: Precision,
        lhs: Matrix<'a, T>,
    ) -> Matrix<'a, T> {
        if precision == Precision::F32 {
            return lhs;
        }
        if lhs.column_stride() != 1 && lhs.row_stride() == 1 {
            return self.take(precision, lhs.t()).t();
        }
        let (rows, columns) = (lhs.rows(), lhs.columns());
        self.0.resize(rows * columns, T::zero());
        for (row, to) in self.0.chunks_exact_mut(columns.max(1)).enumerate() {
            round_to(to, lhs.dense_row(row));
        }
        Matrix::dense(&self.0, rows, columns)
    }
}
