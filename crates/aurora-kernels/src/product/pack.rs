//! The right factor of a product in panels: as wide as two registers, row after row, padded with zeros.

use super::Matrix;
use crate::element::Real;
use crate::isa::Isa;
use crate::register::{Plain, Register};

/// Some columns of a right factor, cut into panels.
pub(super) struct Panels<T> {
    data: Vec<T>,
    /// Rows of the factor that are in the panels.
    depth: usize,
    /// Columns of a panel.
    width: usize,
}

impl<T: Real> Panels<T> {
    pub(super) fn new() -> Self {
        Self { data: Vec::new(), depth: 0, width: 0 }
    }

    /// The panel that begins at this column, a multiple of the width.
    #[inline(always)]
    pub(super) fn at(&self, column: usize) -> &[T] {
        &self.data[column * self.depth..][..self.width * self.depth]
    }

    /// Columns of a panel.
    #[inline(always)]
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Takes all of `rhs` into panels for this set of instructions.
    pub(super) fn fill(&mut self, isa: Isa, rhs: Matrix<'_, T>) {
        // SAFETY: the processor has what `isa` says.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => fill_avx512(self, rhs),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => fill_avx2(self, rhs),
                _ => fill::<T, Plain<T>>(self, rhs),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fill_avx2<T: Real>(panels: &mut Panels<T>, rhs: Matrix<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { fill::<T, T::Wide>(panels, rhs) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn fill_avx512<T: Real>(panels: &mut Panels<T>, rhs: Matrix<'_, T>) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { fill::<T, T::Widest>(panels, rhs) }
}

/// # Safety
/// The processor has the register `R`.
#[inline(always)]
unsafe fn fill<T: Real, R: Register<T>>(panels: &mut Panels<T>, rhs: Matrix<'_, T>) {
    let (width, depth) = (2 * R::LANES, rhs.rows());
    panels.width = width;
    panels.depth = depth;
    panels.data.resize(rhs.columns().next_multiple_of(width) * depth, T::zero());
    for (index, panel) in panels.data.chunks_exact_mut((width * depth).max(1)).enumerate() {
        let column = index * width;
        let columns = width.min(rhs.columns() - column);
        let rhs = rhs.t().from(column, columns).t();
        if columns < width {
            panel.fill(T::zero());
            for row in 0..depth {
                for j in 0..columns {
                    panel[row * width + j] = rhs.element(row, j);
                }
            }
        } else if rhs.column_stride() == 1 {
            for (row, to) in panel.chunks_exact_mut(width).enumerate() {
                to.copy_from_slice(rhs.dense_row(row));
            }
        } else if rhs.row_stride() == 1 {
            // SAFETY: squares of the panel and of the factor lie within them.
            unsafe { turn::<T, R>(panel, rhs) }
        } else {
            for row in 0..depth {
                for j in 0..width {
                    panel[row * width + j] = rhs.element(row, j);
                }
            }
        }
    }
}

/// A whole panel from columns that are dense.
///
/// # Safety
/// The panel has the depth of `rhs`, and the processor the register `R`.
#[inline(always)]
unsafe fn turn<T: Real, R: Register<T>>(panel: &mut [T], rhs: Matrix<'_, T>) {
    let (width, depth, stride) = (2 * R::LANES, rhs.rows(), rhs.column_stride());
    let whole = depth / R::LANES * R::LANES;
    for row in (0..whole).step_by(R::LANES) {
        for column in [0, R::LANES] {
            // SAFETY: LANES rows from `row` and LANES columns from `column` exist on both sides.
            unsafe {
                let from = rhs.pointer().add(row + column * stride);
                R::turn(from, stride, panel.as_mut_ptr().add(row * width + column), width);
            }
        }
    }
    for row in whole..depth {
        for j in 0..width {
            panel[row * width + j] = rhs.element(row, j);
        }
    }
}
