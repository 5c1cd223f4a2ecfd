//! Matrix products on slices.
//!
//! The right factor is brought into panels that lie as the inner loop reads them (`pack.rs`), a group of columns at
//! a time, by the task that multiplies with them; the left factor is read where it lies, row by row. The inner loop
//! (`tile.rs`) keeps a tile of the product in registers. What comes after a product, a bias or a GELU, is done to
//! each piece of the output while it is still in the cache.

mod pack;
mod tile;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::element::Real;
use crate::isa::Isa;
use crate::view::Shared;
use pack::Panels;
use tile::Tiles;

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

    /// One element.
    #[inline(always)]
    pub(crate) fn element(&self, row: usize, column: usize) -> T {
        self.data[row * self.row_stride + column * self.column_stride]
    }

    /// A row of a matrix whose rows are dense.
    #[inline(always)]
    pub(crate) fn dense_row(&self, row: usize) -> &'a [T] {
        assert!(self.column_stride == 1 || self.columns <= 1, "rows of a transpose are not dense");
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// `rows` of its rows from `first` on.
    pub(crate) fn from(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows beyond the last of a matrix");
        let data = self.data.get(first * self.row_stride..).unwrap_or_default();
        Self { data, rows, ..self }
    }

    /// The elements row by row, copied.
    fn to_rows(self) -> Vec<T> {
        let mut copy = vec![T::zero(); self.rows * self.columns];
        // Squares, so that neither side strides through memory.
        const SQUARE: usize = 16;
        for row in (0..self.rows).step_by(SQUARE) {
            for column in (0..self.columns).step_by(SQUARE) {
                for i in row..self.rows.min(row + SQUARE) {
                    for j in column..self.columns.min(column + SQUARE) {
                        copy[i * self.columns + j] =
                            self.data[i * self.row_stride + j * self.column_stride];
                    }
                }
            }
        }
        copy
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

    /// Some of its rows.
    ///
    /// # Safety
    /// They exist, and are not reached through `self` while the result lives.
    unsafe fn rows_from(&mut self, first: usize, rows: usize) -> MatrixMut<'_, T> {
        // SAFETY: vouched for by the caller.
        let data = unsafe { self.data.add(first * self.row_stride) };
        MatrixMut { data, rows, lifetime: PhantomData, ..*self }
    }

    /// Part of a row.
    ///
    /// # Safety
    /// It lies within the matrix and has been written.
    unsafe fn piece(&mut self, row: usize, column: usize, columns: usize) -> &mut [T] {
        // SAFETY: vouched for by the caller.
        unsafe {
            let first = self.data.add(row * self.row_stride + column);
            std::slice::from_raw_parts_mut(first, columns)
        }
    }

    /// Writes, or adds, the transpose of a dense matrix.
    fn take_transpose(&mut self, of: &[T], add: bool) {
        const SQUARE: usize = 16;
        assert_eq!(of.len(), self.rows * self.columns);
        for row in (0..self.rows).step_by(SQUARE) {
            for column in (0..self.columns).step_by(SQUARE) {
                for i in row..self.rows.min(row + SQUARE) {
                    for j in column..self.columns.min(column + SQUARE) {
                        // SAFETY: within the matrix; read only where it has been written.
                        unsafe {
                            let to = self.data.add(i * self.row_stride + j);
                            let value = of[j * self.rows + i];
                            to.write(if add { *to + value } else { value });
                        }
                    }
                }
            }
        }
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

/// What is done to a finished piece of a row of a product: its row, its first column, and the piece.
pub(crate) type Finish<'a, T> = &'a (dyn Fn(usize, usize, &mut [T]) + Sync);

/// Rows of the left factor that stay in a core's second cache while a group of panels passes by; a multiple of the
/// rows of every tile but the widest.
const ROW_BLOCK: usize = 48;
/// Columns of the left factor that are multiplied at a time, so that panels stay in the second cache too.
const DEPTH_BLOCK: usize = 768;
/// Columns of the right factor that a task brings into panels.
const COLUMN_GROUP: usize = 64;

/// `out = lhs rhs`, or `out += lhs rhs` where `add` says so; then `finish` on every piece of it.
///
/// Each element is summed along the depth in blocks of a fixed length, so the result is the same whatever the number
/// of threads.
pub(crate) fn multiply<T: Real>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    finish: Option<Finish<'_, T>>,
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
    } else if lhs.column_stride == 1 || lhs.columns == 1 {
        return rows_times_panels(out, add, lhs, rhs, finish);
    } else if lhs.rows > rhs.columns {
        // The transpose is the cheaper product: the smaller factor is the one that is copied into rows.
        let (rows, columns) = (out.rows, out.columns);
        let mut turned = vec![T::zero(); rows * columns];
        multiply(&mut MatrixMut::dense(&mut turned, columns, rows), false, rhs.t(), lhs.t(), None);
        out.take_transpose(&turned, add);
    } else {
        let rows = lhs.to_rows();
        let lhs = Matrix::dense(&rows, lhs.rows, lhs.columns);
        return rows_times_panels(out, add, lhs, rhs, finish);
    }
    if let Some(finish) = finish {
        for row in 0..out.rows {
            // SAFETY: the row lies within `out`, which has been written.
            let piece = unsafe { out.piece(row, 0, out.columns) };
            finish(row, 0, piece);
        }
    }
}

