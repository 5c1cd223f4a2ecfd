//! CPU instruction sets of the inner loops, chosen once for the process.

use std::sync::OnceLock;

/// Instruction sets, each with all that stand before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Baseline of the architecture.
    Plain,
    /// x86 with AVX2 and fused multiply-add: eight f32 at a time.
    Avx2,
    /// x86 with AVX-512 (F, BW, DQ, VL): sixteen f32 at a time.
    Avx512,
    /// AVX-512 with bf16 dot products (AVX-512 BF16): 32 products at a time.
    Avx512Bf16,
    /// AMX, tiles of bf16: 8,192 products at a time.
    Amx,
}

/// Environment variable that limits the instruction set, for tests and comparisons.
pub const VARIABLE: &str = "AURORA_ISA";

impl Isa {
    /// All sets, the plainest first.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// Name of the set, as [`VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// Best set that this processor has and the system lets the process use.
    pub fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            if !(has!("avx2") && has!("fma")) {
                return Self::Plain;
            }
            if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
                return Self::Avx2;
            }
            if !has!("avx512bf16") {
                return Self::Avx512;
            }
            if tiles::usable() { Self::Amx } else { Self::Avx512Bf16 }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::Plain
    }

    /// Set in use: the processor's best, or less where [`VARIABLE`] asks for less. An unknown name is ignored.
    #[inline]
    pub fn in_use() -> Self {
        static IN_USE: OnceLock<Isa> = OnceLock::new();
        *IN_USE.get_or_init(|| {
            let best = Self::of_processor();
            Self::asked().map_or(best, |asked| asked.min(best))
        })
    }

    fn asked() -> Option<Self> {
        Self::named(&std::env::var(VARIABLE).ok()?)
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == text)
    }
}

/// AMX: detection and permission.
#[cfg(target_arch = "x86_64")]
mod tiles {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// True if the processor multiplies tiles of bf16 and the system saves their registers for this process.
    pub(super) fn usable() -> bool {
        /// CPUID leaf 7, EDX: AMX-BF16 and AMX-TILE.
        const AMX: u32 = 1 << 22 | 1 << 24;
        /// XCR0: the tile configuration and the tile data.
        const SAVED: u64 = 1 << 17 | 1 << 18;
        // SAFETY: every 64-bit processor has the instruction, and leaf 0 says which others there are.
        #[allow(unused_unsafe, reason = "safe to call in newer versions of Rust alone")]
        let has = unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX == AMX };
        // SAFETY: a processor with AMX has the instruction, and the system allows it: it saves the state of AVX.
        has && unsafe { saved() } & SAVED == SAVED && granted()
    }

    /// XCR0: the parts of the processor's state that the system saves.
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }

    /// Asks Linux for the tiles, once for all threads: their state is large.
    #[cfg(target_os = "linux")]
    fn granted() -> bool {
        /// ARCH_REQ_XCOMP_PERM, permission for a part of the state.
        const ASK: libc::c_long = 0x1023;
        /// XTILEDATA.
        const CONTENTS: libc::c_long = 18;
        // SAFETY: changes nothing but what this process may use; a system that does not know the request refuses it.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ASK, CONTENTS) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn granted() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sets_grow() {
        for isa in Isa::ALL {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("sse9"), None);
        assert!(Isa::ALL.is_sorted());
        assert!(Isa::in_use() <= Isa::of_processor());
    }
}
