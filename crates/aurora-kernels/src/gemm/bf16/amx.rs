//! AMX kernel: sums in tile registers, eight of them, each 16 rows of 64 bytes.
//!
//! Intrinsics for tiles are not stable in Rust, inline assembly is. The compiler does not use these registers, so
//! they keep their contents from one piece of assembly to the next.

use std::arch::asm;

use super::Step;

/// Tile registers of this thread, configured for the kernel; released on drop.
pub(super) struct Registers(());

/// Tile configuration, in the layout of ldtilecfg.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes per row of each tile.
    bytes: [u16; 16],
    /// Rows of each tile.
    rows: [u8; 16],
}

/// Configuration of eight whole tiles.
static WHOLE: TileConfig = {
    let mut cut =
        TileConfig { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        cut.bytes[register] = 64;
        cut.rows[register] = 16;
        register += 1;
    }
    cut
};

impl Registers {
    /// # Safety
    /// The processor has AMX and the process may use it.
    pub(super) unsafe fn take() -> Self {
        // SAFETY: vouched for by the caller; reads `WHOLE`.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags));
        }
        Self(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: there are registers, for they have been taken.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// AMX kernel: 32 rows and columns of sums, in tiles 0 to 3. A step along the depth loads two tiles of each operand,
/// tiles 4 to 7, and uses each twice.
///
/// # Safety
/// The registers have been taken, and everything that the step points to exists.
#[inline(always)]
pub(super) unsafe fn run(step: Step) {
    let Step { left, right, step, tiles, out, out_step, add } = step;
    // SAFETY: vouched for by the caller.
    unsafe {
        let lower = out.byte_add(16 * out_step);
        if add {
            asm!(
                "tileloadd tmm0, [{upper} + {step}*1]",
                "tileloadd tmm1, [{upper} + {step}*1 + 64]",
                "tileloadd tmm2, [{lower} + {step}*1]",
                "tileloadd tmm3, [{lower} + {step}*1 + 64]",
                upper = in(reg) out,
                lower = in(reg) lower,
                step = in(reg) out_step,
                options(nostack, preserves_flags),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags),
            );
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{upper} + {row}*1]",
            "tileloadd tmm6, [{near} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{far} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{lower} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 1024",
            "add {lower}, 1024",
            "add {near}, 1024",
            "add {far}, 1024",
            "dec {tiles}",
            "jnz 2b",
            upper = inout(reg) left => _,
            lower = inout(reg) left.byte_add(step) => _,
            near = inout(reg) right => _,
            far = inout(reg) right.byte_add(step) => _,
            tiles = inout(reg) tiles => _,
            row = in(reg) 64usize,
            options(nostack),
        );
        asm!(
            "tilestored [{upper} + {step}*1], tmm0",
            "tilestored [{upper} + {step}*1 + 64], tmm1",
            "tilestored [{lower} + {step}*1], tmm2",
            "tilestored [{lower} + {step}*1 + 64], tmm3",
            upper = in(reg) out,
            lower = in(reg) lower,
            step = in(reg) out_step,
            options(nostack, preserves_flags),
        );
    }
}
