//! Matrix products on slices.
//!
//! The right factor is brought into panels that lie as the inner loop reads them (`pack.rs`), a group of columns at
//! a time, by the task that multiplies with them; the left factor is read where it lies, row by row, or, where
//! it has to be rounded, from a copy of the block at hand. The inner loop
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
use crate::precision::Precision;
use crate::view::Shared;
use pack::{Block, Panels};
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

/// `out = lhs rhs`, or `out += lhs rhs` where `add` says so, of the factors in this precision; then `finish` on every
/// piece of it.
///
/// Each element is summed along the depth in blocks of a fixed length, so the result is the same whatever the number
/// of threads.
pub(crate) fn multiply<T: Real>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
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
        return rows_times_panels(out, add, lhs, rhs, precision, finish);
    } else if lhs.rows > rhs.columns {
        // The transpose is the cheaper product: the smaller factor is the one that is copied into rows.
        let (rows, columns) = (out.rows, out.columns);
        let mut turned = vec![T::zero(); rows * columns];
        let mut transpose = MatrixMut::dense(&mut turned, columns, rows);
        multiply(&mut transpose, false, rhs.t(), lhs.t(), precision, None);
        out.take_transpose(&turned, add);
    } else {
        let rows = lhs.to_rows();
        let lhs = Matrix::dense(&rows, lhs.rows, lhs.columns);
        return rows_times_panels(out, add, lhs, rhs, precision, finish);
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
    precision: Precision,
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
    let run = |room: &mut Room<T>, task: usize| {
        let (row, column) = (task / groups * cut, task % groups * COLUMN_GROUP);
        let (rows, columns) = (cut.min(rows - row), COLUMN_GROUP.min(columns - column));
        let lhs = lhs.from(row, rows);
        let rhs = rhs.t().from(column, columns).t();
        // SAFETY: tasks have parts of `out` that do not meet, and each writes all of its own.
        let mut out = unsafe {
            let first = shared.at(row * row_stride + column);
            MatrixMut::shared(first, rows, columns, row_stride, add)
        };
        one_task(isa, precision, room, &mut out, add, lhs, rhs);
        if let Some(finish) = finish {
            for i in 0..rows {
                // SAFETY: the row lies within the task's part, which has been written.
                finish(row + i, column, unsafe { out.piece(i, 0, columns) });
            }
        }
    };
    // A thread takes the next task when it is done with one, and keeps its room.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut room = Room { panels: Panels::new(), block: Block::new() };
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            run(&mut room, task);
        }
    };
    match threads.min(tasks) {
        1 => work(),
        workers => (0..workers).into_par_iter().with_max_len(1).for_each(|_| work()),
    }
    out.initialised = true;
}

/// What a thread keeps of the factors.
struct Room<T> {
    panels: Panels<T>,
    block: Block<T>,
}

/// One task's part of a product, in blocks of the depth and of the rows.
fn one_task<T: Real>(
    isa: Isa,
    precision: Precision,
    room: &mut Room<T>,
    out: &mut MatrixMut<'_, T>,
    mut add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
) {
    for first in (0..lhs.columns).step_by(DEPTH_BLOCK) {
        let depth = DEPTH_BLOCK.min(lhs.columns - first);
        room.panels.fill(isa, precision, rhs.from(first, depth));
        for row in (0..out.rows).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(out.rows - row);
            let lhs = lhs.from(row, rows).t().from(first, depth).t();
            let lhs = room.block.take(precision, lhs);
            // SAFETY: the rows lie within `out`.
            let mut out = unsafe { out.rows_from(row, rows) };
            Tiles { panels: &room.panels, lhs, add }.multiply(isa, &mut out);
        }
        add = true;
    }
}

#[cfg(test)]
mod tests;
