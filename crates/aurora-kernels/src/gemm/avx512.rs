//! AVX-512 micro-kernel for f32: a tile of 12 rows by 32 columns, accumulated in 24 registers.
//!
//! Written in assembly so that the accumulators stay in registers: of the same loop in Rust the compiler keeps some
//! of them in memory, and it takes half as long again.

use std::any::TypeId;
use std::arch::naked_asm;

use super::MatrixMut;
use super::microkernel::{ACC_CHAIN, Microkernel, prefetch};
use crate::float::Float;

/// Rows of a tile.
const ROWS: usize = 12;

/// Computes the whole tiles (twelve rows, all columns) of a panel of f32 from this column on, chain after chain;
/// returns how many rows they are. Other types have none.
///
/// # Safety
/// The processor has AVX-512.
pub(super) unsafe fn whole_tiles<T: Float>(
    tiles: &Microkernel<'_, T>,
    out: &mut MatrixMut<'_, T>,
    column: usize,
) -> usize {
    let width = tiles.panels.width();
    if TypeId::of::<T>() != TypeId::of::<f32>() || column + width > out.columns() {
        return 0;
    }
    let (lhs, panel, row_stride) = (tiles.lhs, tiles.panels.at(column), out.row_stride());
    let whole = out.rows() / ROWS * ROWS;
    for row in (0..whole).step_by(ROWS) {
        // SAFETY: twelve rows of the left operand and of the product from this one on, all rows of the panel. The
        // elements are f32, and what is added to has been written.
        unsafe {
            let c = out.pointer().add(row * row_stride + column);
            for first in (0..lhs.columns()).step_by(ACC_CHAIN) {
                let depth = ACC_CHAIN.min(lhs.columns() - first);
                if first == 0 {
                    for i in 0..ROWS {
                        prefetch(c.add(i * row_stride));
                        prefetch(c.add(i * row_stride + width / 2));
                    }
                }
                let a = lhs.pointer().add(row * lhs.row_stride() + first);
                let (b, add) = (panel.as_ptr().add(first * width), tiles.add || first > 0);
                let [a_step, c_step] =
                    [lhs.row_stride(), row_stride].map(|step| step * size_of::<T>());
                twelve_rows(a.cast(), a_step, b.cast(), depth, c.cast(), c_step, usize::from(add));
            }
        }
    }
    whole
}

/// Multiply-add of one row: an element of the left operand times 32 columns of the right one in registers 24 and 25.
macro_rules! row {
    ($place:literal, $depth:literal, $near:literal, $far:literal, $element:literal) => {
        concat!(
            "vbroadcastss zmm",
            $element,
            ", dword ptr [",
            $place,
            " + 4 * ",
            $depth,
            "]\n",
            "vfmadd231ps zmm",
            $near,
            ", zmm24, zmm",
            $element,
            "\n",
            "vfmadd231ps zmm",
            $far,
            ", zmm25, zmm",
            $element,
            "\n",
        )
    };
}

/// One step along the depth, for all rows.
macro_rules! step {
    ($depth:literal) => {
        concat!(
            "vmovups zmm24, zmmword ptr [rdx + 128 * ",
            $depth,
            "]\n",
            "vmovups zmm25, zmmword ptr [rdx + 128 * ",
            $depth,
            " + 64]\n",
            row!("rdi", $depth, 0, 1, 26),
            row!("rdi + rsi", $depth, 2, 3, 27),
            row!("rdi + 2 * rsi", $depth, 4, 5, 28),
            row!("rdi + r10", $depth, 6, 7, 29),
            row!("rdi + 4 * rsi", $depth, 8, 9, 30),
            row!("rdi + r11", $depth, 10, 11, 31),
            row!("rax", $depth, 12, 13, 26),
            row!("rax + rsi", $depth, 14, 15, 27),
            row!("rax + 2 * rsi", $depth, 16, 17, 28),
            row!("rax + r10", $depth, 18, 19, 29),
            row!("rax + 4 * rsi", $depth, 20, 21, 30),
            row!("rax + r11", $depth, 22, 23, 31),
        )
    };
}

