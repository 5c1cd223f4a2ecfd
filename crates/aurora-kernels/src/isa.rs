//! Which instructions the inner loops use, decided once for the process.

use std::sync::OnceLock;

/// Sets of instructions, each with all that stand before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the architecture has.
    Plain,
    /// x86 with AVX2 and fused multiply-add: eight f32 at a time.
    Avx2,
    /// x86 with AVX-512 (F, BW, DQ, VL): sixteen f32 at a time.
    Avx512,
}

/// The environment variable that limits the instructions, for tests and comparisons.
pub const VARIABLE: &str = "AURORA_ISA";

impl Isa {
    /// Every set, the plainest first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Avx2, Self::Avx512];

    /// Its name, as [`VARIABLE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The best set that this processor has.
    pub fn of_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                let wide =
                    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                return if wide { Self::Avx512 } else { Self::Avx2 };
            }
        }
        Self::Plain
    }

    /// The set in use: the processor's best, or less where [`VARIABLE`] asks for less. A name that is none counts as not
    /// set.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sets_grow() {
        for isa in Isa::ALL {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("sse9"), None);
        assert!(Isa::Plain < Isa::Avx2 && Isa::Avx2 < Isa::Avx512);
        assert!(Isa::in_use() <= Isa::of_processor());
    }
}
