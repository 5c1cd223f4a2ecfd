//! Matrix products on slices, through the `gemm` crate.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

pub(crate) use gemm::Parallelism;

use crate::element::Real;

/// A matrix to read, of any strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// A matrix whose first element is the first of `data`.
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

    /// A dense matrix, row by row.
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

    /// Elements from one row to the next.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Elements from one column to the next.
    #[inline(always)]
    pub(crate) fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// The first element.
    #[inline(always)]
    pub(crate) fn pointer(&self) -> *const T {
        self.data.as_ptr()
    }

    /// A row of a matrix whose rows are dense.
    #[inline(always)]
    pub(crate) fn dense_row(&self, row: usize) -> &'a [T] {
        assert!(self.column_stride == 1 || self.columns <= 1, "rows of a transpose are not dense");
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// The transpose, without moving anything.
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

/// A matrix to write, row by row with a distance between rows.
pub(crate) struct MatrixMut<'a, T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    initialised: bool,
    lifetime: PhantomData<&'a mut T>,
}

impl<'a, T: Real> MatrixMut<'a, T> {
    /// A dense matrix, row by row.
    pub(crate) fn dense(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        check_extent(data.len(), rows, columns, columns, 1);
        let data = data.as_mut_ptr();
        Self { data, rows, columns, row_stride: columns, initialised: true, lifetime: PhantomData }
    }

    /// A dense matrix, row by row, whose elements are yet to be written.
    pub(crate) fn fresh(data: &'a mut [MaybeUninit<T>], rows: usize, columns: usize) -> Self {
        check_extent(data.len(), rows, columns, columns, 1);
        let data = data.as_mut_ptr().cast();
        Self { data, rows, columns, row_stride: columns, initialised: false, lifetime: PhantomData }
    }

    /// A matrix inside of a larger buffer that other tasks write to at the same time.
    ///
    /// # Safety
    /// For the lifetime, nobody else touches these elements; `initialised` is true only if
    /// all of them have been written.
    pub(crate) unsafe fn shared(
        data: *mut T,
        rows: usize,
        columns: usize,
        row_stride: usize,
        initialised: bool,
    ) -> Self {
        Self { data, rows, columns, row_stride, initialised, lifetime: PhantomData }
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

    /// Elements from one row to the next.
    #[inline(always)]
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The first element.
    #[inline(always)]
    pub(crate) fn pointer(&mut self) -> *mut T {
        self.data
    }

    /// Whether the elements have been written.
    #[inline(always)]
    pub(crate) fn initialised(&self) -> bool {
        self.initialised
    }

    /// Notes that the elements have been written.
    pub(crate) fn set_initialised(&mut self) {
        self.initialised = true;
    }

    /// Writes zero everywhere.
    pub(crate) fn clear(&mut self) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                // SAFETY: inside of the extent that the constructors checked or were vouched for.
                unsafe { self.data.add(row * self.row_stride + column).write(T::zero()) };
            }
        }
        self.initialised = true;
    }
}

/// The last element of a strided matrix must lie inside of its slice.
fn check_extent(len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) {
    let inside =
        rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len;
    assert!(inside, "a matrix of {rows} x {columns} elements reaches past its {len} elements");
}

/// `out = scale * lhs rhs`, or `out += scale * lhs rhs` where `add` says so.
///
/// Each element is summed in an order that depends on the shapes alone, so the result is the
/// same from run to run.
pub(crate) fn multiply<T: Real>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    scale: T,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    parallelism: Parallelism,
) {
    let fits = lhs.columns == rhs.rows && out.rows == lhs.rows && out.columns == rhs.columns;
    assert!(fits, "factors and product of a matrix product differ in size");
    assert!(out.initialised || !add, "cannot add to a product that was never written");
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    if lhs.columns == 0 {
        if !add {
            out.clear();
        }
        return;
    }
    // SAFETY: the extents of all three were checked when they were made, `out` is borrowed
    // mutably or vouched for, and it is read only when it has been written.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            lhs.columns,
            out.data,
            1,
            out.row_stride as isize,
            add,
            lhs.data.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
    out.initialised = true;
}

/// All threads of the pool.
pub(crate) fn all_threads() -> Parallelism {
    Parallelism::Rayon(0)
}
