//! bf16 GEMM on instructions that multiply pairs: AMX, or AVX-512 BF16.
//!
//! Both operands are packed once for the whole product into tiles of 1 KiB, which hold the pairs of 32 depths
//! (`pack.rs`): of 16 rows of the left one, row by row; of 16 columns of the right one, pair by pair. Either kernel
//! computes 32 rows and columns of the product from two tiles of each side and accumulates along the depth in
//! registers: AMX in four tiles of f32 (`amx.rs`), AVX-512 in sixteen registers for eight rows at a time
//! (`avx512.rs`). Tiles are padded with zeros; a block that reaches past the product goes through a copy.
//!
//! Both instructions treat subnormal operands as zero and flush subnormal sums to zero, whatever the thread's mode
//! is.

use std::mem::MaybeUninit;

mod amx;
mod avx512;
mod pack;

use super::microkernel::prefetch;
use super::{EpilogueFn, Matrix, MatrixMut};
use crate::float::Float;
use crate::isa::Isa;
use crate::precision::Precision;
use pack::{LINES, Tile};
pub(super) use pack::{PackOrder, PackedOperand};

/// Rows and columns of the product per kernel call.
pub(super) const TILE_SIDE: usize = 2 * LINES;

/// Kernel by instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Avx512,
    Amx,
}

impl Kernel {
    /// Kernel for this precision and instruction set, if there is one.
    pub(super) fn of(isa: Isa, precision: Precision) -> Option<Self> {
        match (precision, isa) {
            (Precision::Bf16, Isa::Amx) => Some(Self::Amx),
            (Precision::Bf16, Isa::Avx512Bf16) => Some(Self::Avx512),
            _ => None,
        }
    }

    /// Tiles along the depth that are summed before the sum goes to memory: each tile makes AVX-512's chain of
    /// additions longer, but not AMX's.
    fn depth_block(self) -> usize {
        match self {
            Self::Avx512 => 12,
            Self::Amx => usize::MAX,
        }
    }
}

/// Columns of the product that a task covers before it takes the next 32 rows: those of the right operand stay in a
/// core's L2 cache.
pub(super) fn columns(depth: usize) -> usize {
    const BYTES: usize = 1 << 20;
    (BYTES / size_of::<u16>() / depth.max(1) / TILE_SIDE * TILE_SIDE)
        .clamp(2 * TILE_SIDE, 16 * TILE_SIDE)
}

/// Operands and output of a kernel call: two rows of tiles from the left, two columns of tiles from the right, and 32
/// rows and columns of sums.
#[derive(Clone, Copy)]
struct Step {
    /// The first tile of the first 16 rows; those of the next 16 are `step` bytes on.
    left: *const Tile,
    /// The first tile of the first 16 columns; those of the next 16 are `step` bytes on.
    right: *const Tile,
    step: usize,
    /// Tiles along the depth.
    tiles: usize,
    /// Sums, rows `out_step` bytes apart.
    out: *mut f32,
    out_step: usize,
    /// True to add to the existing output.
    add: bool,
}

/// One task's part of a product, from this row and column of it on, multiples of 16, added to what has been written
/// of it; the epilogue runs on each 32 rows while they are in the cache. Elements of `out` are f32.
pub(super) fn one_task<T: Float>(
    kernel: Kernel,
    out: &mut MatrixMut<'_, T>,
    [lhs, rhs]: [&PackedOperand; 2],
    (row, column): (usize, usize),
    epilogue: Option<EpilogueFn<'_, T>>,
) {
    // SAFETY: the processor has what the kernel is made of.
    let _registers = (kernel == Kernel::Amx).then(|| unsafe { amx::Registers::take() });
    for i in (0..out.rows).step_by(TILE_SIDE) {
        // SAFETY: the rows lie within `out`.
        let mut out = unsafe { out.rows_from(i, TILE_SIDE.min(out.rows - i)) };
        for j in (0..out.columns).step_by(TILE_SIDE) {
            // SAFETY: as above.
            unsafe { square(kernel, &mut out, j, [lhs, rhs], [row + i, column + j]) };
        }
        out.set_initialized();
        out.apply_epilogue(epilogue, (row + i, column));
    }
}

