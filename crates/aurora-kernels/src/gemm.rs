//! GEMM (general matrix-matrix multiplication) on slices, packed and blocked for the caches (Goto and van de Geijn
//! 2008, "Anatomy of High-Performance Matrix Multiplication").
//!
//! The right operand is packed into panels in the order in which the micro-kernel reads them (`pack.rs`), a group of
//! columns at a time, by the task that multiplies with them; the left operand is read in place, row by row, or, if it
//! has to be rounded, from a copy of the current block. The micro-kernel (`microkernel.rs`) keeps a tile of the
//! product in registers. Where the processor has dot-product instructions for bf16, bf16 GEMMs have packing and
//! kernels of their own (the folder `bf16`). The epilogue, a bias or a GELU, runs on each piece of the output while
//! it is still in the cache.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
mod matrix;
mod microkernel;
mod pack;
mod transpose;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::float::Float;
use crate::isa::Isa;
use crate::precision::Precision;
use crate::view::{SendPtr, fill_uninit};
pub(crate) use matrix::{Matrix, MatrixMut};
use microkernel::Microkernel;
pub(crate) use pack::LhsBlock;
use pack::Panels;
pub(crate) use transpose::transpose;

/// Epilogue callback for a finished piece of a row of the product: its row, its first column, and the piece.
pub(crate) type EpilogueFn<'a, T> = &'a (dyn Fn(usize, usize, &mut [T]) + Sync);

/// Rows of the left operand that stay in a core's L2 cache while a group of panels passes by; a multiple of the rows
/// of every tile but the widest.
const ROW_BLOCK: usize = 48;
/// Depth multiplied at a time: a panel stays in the L2 cache while the rows pass by, and the product is read and
/// written again as seldom as that allows.
const DEPTH_BLOCK: usize = 1536;
/// Panels of the right operand packed together by a task: the left operand is read once for all of them.
const PANELS: usize = 4;

/// GEMM: `out = lhs rhs`, or `out += lhs rhs` if `add`, with operands in this precision; then `epilogue` on every
/// piece of it.
///
/// Each element is summed along the depth in blocks of a fixed length, so the result does not depend on the number of
/// threads.
pub(crate) fn gemm<T: Float>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
    epilogue: Option<EpilogueFn<'_, T>>,
) {
    Gemm { isa: Isa::in_use(), lhs, rhs, second: None, precision, epilogue, rows_apart: true }
        .write(out, add);
}

/// Dual GEMM: `out` is the sum of two products, of which the second is not deep; then `epilogue` on every piece of
/// it.
pub(crate) fn gemm_dual<T: Float>(
    out: &mut MatrixMut<'_, T>,
    [(lhs, rhs), second]: [(Matrix<'_, T>, Matrix<'_, T>); 2],
    precision: Precision,
    epilogue: Option<EpilogueFn<'_, T>>,
) {
    let second = Some(second).filter(|(lhs, _)| lhs.columns > 0);
    Gemm { isa: Isa::in_use(), lhs, rhs, second, precision, epilogue, rows_apart: true }
        .write(out, false);
}

/// GEMM for callers that are parallel themselves: panels of the right operand are packed once, and rows are not
/// split.
pub(crate) fn gemm_by_columns<T: Float>(
    out: &mut MatrixMut<'_, T>,
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
) {
    let isa = Isa::in_use();
    Gemm { isa, lhs, rhs, second: None, precision, epilogue: None, rows_apart: false }
        .write(out, false);
}

/// One GEMM: operands, instruction set and epilogue.
#[derive(Clone, Copy)]
struct Gemm<'a, T> {
    isa: Isa,
    lhs: Matrix<'a, T>,
    rhs: Matrix<'a, T>,
    /// Operands of a second product, added to the first.
    second: Option<(Matrix<'a, T>, Matrix<'a, T>)>,
    precision: Precision,
    epilogue: Option<EpilogueFn<'a, T>>,
    /// True if tasks may split the rows.
    rows_apart: bool,
}