/// The product of a left factor whose rows are dense, tasks of rows and columns in parallel.
fn rows_times_panels<T: Real>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    finish: Option<Finish<'_, T>>,
) {
    let (rows, columns) = (out.rows, out.columns);
    let isa = Isa::in_use();
    let work = rows * columns * lhs.columns;
    let threads = if work < 1 << 16 { 1 } else { rayon::current_num_threads() };
    let groups = columns.div_ceil(COLUMN_GROUP);
    // Panels are made once where there are columns enough to go round; otherwise rows are cut up too.
    let cuts = match threads {
        1 => 1,
        _ => (4 * threads).div_ceil(groups).min(rows.div_ceil(ROW_BLOCK)),
    };
    let cut = rows.div_ceil(cuts).next_multiple_of(ROW_BLOCK);
    let tasks = groups * rows.div_ceil(cut);
    let (row_stride, shared) = (out.row_stride, Shared::new(out.data));
    let run = |panels: &mut Panels<T>, task: usize| {
        let (row, column) = (task / groups * cut, task % groups * COLUMN_GROUP);
        let (rows, columns) = (cut.min(rows - row), COLUMN_GROUP.min(columns - column));
        let lhs = lhs.from(row, rows);
        let rhs = rhs.t().from(column, columns).t();
        // SAFETY: tasks have parts of `out` that do not meet, and each writes all of its own.
        let mut out = unsafe {
            let first = shared.at(row * row_stride + column);
            MatrixMut::shared(first, rows, columns, row_stride, add)
        };
        one_task(isa, panels, &mut out, add, lhs, rhs);
        if let Some(finish) = finish {
            for i in 0..rows {
                // SAFETY: the row lies within the task's part, which has been written.
                finish(row + i, column, unsafe { out.piece(i, 0, columns) });
            }
        }
    };
    // A thread takes the next task when it is done with one, and keeps its room for panels.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut panels = Panels::new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            run(&mut panels, task);
        }
    };
    match threads.min(tasks) {
        1 => work(),
        workers => (0..workers).into_par_iter().with_max_len(1).for_each(|_| work()),
    }
    out.initialised = true;
}

/// One task's part of a product, in blocks of the depth and of the rows.
fn one_task<T: Real>(
    isa: Isa,
    panels: &mut Panels<T>,
    out: &mut MatrixMut<'_, T>,
    mut add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
) {
    for first in (0..lhs.columns).step_by(DEPTH_BLOCK) {
        let depth = DEPTH_BLOCK.min(lhs.columns - first);
        panels.fill(isa, rhs.from(first, depth));
        for row in (0..out.rows).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(out.rows - row);
            let lhs = lhs.from(row, rows).t().from(first, depth).t();
            // SAFETY: the rows lie within `out`.
            let mut out = unsafe { out.rows_from(row, rows) };
            Tiles { panels: &*panels, lhs, add }.multiply(isa, &mut out);
        }
        add = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A matrix with numbers that f32 adds without rounding, so that any order gives the same.
    fn whole(rows: usize, columns: usize, seed: usize) -> Vec<f64> {
        (0..rows * columns).map(|i| ((i * 7 + seed * 13) % 11) as f64 - 5.0).collect()
    }

    fn plain(lhs: &[f64], rhs: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
        let entry = |i: usize, j: usize| (0..k).map(|p| lhs[i * k + p] * rhs[p * n + j]).sum();
        (0..m * n).map(|at| entry(at / n.max(1), at % n.max(1))).collect()
    }

    fn turned<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
        (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect()
    }

    fn check<T: Real>(sizes: [usize; 3], lhs_turned: bool, rhs_turned: bool, add: bool) {
        let [m, k, n] = sizes;
        let (a, b) = (whole(m, k, 1), whole(k, n, 2));
        let want = plain(&a, &b, sizes);
        let of = |values: &[f64]| values.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let (a, b) = (of(&a), of(&b));
        let (a_t, b_t) = (turned(&a, m, k), turned(&b, k, n));
        let lhs = if lhs_turned { Matrix::dense(&a_t, k, m).t() } else { Matrix::dense(&a, m, k) };
        let rhs = if rhs_turned { Matrix::dense(&b_t, n, k).t() } else { Matrix::dense(&b, k, n) };
        let mut got = vec![T::from_f64(3.0); m * n];
        let finish = |row: usize, column: usize, piece: &mut [T]| {
            for (i, x) in piece.iter_mut().enumerate() {
                *x += T::from_f64((row * 2 + column + i) as f64);
            }
        };
        multiply(&mut MatrixMut::dense(&mut got, m, n), add, lhs, rhs, Some(&finish));
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            let start = if add { 3.0 } else { 0.0 };
            let want = want + start + (at / n * 2 + at % n) as f64;
            assert_eq!(got.to_f64(), want, "{sizes:?} {lhs_turned} {rhs_turned} {add} at {at}");
        }
    }

    #[test]
    fn sizes_at_the_edges_of_blocks() {
        for sizes in
            [[1, 1, 1], [48, 768, 64], [49, 769, 65], [6, 1537, 17], [103, 9, 200], [5, 40, 31]]
        {
            check::<f32>(sizes, false, true, false);
            check::<f64>(sizes, true, false, true);
        }
    }

    proptest! {
        #[test]
        fn any_sizes_and_orders(
            m in 0usize..70, k in 0usize..40, n in 0usize..80,
            lhs_turned in any::<bool>(), rhs_turned in any::<bool>(), add in any::<bool>(),
        ) {
            check::<f32>([m, k, n], lhs_turned, rhs_turned, add);
            check::<f64>([m, k, n], lhs_turned, rhs_turned, add);
        }
    }
}