/// Single-threaded GEMM whose packed right operand stays from one product to the next.
pub(crate) struct SmallGemm {
    kernel: Kernel,
    left: PackedOperand,
    right: PackedOperand,
}

impl SmallGemm {
    /// Single-threaded GEMM for this precision and instruction set, if there is a kernel for them.
    pub(crate) fn of(isa: Isa, precision: Precision) -> Option<Self> {
        let kernel = Kernel::of(isa, precision)?;
        Some(Self { kernel, left: PackedOperand::default(), right: PackedOperand::default() })
    }

    /// Packs another right operand.
    pub(crate) fn take(&mut self, rhs: Matrix<'_, f32>) {
        self.right.take(rhs.t(), PackOrder::ByDepth);
    }

    /// Product of `lhs` and the packed right operand, which has the columns of `out` or fewer: the others become
    /// zero. Elements of `out` are f32.
    pub(crate) fn multiply<T: Float>(
        &mut self,
        out: &mut MatrixMut<'_, T>,
        add: bool,
        lhs: Matrix<'_, f32>,
    ) {
        self.left.take(lhs, PackOrder::ByLine);
        let (rows, columns, step) = (out.rows, out.columns, out.row_stride);
        // SAFETY: the same matrix, which is not touched meanwhile; what is added to has been written.
        let mut to = unsafe { MatrixMut::shared(out.data, rows, columns, step, add) };
        one_task(self.kernel, &mut to, [&self.left, &self.right], (0, 0), None);
        out.set_initialized();
    }
}

/// One kernel call: up to 32 rows and columns of a product, from column `j` of `out` and these lines of the operands
/// on.
///
/// # Safety
/// The processor has the kernel's instructions, and the registers of AMX have been taken.
unsafe fn square<T: Float>(
    kernel: Kernel,
    out: &mut MatrixMut<'_, T>,
    j: usize,
    factors: [&PackedOperand; 2],
    lines: [usize; 2],
) {
    let (rows, columns) = (out.rows, TILE_SIDE.min(out.columns - j));
    let deep = factors[0].deep();
    let mut copy = MaybeUninit::<[[f32; TILE_SIDE]; TILE_SIDE]>::uninit();
    // SAFETY: there are that many tiles of both operands, two deep on each side; of the product 32 rows and columns, or
    // a copy of as many. What is added to has been written.
    unsafe {
        let place = out.data.add(j).cast::<f32>();
        let whole = rows == TILE_SIDE && columns == TILE_SIDE;
        let (to, to_step) =
            if whole { (place, out.row_stride) } else { (copy.as_mut_ptr().cast(), TILE_SIDE) };
        let mut add = whole && out.initialized;
        for i in 0..TILE_SIDE {
            prefetch(to.add(i * to_step));
            prefetch(to.add(i * to_step + LINES));
        }
        let step = deep * size_of::<Tile>();
        for first in (0..deep).step_by(kernel.depth_block()) {
            let [left, right] = [0, 1].map(|side| factors[side].from(lines[side]).add(first));
            let tiles = kernel.depth_block().min(deep - first);
            let out_step = to_step * size_of::<f32>();
            kernel.run(Step { left, right, step, tiles, out: to, out_step, add }, rows);
            add = true;
        }
        if !whole {
            let from = copy.as_ptr().cast::<f32>();
            for i in 0..rows {
                for k in 0..columns {
                    let (sum, to) =
                        (*from.add(i * TILE_SIDE + k), place.add(i * out.row_stride + k));
                    to.write(if out.initialized { *to + sum } else { sum });
                }
            }
        }
    }
}

impl Kernel {
    /// Runs the kernel on `rows` rows.
    ///
    /// # Safety
    /// The processor has the kernel's instructions, and the registers of AMX have been taken; everything that the
    /// step points to exists, `rows` rounded up to whole eights of the sums.
    #[inline(always)]
    unsafe fn run(self, step: Step, rows: usize) {
        // SAFETY: vouched for by the caller.
        unsafe {
            match self {
                Self::Amx => amx::run(step),
                Self::Avx512 => avx512::run(step, rows),
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod emulator;
#[cfg(test)]
mod tests;