impl<T: Float> Gemm<'_, T> {
    /// Writes the product to `out`, or adds it.
    fn write(self, out: &mut MatrixMut<'_, T>, add: bool) {
        let Self { isa, lhs, rhs, second, precision, epilogue, .. } = self;
        let by_rows = |lhs: Matrix<'_, T>| lhs.column_stride == 1 || lhs.columns == 1;
        if let Some((left, right)) = second
            && (has_bf16_dot(isa, precision) || lhs.columns == 0 || !by_rows(lhs) || !by_rows(left))
        {
            // One after the other.
            Self { second: None, epilogue: None, ..self }.write(out, add);
            return Self { lhs: left, rhs: right, second: None, ..self }.write(out, true);
        }
        let fits = lhs.columns == rhs.rows && out.rows == lhs.rows && out.columns == rhs.columns;
        assert!(fits, "operands and product of a matrix product differ in size");
        assert!(out.initialized || !add, "cannot add to a product that was never written");
        if out.rows == 0 || out.columns == 0 {
            return;
        }
        if lhs.columns == 0 {
            if !add {
                out.clear();
            }
            out.apply_epilogue(epilogue, (0, 0));
        } else if self.try_bf16_dot(out, add) {
            // Done.
        } else if by_rows(lhs) {
            self.by_panels(out, add);
        } else if lhs.rows > rhs.columns {
            // The transposed product is cheaper: the smaller operand is the one that is copied into rows.
            let transpose = Self { lhs: rhs.t(), rhs: lhs.t(), epilogue: None, ..self };
            // SAFETY: a product that is not added to anything writes every element.
            let transposed = unsafe {
                fill_uninit(out.rows * out.columns, |transposed| {
                    let mut transposed = MatrixMut::uninit(transposed, out.columns, out.rows);
                    transpose.write(&mut transposed, false);
                })
            };
            out.take_transpose(&transposed, add);
            out.apply_epilogue(epilogue, (0, 0));
        } else {
            let rows = lhs.to_row_major();
            let lhs = Matrix::dense(&rows, lhs.rows, lhs.columns);
            Gemm { lhs, ..self }.by_panels(out, add);
        }
    }

    /// Runs the GEMM on bf16 dot-product instructions if the precision is bf16 and there are such; true if it did.
    fn try_bf16_dot(self, out: &mut MatrixMut<'_, T>, add: bool) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(kernel) = bf16::Kernel::of(self.isa, self.precision)
            && let (Some(lhs), Some(rhs)) = (self.lhs.as_f32(), self.rhs.as_f32())
        {
            let (lhs, rhs) = rayon::join(
                || bf16::PackedOperand::of(lhs, bf16::PackOrder::ByLine),
                || bf16::PackedOperand::of(rhs.t(), bf16::PackOrder::ByDepth),
            );
            let blocking =
                Blocking { rows: bf16::TILE_SIDE, columns: bf16::columns(self.lhs.columns) };
            in_tasks(
                out,
                add,
                self.lhs.columns,
                blocking,
                || (),
                |(), out, place| {
                    bf16::one_task(kernel, out, [&lhs, &rhs], place, self.epilogue);
                },
            );
            return true;
        }
        let _ = (out, add);
        false
    }

    /// Runs the GEMM by panels of the right operand; the rows of the left one are dense.
    fn by_panels(self, out: &mut MatrixMut<'_, T>, add: bool) {
        let workspace =
            || Workspace { panels: Panels::new(), second: Panels::new(), block: LhsBlock::new() };
        let rows = if self.rows_apart { ROW_BLOCK } else { self.lhs.rows };
        let blocking = Blocking { rows, columns: PANELS * Panels::<T>::width_by(self.isa) };
        in_tasks(out, add, self.lhs.columns, blocking, workspace, |workspace, out, place| {
            self.one_task(workspace, out, place);
        });
    }

    /// One task's part of the product, from this row and column of it on, added to what has been written of it, in
    /// blocks of the depth and of the rows; the epilogue runs on each block of rows while it is in the L1 cache.
    fn one_task(
        self,
        workspace: &mut Workspace<T>,
        out: &mut MatrixMut<'_, T>,
        (row, column): (usize, usize),
    ) {
        let lhs = self.lhs.from(row, out.rows);
        let rhs = self.rhs.t().from(column, out.columns).t();
        let second = self.second.map(|(lhs, rhs)| {
            workspace.second.fill(self.isa, self.precision, rhs.t().from(column, out.columns).t());
            lhs.from(row, out.rows)
        });
        let mut add = out.initialized;
        for first in (0..lhs.columns).step_by(DEPTH_BLOCK) {
            let depth = DEPTH_BLOCK.min(lhs.columns - first);
            let last = first + depth == lhs.columns;
            workspace.panels.fill(self.isa, self.precision, rhs.from(first, depth));
            for below in (0..out.rows).step_by(ROW_BLOCK) {
                let rows = ROW_BLOCK.min(out.rows - below);
                let lhs = lhs.from(below, rows).t().from(first, depth).t();
                let lhs = workspace.block.take(self.precision, lhs);
                // SAFETY: the rows lie within `out`.
                let mut out = unsafe { out.rows_from(below, rows) };
                Microkernel { panels: &workspace.panels, lhs, add }.multiply(self.isa, &mut out);
                if let Some(lhs) = second.filter(|_| last) {
                    let lhs = workspace.block.take(self.precision, lhs.from(below, rows));
                    Microkernel { panels: &workspace.second, lhs, add: true }
                        .multiply(self.isa, &mut out);
                }
                out.apply_epilogue(self.epilogue.filter(|_| last), (row + below, column));
            }
            add = true;
        }
    }
}

