//! Matrix products on slices.
//!
//! The right factor is brought into panels that lie as the inner loop reads them (`pack.rs`), a group of columns at
//! a time, by the task that multiplies with them; the left factor is read where it lies, row by row, or, where
//! it has to be rounded, from a copy of the block at hand. The inner loop
//! (`tile.rs`) keeps a tile of the product in registers. Where the processor multiplies bf16 itself, products in that
//! precision have panels and loops of their own (the folder `bf16`). What comes after a product, a bias or a GELU, is done to
//! each piece of the output while it is still in the cache.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod matrix;
mod pack;
mod tile;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::element::Real;
use crate::isa::Isa;
use crate::precision::Precision;
use crate::view::Shared;
pub(crate) use matrix::{Matrix, MatrixMut};
use pack::{Block, Panels};
use tile::Tiles;

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
    multiply_by(Isa::in_use(), out, add, lhs, rhs, precision, finish);
}

/// [`multiply`] by these instructions.
fn multiply_by<T: Real>(
    isa: Isa,
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
    } else if by_pairs(isa, out, add, lhs, rhs, precision, finish) {
        return;
    } else if lhs.column_stride == 1 || lhs.columns == 1 {
        return rows_times_panels(isa, out, add, lhs, rhs, precision, finish);
    } else if lhs.rows > rhs.columns {
        // The transpose is the cheaper product: the smaller factor is the one that is copied into rows.
        let (rows, columns) = (out.rows, out.columns);
        let mut turned = vec![T::zero(); rows * columns];
        let mut transpose = MatrixMut::dense(&mut turned, columns, rows);
        multiply_by(isa, &mut transpose, false, rhs.t(), lhs.t(), precision, None);
        out.take_transpose(&turned, add);
    } else {
        let rows = lhs.to_rows();
        let lhs = Matrix::dense(&rows, lhs.rows, lhs.columns);
        return rows_times_panels(isa, out, add, lhs, rhs, precision, finish);
    }
    if let Some(finish) = finish {
        for row in 0..out.rows {
            // SAFETY: the row lies within `out`, which has been written.
            let piece = unsafe { out.piece(row, 0, out.columns) };
            finish(row, 0, piece);
        }
    }
}

/// The product by instructions that multiply bf16, if that is the precision and there are such; says whether it was.
fn by_pairs<T: Real>(
    isa: Isa,
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
    finish: Option<Finish<'_, T>>,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = bf16::Kernel::of(isa, precision)
        && let (Some(lhs), Some(rhs)) = (lhs.singles(), rhs.singles())
    {
        let lhs = bf16::Left::of(lhs);
        in_tasks(out, add, rhs.rows, finish, bf16::Right::new, |right, out, (row, column)| {
            let rhs = rhs.t().from(column, out.columns).t();
            bf16::one_task(kernel, right, out, (&lhs, row), rhs);
        });
        return true;
    }
    let _ = (isa, out, add, lhs, rhs, precision, finish);
    false
}

/// The product of a left factor whose rows are dense.
fn rows_times_panels<T: Real>(
    isa: Isa,
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
    finish: Option<Finish<'_, T>>,
) {
    let room = || Room { panels: Panels::new(), block: Block::new() };
    // A task finishes its rows itself, block by block, while they are in the first cache.
    in_tasks(out, add, lhs.columns, None, room, |room, out, (row, column)| {
        let lhs = lhs.from(row, out.rows);
        let rhs = rhs.t().from(column, out.columns).t();
        let finish = finish
            .map(|finish| move |below: usize, piece: &mut [T]| finish(row + below, column, piece));
        one_task(isa, precision, room, out, lhs, rhs, finish);
    });
}

/// A product of this depth as parallel tasks, each for some rows and columns of it from the given ones on, which then
/// are finished. What a task has to add to has been written, anything else has not. A thread makes one room and keeps
/// it from task to task.
fn in_tasks<T: Real, R>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    depth: usize,
    finish: Option<Finish<'_, T>>,
    room: impl Fn() -> R + Sync,
    task: impl Fn(&mut R, &mut MatrixMut<'_, T>, (usize, usize)) + Sync,
) {
    let (rows, columns) = (out.rows, out.columns);
    let work = rows * columns * depth;
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
    let run = |room: &mut R, index: usize| {
        let (row, column) = (index / groups * cut, index % groups * COLUMN_GROUP);
        let (rows, columns) = (cut.min(rows - row), COLUMN_GROUP.min(columns - column));
        // SAFETY: tasks have parts of `out` that do not meet, and each writes all of its own.
        let mut out = unsafe {
            let first = shared.at(row * row_stride + column);
            MatrixMut::shared(first, rows, columns, row_stride, add)
        };
        task(room, &mut out, (row, column));
        if let Some(finish) = finish {
            for i in 0..rows {
                // SAFETY: the row lies within the task's part, which has been written.
                finish(row + i, column, unsafe { out.piece(i, 0, columns) });
            }
        }
    };
    // A thread takes the next task when it is done with one.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut room = room();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            run(&mut room, index);
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

/// One task's part of a product, added to what has been written of it, in blocks of the depth and of the rows; then
/// `finish` on every row of the part.
fn one_task<T: Real>(
    isa: Isa,
    precision: Precision,
    room: &mut Room<T>,
    out: &mut MatrixMut<'_, T>,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    finish: Option<impl Fn(usize, &mut [T])>,
) {
    let mut add = out.initialised;
    for first in (0..lhs.columns).step_by(DEPTH_BLOCK) {
        let depth = DEPTH_BLOCK.min(lhs.columns - first);
        let last = first + depth == lhs.columns;
        room.panels.fill(isa, precision, rhs.from(first, depth));
        for row in (0..out.rows).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(out.rows - row);
            let lhs = lhs.from(row, rows).t().from(first, depth).t();
            let lhs = room.block.take(precision, lhs);
            // SAFETY: the rows lie within `out`.
            let mut out = unsafe { out.rows_from(row, rows) };
            Tiles { panels: &room.panels, lhs, add }.multiply(isa, &mut out);
            if let Some(finish) = finish.as_ref().filter(|_| last) {
                for below in 0..rows {
                    // SAFETY: the row lies within the block, which has been written.
                    finish(row + below, unsafe { out.piece(below, 0, out.columns) });
                }
            }
        }
        add = true;
    }
}

#[cfg(test)]
mod tests;
