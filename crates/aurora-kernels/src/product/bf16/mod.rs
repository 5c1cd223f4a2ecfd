//! Products of bf16 by the instructions that multiply pairs of them: AMX, or AVX-512 BF16.
//!
//! Both factors are cut into tiles of 1 KiB, which hold the pairs of 32 depths (`pack.rs`): of 16 rows of the left one,
//! row by row, once for the whole product; of 16 columns of the right one, pair by pair, by the task that multiplies
//! with them. Either kernel takes two tiles of each side to 32 rows and columns of the product, and adds such steps
//! down a block of the depth in registers: AMX in four tiles of f32 (`amx.rs`), AVX-512 in sixteen registers for eight
//! rows at a time (`avx512.rs`). Tiles are filled up with zeros, and what reaches past the product goes by a copy.
//!
//! Both instructions take subnormal factors for zero and give zero for a subnormal sum, whatever the thread's mode is.

mod amx;
mod avx512;
mod pack;

use super::{Matrix, MatrixMut};
use crate::element::Real;
use crate::isa::Isa;
use crate::precision::Precision;
use pack::{DEPTHS, LINES, Tile};
pub(super) use pack::{Left, Right};

/// Depths that are summed before the sum goes to memory: the right factor's tiles for 32 columns take 24 KiB then, and
/// stay in a core's first cache while the left factor's pass by.
const DEPTH_BLOCK: usize = 1536;
/// Columns of the right factor that a task brings into tiles.
pub(super) const COLUMNS: usize = 128;
/// Rows and columns of the product that are summed at a time.
const SIDE: usize = 2 * LINES;

/// Which instructions multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Avx512,
    Amx,
}

impl Kernel {
    /// The kernel for products in this precision by these instructions, if there is one.
    pub(super) fn of(isa: Isa, precision: Precision) -> Option<Self> {
        match (precision, isa) {
            (Precision::Bf16, Isa::Amx) => Some(Self::Amx),
            (Precision::Bf16, Isa::Avx512Bf16) => Some(Self::Avx512),
            _ => None,
        }
    }
}

/// Where a kernel reads and writes: two rows of tiles from the left, two columns of tiles from the right, and 32 rows
/// and columns of sums.
#[derive(Clone, Copy)]
struct Step {
    /// The first tile of the first 16 rows; those of the next 16 are `left_step` bytes on.
    left: *const Tile,
    left_step: usize,
    /// The first tile of the first 16 columns; those of the next 16 are `right_step` bytes on.
    right: *const Tile,
    right_step: usize,
    /// Tiles along the depth.
    tiles: usize,
    /// The sums, rows `out_step` bytes apart.
    out: *mut f32,
    out_step: usize,
    /// Whether what is there is added to.
    add: bool,
}

/// One task's part of a product, added to what has been written of it: the rows of the left factor from the given one
/// on, a multiple of 16, times `rhs`. Elements of `out` are f32.
pub(super) fn one_task<T: Real>(
    kernel: Kernel,
    right: &mut Right,
    out: &mut MatrixMut<'_, T>,
    (lhs, row): (&Left, usize),
    rhs: Matrix<'_, f32>,
) {
    let mut add = out.initialised;
    // SAFETY: the processor has what the kernel is made of.
    let _registers = (kernel == Kernel::Amx).then(|| unsafe { amx::Registers::take() });
    for depth in (0..rhs.rows()).step_by(DEPTH_BLOCK) {
        right.fill(rhs.from(depth, DEPTH_BLOCK.min(rhs.rows() - depth)));
        for j in (0..out.columns).step_by(SIDE) {
            let (right, right_step) = right.at(j);
            for i in (0..out.rows).step_by(SIDE) {
                let (rows, columns) = (SIDE.min(out.rows - i), SIDE.min(out.columns - j));
                let (left, left_step) = lhs.at(row + i, depth);
                let (left_step, right_step) =
                    (left_step * size_of::<Tile>(), right_step * size_of::<Tile>());
                let (tiles, out_step) =
                    (lhs.tiles(depth).min(DEPTH_BLOCK / DEPTHS), out.row_stride * size_of::<f32>());
                // SAFETY: the element lies within `out`, whose elements are f32.
                let place = unsafe { out.data.add(i * out.row_stride + j).cast::<f32>() };
                let step =
                    Step { left, left_step, right, right_step, tiles, out: place, out_step, add };
                // SAFETY: there are that many tiles of both factors, two deep on each side; of the product 32 rows and
                // columns, or a copy of as many. What is added to has been written.
                unsafe {
                    if rows == SIDE && columns == SIDE {
                        kernel.run(step, rows);
                    } else {
                        let mut sums = [[0f32; SIDE]; SIDE];
                        let out_step = size_of_val(&sums[0]);
                        kernel.run(
                            Step { out: sums[0].as_mut_ptr(), out_step, add: false, ..step },
                            rows,
                        );
                        for (i, sums) in sums[..rows].iter().enumerate() {
                            for (j, &sum) in sums[..columns].iter().enumerate() {
                                let to = place.add(i * out.row_stride + j);
                                to.write(if add { *to + sum } else { sum });
                            }
                        }
                    }
                }
            }
        }
        add = true;
    }
    out.set_initialised();
}

impl Kernel {
    /// The sums of `rows` rows.
    ///
    /// # Safety
    /// The processor has the kernel's instructions, and the registers of AMX have been taken; everything that the step
    /// tells of is there, `rows` rounded up to whole eights of the sums.
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
