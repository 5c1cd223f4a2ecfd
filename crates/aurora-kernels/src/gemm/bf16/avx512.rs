//! AVX-512 BF16 kernel: eight rows of 32 columns, accumulated in sixteen registers.
//!
//! Registers are used whole, 512 bits: processors that compute the dot products in halves take as long either way,
//! and those that do not would lose half. Written in assembly so that the accumulators stay in registers and no other
//! AVX-512 instruction is used: these instructions are all that has to be emulated to test the kernel elsewhere.

use std::arch::naked_asm;

use super::Step;
use crate::gemm::avx512::{add, store};

/// AVX-512 BF16 kernel: sums of `rows` rows, eight at a time.
///
/// # Safety
/// The processor has AVX-512 BF16, and everything that the step points to exists, `rows` rounded up to whole eights
/// of the sums.
#[inline(always)]
pub(super) unsafe fn run(step: Step, rows: usize) {
    for eight in 0..rows.div_ceil(8) {
        // Half a tile on, or the next tile down.
        let place = eight / 2 * step.step + eight % 2 * 512;
        // SAFETY: vouched for by the caller.
        unsafe {
            let left = step.left.byte_add(place).cast();
            let out = step.out.byte_add(8 * eight * step.out_step);
            let right = step.right.cast();
            let (tiles, add) = (step.tiles, usize::from(step.add));
            eight_rows(left, right, step.step, tiles, out, step.out_step, add);
        }
    }
}

/// Dot-product step of one row: a pair of the left operand and the pairs of 32 columns, registers 16 and 17.
macro_rules! row {
    ($pair:literal, $place:literal, $near:literal, $far:literal) => {
        concat!(
            "vpbroadcastd zmm",
            $pair,
            ", dword ptr [rdi + ",
            $place,
            "]\n",
            "vdpbf16ps zmm",
            $near,
            ", zmm16, zmm",
            $pair,
            "\n",
            "vdpbf16ps zmm",
            $far,
            ", zmm17, zmm",
            $pair,
        )
    };
}

/// Pairs of eight rows (`left`, rows 64 bytes apart, tiles 1 KiB) times pairs of 32 columns (`right`, and
/// `right_step` bytes on), over `tiles` tiles of 16 pairs each.
#[unsafe(naked)]
unsafe extern "sysv64" fn eight_rows(
    left: *const u32,  // rdi
    right: *const u32, // rsi
    right_step: usize, // rdx
    tiles: usize,      // rcx
    out: *mut f32,     // r8
    out_step: usize,   // r9
    add: usize,        // on the stack
) {
    naked_asm!(
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
        "2:",
        "mov eax, 16",
        "3:",
        "vmovups zmm16, zmmword ptr [rsi]",
        "vmovups zmm17, zmmword ptr [rsi + rdx]",
        row!(18, 0, 0, 1),
        row!(19, 64, 2, 3),
        row!(18, 128, 4, 5),
        row!(19, 192, 6, 7),
        row!(18, 256, 8, 9),
        row!(19, 320, 10, 11),
        row!(18, 384, 12, 13),
        row!(19, 448, 14, 15),
        "add rdi, 4",
        "add rsi, 64",
        "dec eax",
        "jnz 3b",
        "add rdi, 960", // a tile less the 16 pairs
        "dec rcx",
        "jnz 2b",
        "cmp qword ptr [rsp + 8], 0",
        "je 4f",
        "mov rax, r8",
        add!(0, 1),
        add!(2, 3),
        add!(4, 5),
        add!(6, 7),
        add!(8, 9),
        add!(10, 11),
        add!(12, 13),
        add!(14, 15),
        "4:",
        store!(0, 1),
        store!(2, 3),
        store!(4, 5),
        store!(6, 7),
        store!(8, 9),
        store!(10, 11),
        store!(12, 13),
        store!(14, 15),
        "vzeroupper",
        "ret",
    )
}