/// Stores the sums of one row to r8 and advances r8 by r9. Shared by both kernels that accumulate in AVX-512
/// registers.
macro_rules! store {
    ($near:literal, $far:literal) => {
        concat!(
            "vmovups zmmword ptr [r8], zmm",
            $near,
            "\n",
            "vmovups zmmword ptr [r8 + 64], zmm",
            $far,
            "\n",
            "add r8, r9\n",
        )
    };
}

/// Adds the existing output of one row, at rax, to its sums and advances rax by r9.
macro_rules! add {
    ($near:literal, $far:literal) => {
        concat!(
            "vaddps zmm",
            $near,
            ", zmm",
            $near,
            ", zmmword ptr [rax]\n",
            "vaddps zmm",
            $far,
            ", zmm",
            $far,
            ", zmmword ptr [rax + 64]\n",
            "add rax, r9\n",
        )
    };
}

pub(super) use {add, store};

/// Micro-kernel: twelve rows of the left operand (`a`, rows `a_step` bytes apart) times 32 columns (`b`, row after
/// row), over `depth`, to twelve rows of `c`, `c_step` bytes apart; added to what is there where `add` is not 0.
///
/// # Safety
/// The processor has AVX-512, and all of these elements exist.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn twelve_rows(
    a: *const f32, // rdi
    a_step: usize, // rsi
    b: *const f32, // rdx
    depth: usize,  // rcx
    c: *mut f32,   // r8
    c_step: usize, // r9
    add: usize,    // on the stack
) {
    naked_asm!(
        "lea r10, [rsi + 2 * rsi]",
        "lea r11, [rsi + 4 * rsi]",
        "lea rax, [rdi + 2 * r10]",
        "vpxord zmm0, zmm0, zmm0",
        "vpxord zmm1, zmm1, zmm1",
        "vpxord zmm2, zmm2, zmm2",
        "vpxord zmm3, zmm3, zmm3",
        "vpxord zmm4, zmm4, zmm4",
        "vpxord zmm5, zmm5, zmm5",
        "vpxord zmm6, zmm6, zmm6",
        "vpxord zmm7, zmm7, zmm7",
        "vpxord zmm8, zmm8, zmm8",
        "vpxord zmm9, zmm9, zmm9",
        "vpxord zmm10, zmm10, zmm10",
        "vpxord zmm11, zmm11, zmm11",
        "vpxord zmm12, zmm12, zmm12",
        "vpxord zmm13, zmm13, zmm13",
        "vpxord zmm14, zmm14, zmm14",
        "vpxord zmm15, zmm15, zmm15",
        "vpxord zmm16, zmm16, zmm16",
        "vpxord zmm17, zmm17, zmm17",
        "vpxord zmm18, zmm18, zmm18",
        "vpxord zmm19, zmm19, zmm19",
        "vpxord zmm20, zmm20, zmm20",
        "vpxord zmm21, zmm21, zmm21",
        "vpxord zmm22, zmm22, zmm22",
        "vpxord zmm23, zmm23, zmm23",
        "sub rcx, 4",
        "jb 3f",
        "2:",
        step!(0),
        step!(1),
        step!(2),
        step!(3),
        "add rdi, 16",
        "add rax, 16",
        "add rdx, 512",
        "sub rcx, 4",
        "jae 2b",
        "3:",
        "add rcx, 4",
        "jz 5f",
        "4:",
        step!(0),
        "add rdi, 4",
        "add rax, 4",
        "add rdx, 128",
        "dec rcx",
        "jnz 4b",
        "5:",
        "cmp qword ptr [rsp + 8], 0",
        "je 6f",
        "mov rax, r8",
        add!(0, 1),
        add!(2, 3),
        add!(4, 5),
        add!(6, 7),
        add!(8, 9),
        add!(10, 11),
        add!(12, 13),
        add!(14, 15),
        add!(16, 17),
        add!(18, 19),
        add!(20, 21),
        add!(22, 23),
        "6:",
        store!(0, 1),
        store!(2, 3),
        store!(4, 5),
        store!(6, 7),
        store!(8, 9),
        store!(10, 11),
        store!(12, 13),
        store!(14, 15),
        store!(16, 17),
        store!(18, 19),
        store!(20, 21),
        store!(22, 23),
        "vzeroupper",
        "ret",
    )
}
