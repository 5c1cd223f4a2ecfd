//! Matrix views on slices: one to read, of any strides, and one to write, row by row.

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::EpilogueFn;
use super::transpose::transpose;
use crate::float::Float;
use crate::view::fill_uninit;

/// Elements from which on a copy runs in parallel.
const LARGE: usize = 1 << 17;
/// Rows per task of such a copy.
const STRIP: usize = 64;

/// Read-only matrix view of any strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T: Float> Matrix<'a, T> {
    /// View whose first element is the first of `data`.
    pub(crate) fn new(
        data: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        check_extent(data.len(), rows, columns, row_stride, column_stride);
        Self { data, rows, columns, row_stride, column_stride }
    }

    /// Dense row-major view.
    pub(crate) fn dense(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::new(data, rows, columns, columns, 1)
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Row stride in elements.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Column stride in elements.
    #[inline(always)]
    pub(crate) fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// Pointer to the first element.
    #[inline(always)]
    pub(crate) fn pointer(&self) -> *const T {
        self.data.as_ptr()
    }

    /// Element at a row and a column.
    #[inline(always)]
    pub(crate) fn element(&self, row: usize, column: usize) -> T {
        self.data[row * self.row_stride + column * self.column_stride]
    }

    /// Row of a matrix whose rows are dense.
    #[inline(always)]
    pub(crate) fn dense_row(&self, row: usize) -> &'a [T] {
        assert!(self.column_stride == 1 || self.columns <= 1, "rows of a transpose are not dense");
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// Submatrix of `rows` rows from `first` on.
    pub(crate) fn from(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows beyond the last of a matrix");
        let data = self.data.get(first * self.row_stride..).unwrap_or_default();
        Self { data, rows, ..self }
    }

    /// View as f32, if that is the element type.
    pub(crate) fn as_f32(self) -> Option<Matrix<'a, f32>> {
        let Self { data, rows, columns, row_stride, column_stride } = self;
        (TypeId::of::<T>() == TypeId::of::<f32>()).then(|| {
            // SAFETY: the two types are one.
            let data = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), data.len()) };
            Matrix { data, rows, columns, row_stride, column_stride }
        })
    }

    /// Row-major copy of the elements.
    pub(crate) fn to_row_major(self) -> Vec<T> {
        let Self { rows, columns, .. } = self;
        if rows * columns == 0 {
            return Vec::new();
        }
        let strip = if rows * columns < LARGE { rows } else { STRIP };
        // SAFETY: the strips are together all rows, and each is written from end to end.
        unsafe {
            fill_uninit(rows * columns, |copy: &mut [MaybeUninit<T>]| {
                copy.par_chunks_mut(strip * columns).enumerate().for_each(|(index, copy)| {
                    let first = index * strip;
                    let from = self.from(first, strip.min(rows - first));
                    if from.row_stride == 1 {
                        return transpose(from, copy.as_mut_ptr().cast(), columns);
                    }
                    in_squares(from.rows, columns, |i, j| {
                        copy[i * columns + j].write(from.element(i, j));
                    });
                });
            })
        }
    }

    /// Transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Writable matrix view: dense rows with a row stride.
pub(crate) struct MatrixMut<'a, T> {
    pub(super) data: *mut T,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) initialized: bool,
    lifetime: PhantomData<&'a mut T>,
}

impl<'a, T: Float> MatrixMut<'a, T> {
    /// Dense row-major view.
    pub(crate) fn dense(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        check_extent(data.len(), rows, columns, columns, 1);
        let data = data.as_mut_ptr();
        Self { data, rows, columns, row_stride: columns, initialized: true, lifetime: PhantomData }
    }

    /// Dense row-major view of elements that are yet to be written.
    pub(crate) fn uninit(data: &'a mut [MaybeUninit<T>], rows: usize, columns: usize) -> Self {
        check_extent(data.len(), rows, columns, columns, 1);
        let data = data.as_mut_ptr().cast();
        Self { data, rows, columns, row_stride: columns, initialized: false, lifetime: PhantomData }
    }

    /// View into a larger buffer that other tasks write to at the same time.
    ///
    /// # Safety
    /// For the lifetime, nobody else touches these elements; `initialized` is true only if
    /// all of them have been written.
    pub(crate) unsafe fn shared(
        data: *mut T,
        rows: usize,
        columns: usize,
        row_stride: usize,
        initialized: bool,
    ) -> Self {
        Self { data, rows, columns, row_stride, initialized, lifetime: PhantomData }
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Row stride in elements.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Pointer to the first element.
    #[inline(always)]
    pub(crate) fn pointer(&mut self) -> *mut T {
        self.data
    }

    /// True if the elements have been written.
    #[inline(always)]
    pub(crate) fn initialized(&self) -> bool {
        self.initialized
    }

    /// Marks the elements as written.
    pub(crate) fn set_initialized(&mut self) {
        self.initialized = true;
    }

    /// Submatrix of some rows.
    ///
    /// # Safety
    /// They exist, and are not reached through `self` while the result lives.
    pub(super) unsafe fn rows_from(&mut self, first: usize, rows: usize) -> MatrixMut<'_, T> {
        // SAFETY: vouched for by the caller.
        let data = unsafe { self.data.add(first * self.row_stride) };
        MatrixMut { data, rows, lifetime: PhantomData, ..*self }
    }

    /// Runs `epilogue` on every row of a matrix that has been written and begins at this row and column of a product.
    pub(super) fn apply_epilogue(
        &mut self,
        epilogue: Option<EpilogueFn<'_, T>>,
        (row, column): (usize, usize),
    ) {
        let Some(epilogue) = epilogue else { return };
        assert!(self.initialized, "cannot epilogue what was never written");
        for below in 0..self.rows {
            // SAFETY: the row lies within the matrix, which has been written.
            let piece = unsafe {
                std::slice::from_raw_parts_mut(self.data.add(below * self.row_stride), self.columns)
            };
            epilogue(row + below, column, piece);
        }
    }

    /// Writes or adds the transpose of a dense matrix.
    pub(super) fn take_transpose(&mut self, of: &[T], add: bool) {
        assert_eq!(of.len(), self.rows * self.columns);
        let of = Matrix::dense(of, self.columns, self.rows).t();
        if add {
            in_squares(self.rows, self.columns, |i, j| {
                // SAFETY: within the matrix, which has been written.
                unsafe { *self.data.add(i * self.row_stride + j) += of.element(i, j) };
            });
        } else {
            // SAFETY: rows of the matrix.
            unsafe { transpose(of, self.data, self.row_stride) };
        }
        self.initialized = true;
    }

    /// Fills the matrix with zeros.
    pub(crate) fn clear(&mut self) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                // SAFETY: inside of the extent that the constructors checked or were vouched for.
                unsafe { self.data.add(row * self.row_stride + column).write(T::zero()) };
            }
        }
        self.initialized = true;
    }
}

/// Visits every row and column, square by square, so that neither side of a transpose strides through memory.
#[inline(always)]
fn in_squares(rows: usize, columns: usize, mut each: impl FnMut(usize, usize)) {
    const SQUARE: usize = 16;
    for row in (0..rows).step_by(SQUARE) {
        for column in (0..columns).step_by(SQUARE) {
            for i in row..rows.min(row + SQUARE) {
                for j in column..columns.min(column + SQUARE) {
                    each(i, j);
                }
            }
        }
    }
}

/// Asserts that the last element of a strided matrix lies inside its slice.
fn check_extent(len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) {
    let inside =
        rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len;
    assert!(inside, "a matrix of {rows} x {columns} elements reaches past its {len} elements");
}