/// True if the processor has dot-product instructions for this precision.
fn has_bf16_dot(isa: Isa, precision: Precision) -> bool {
    #[cfg(target_arch = "x86_64")]
    return bf16::Kernel::of(isa, precision).is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Blocking of a GEMM into tasks.
struct Blocking {
    /// Unit of the rows of a task.
    rows: usize,
    /// Columns of a task.
    columns: usize,
}

/// Runs a GEMM of this depth as parallel tasks, each for a block of its rows and columns. Blocks that a task adds to
/// have been written, others have not. Each thread makes one workspace and keeps it from task to task.
fn in_tasks<T: Float, R>(
    out: &mut MatrixMut<'_, T>,
    add: bool,
    depth: usize,
    by: Blocking,
    workspace: impl Fn() -> R + Sync,
    task: impl Fn(&mut R, &mut MatrixMut<'_, T>, (usize, usize)) + Sync,
) {
    let (rows, columns) = (out.rows, out.columns);
    let work = rows * columns * depth;
    let threads = if work < 1 << 16 { 1 } else { rayon::current_num_threads() };
    let groups = columns.div_ceil(by.columns);
    // Panels are packed once if there are columns enough for all threads; otherwise rows are split too.
    let cuts = match threads {
        1 => 1,
        _ => (3 * threads).div_ceil(groups).min(rows.div_ceil(by.rows)),
    };
    let cut = rows.div_ceil(cuts).next_multiple_of(by.rows);
    let tasks = groups * rows.div_ceil(cut);
    let (row_stride, shared) = (out.row_stride, SendPtr::new(out.data));
    let run = |workspace: &mut R, index: usize| {
        let (row, column) = (index / groups * cut, index % groups * by.columns);
        let (rows, columns) = (cut.min(rows - row), by.columns.min(columns - column));
        // SAFETY: tasks have parts of `out` that do not meet, and each writes all of its own.
        let mut out = unsafe {
            let first = shared.at(row * row_stride + column);
            MatrixMut::shared(first, rows, columns, row_stride, add)
        };
        task(workspace, &mut out, (row, column));
    };
    // A thread takes the next task when it is done with one.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut workspace = workspace();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            run(&mut workspace, index);
        }
    };
    match threads.min(tasks) {
        1 => work(),
        workers => (0..workers).into_par_iter().with_max_len(1).for_each(|_| work()),
    }
    out.initialized = true;
}

/// Workspace of a thread: packed operands.
struct Workspace<T> {
    panels: Panels<T>,
    /// Panels of the second product.
    second: Panels<T>,
    block: LhsBlock<T>,
}

#[cfg(test)]
mod tests;
