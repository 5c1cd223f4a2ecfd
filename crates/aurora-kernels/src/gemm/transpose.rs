//! Matrix transpose by squares of a register's length.

use super::Matrix;
use crate::float::Float;
use crate::isa::Isa;
use crate::simd::{Portable, SimdVector};

/// Transposes `from`, whose columns are dense, to rows at `to`, `step` elements apart.
///
/// # Safety
/// All of those rows lie within memory that nobody else touches.
pub(crate) unsafe fn transpose<T: Float>(from: Matrix<'_, T>, to: *mut T, step: usize) {
    // SAFETY: the processor has what `Isa` says; the rest is vouched for by the caller.
    unsafe {
        match Isa::in_use() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => with_avx512(from, to, step),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => with_avx2(from, to, step),
            _ => in_registers::<T, Portable<T>>(from, to, step),
        }
    }
}

/// # Safety
/// As [`transpose`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2<T: Float>(from: Matrix<'_, T>, to: *mut T, step: usize) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { in_registers::<T, T::Avx2>(from, to, step) }
}

/// # Safety
/// As [`transpose`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn with_avx512<T: Float>(from: Matrix<'_, T>, to: *mut T, step: usize) {
    // SAFETY: compiled for the registers that it uses.
    unsafe { in_registers::<T, T::Avx512>(from, to, step) }
}

/// Transposes like [`transpose`], in squares of the register `R`, and element by element what is left.
///
/// # Safety
/// As [`transpose`], and the processor has the register.
#[inline(always)]
pub(super) unsafe fn in_registers<T: Float, R: SimdVector<T>>(
    from: Matrix<'_, T>,
    to: *mut T,
    step: usize,
) {
    let (rows, columns, stride) = (from.rows(), from.columns(), from.column_stride());
    assert!(from.row_stride() == 1 || rows <= 1, "columns of a matrix in rows are not dense");
    let [whole_rows, whole_columns] = [rows, columns].map(|n| n / R::LANES * R::LANES);
    for row in (0..whole_rows).step_by(R::LANES) {
        for column in (0..whole_columns).step_by(R::LANES) {
            // SAFETY: LANES rows from `row` and LANES columns from `column` exist on both sides.
            unsafe {
                let square = from.pointer().add(row + column * stride);
                R::transpose_tile(square, stride, to.add(row * step + column), step);
            }
        }
    }
    for row in 0..rows {
        let first = if row < whole_rows { whole_columns } else { 0 };
        for column in first..columns {
            // SAFETY: the row and the column exist on both sides.
            unsafe { to.add(row * step + column).write(from.element(row, column)) };
        }
    }
}
