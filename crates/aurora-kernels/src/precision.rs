//! Precision of matmul operands.

use crate::multiversion::multiversion;

/// Rounding of the two operands of a matmul. Sums are f32 either way, and so is everything that is stored.
///
/// It is for f32 on the CPU: f64 is never rounded, and on a GPU the element type of the tensors decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// No rounding.
    #[default]
    F32,
    /// bf16, the upper half of an f32, rounded to nearest, ties to even.
    ///
    /// Where the processor has no bf16 instructions that Aurora knows, rounded operands are multiplied as f32, which
    /// is exact. The result is the same up to the rounding of sums, and up to subnormal numbers, which bf16
    /// instructions treat as zero.
    Bf16,
}

/// Nearest bf16, ties to even, as an f32. Overflow becomes infinite; a NaN stays one.
#[inline(always)]
pub(crate) fn nearest_bf16(x: f32) -> f32 {
    const UPPER: u32 = 0xffff_0000;
    // A NaN whose upper half has no bit left would be an infinity.
    const QUIET: u32 = 0x0040_0000;
    let bits = x.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd) & UPPER;
    f32::from_bits(if x.is_nan() { (bits & UPPER) | QUIET } else { rounded })
}

multiversion! {
    /// Rounds every value to the nearest bf16, in place.
    fn round<T, HAS_FMA>(values: &mut [T]) {
        for value in values {
            *value = value.nearest_bf16();
        }
    }
}

multiversion! {
    /// Rounds every value of `from` to the nearest bf16, into a slice of the same length.
    fn round_to<T, HAS_FMA>(to: &mut [T], from: &[T]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.nearest_bf16();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    /// Compares the loops with `half`, bit by bit, in a slice long enough to be vectorized.
    fn check(bits: u32) {
        let x = f32::from_bits(bits);
        let wanted = bf16::from_f32(x).to_f32().to_bits();
        let mut values = [x; 19];
        let mut copy = [0.0; 19];
        round_to(&mut copy, &values);
        round(&mut values);
        for found in values.into_iter().chain(copy).chain([nearest_bf16(x)]) {
            assert_eq!(found.to_bits(), wanted, "{bits:#010x}");
        }
        assert_eq!(f32::from_bits(wanted).is_nan(), x.is_nan());
    }

    #[test]
    fn ties_subnormals_infinities_and_what_is_no_number() {
        // Every upper half of a number, a tie and its neighbors below: all ties, subnormals and NaNs among them.
        for upper in 0..=u32::from(u16::MAX) {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                check(upper << 16 | lower);
            }
        }
        assert_eq!(nearest_bf16(f32::MAX), f32::INFINITY);
        assert_eq!(nearest_bf16(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(nearest_bf16(-0.0).to_bits(), (-0f32).to_bits());
    }

    #[test]
    fn doubles_stay_as_they_are() {
        let mut values = [1.0 + f64::EPSILON; 3];
        round(&mut values);
        assert_eq!(values, [1.0 + f64::EPSILON; 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn rounds_as_half_does(bits in any::<u32>()) {
            check(bits);
        }
    }
}
