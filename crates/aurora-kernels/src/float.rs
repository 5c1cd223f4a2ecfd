//! Element types of the CPU operations, f32 and f64, with their scalar functions.

use std::iter::Sum;
use std::ops::Neg;

use candle_core::WithDType;

use crate::simd::SimdVector;

/// Element of a tensor: f32, with functions whose loops vectorize, or f64, with the accurate functions of libm.
///
/// `HAS_FMA` marks code compiled for processors with fused multiply-add; without the instruction an FMA would be a
/// slow call.
pub(crate) trait Float: WithDType + Sum + Neg<Output = Self> {
    /// SIMD vector of eight elements, in AVX2 registers where there are any.
    type Avx2: SimdVector<Self>;
    /// Widest SIMD vector that there is code for.
    type Avx512: SimdVector<Self>;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// Plus infinity.
    const INFINITY: Self;
    /// Multiply-add: `self * factor + addend`.
    fn fma<const HAS_FMA: bool>(self, factor: Self, addend: Self) -> Self;
    /// Exponential, for arguments up to 88; an underflow gives zero.
    fn exp<const HAS_FMA: bool>(self) -> Self;
    /// Distribution function of the standard normal distribution.
    fn normal_cdf<const HAS_FMA: bool>(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Nearest bf16 of an f32; an f64 unchanged.
    fn nearest_bf16(self) -> Self;
    /// Maximum of two numbers.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

/// Numerator of `(Phi(x) - 1/2) / x` as a rational function of x^2 on |x| <= sqrt(32), found by
/// least squares reweighted until the relative error was even (2.5e-8 before rounding).
const CDF_NUMERATOR: [f32; 6] =
    [3.989_422_7e-1, 3.421_44e-2, 4.693_585_5e-3, 1.716_228_1e-4, 6.288_106_5e-6, 2.195_104_8e-8];
/// Denominator of that rational function.
const CDF_DENOMINATOR: [f32; 6] =
    [1.0, 2.524_290_5e-1, 2.883_758_4e-2, 1.900_915_4e-3, 7.409_882e-5, 1.169_382_5e-6];
/// Range beyond which the distribution function is 0 or 1 to the last bit that matters (8e-9).
const CDF_RANGE: f32 = 5.656_854;

impl Float for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = crate::simd::F32x8;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = crate::simd::Portable<Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = crate::simd::F32x16;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx512 = crate::simd::Portable<Self>;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const INFINITY: Self = f32::INFINITY;

    #[inline(always)]
    fn fma<const HAS_FMA: bool>(self, factor: Self, addend: Self) -> Self {
        if HAS_FMA { self.mul_add(factor, addend) } else { self * factor + addend }
    }

    /// Exponential: exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, exp(r) by its Taylor series to r^7 (error 5e-9), 2^n
    /// assembled from bits.
    #[inline(always)]
    fn exp<const HAS_FMA: bool>(self) -> Self {
        // Adding this rounds to a whole number and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        const LOWEST: f32 = -87.336;
        let x = if self < LOWEST { LOWEST } else { self };
        let shifted = x.fma::<HAS_FMA>(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.fma::<HAS_FMA>(-LN2_LOW, n.fma::<HAS_FMA>(-LN2_HIGH, x));
        let mut p = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = r.fma::<HAS_FMA>(p, c);
        }
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        if self < LOWEST { 0.0 } else { p * power }
    }

    #[inline(always)]
    fn normal_cdf<const HAS_FMA: bool>(self) -> Self {
        let square = self * self;
        let mut numerator = CDF_NUMERATOR[5];
        let mut denominator = CDF_DENOMINATOR[5];
        for k in (0..5).rev() {
            numerator = square.fma::<HAS_FMA>(numerator, CDF_NUMERATOR[k]);
            denominator = square.fma::<HAS_FMA>(denominator, CDF_DENOMINATOR[k]);
        }
        let inside = self.fma::<HAS_FMA>(numerator / denominator, 0.5);
        if self < -CDF_RANGE {
            0.0
        } else if self > CDF_RANGE {
            1.0
        } else {
            inside
        }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }

    #[inline(always)]
    fn nearest_bf16(self) -> Self {
        crate::precision::nearest_bf16(self)
    }
}

impl Float for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = crate::simd::F64x8;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = crate::simd::Portable<Self>;
    // f64 is for tests: they hold the widest loops to AVX2's.
    type Avx512 = Self::Avx2;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const INFINITY: Self = f64::INFINITY;

    #[inline(always)]
    fn fma<const HAS_FMA: bool>(self, factor: Self, addend: Self) -> Self {
        if HAS_FMA { self.mul_add(factor, addend) } else { self * factor + addend }
    }

    #[inline(always)]
    fn exp<const HAS_FMA: bool>(self) -> Self {
        libm::exp(self)
    }

    #[inline(always)]
    fn normal_cdf<const HAS_FMA: bool>(self) -> Self {
        0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        libm::log(self)
    }

    #[inline(always)]
    fn nearest_bf16(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_in_f32_is_good_to_two_units_in_the_last_place() {
        for k in -87_300..=88_000 {
            let x = k as f32 * 1e-3;
            let exact = libm::exp(f64::from(x));
            for got in [Float::exp::<true>(x), Float::exp::<false>(x)] {
                assert!((f64::from(got) / exact - 1.0).abs() < 2.4e-7, "exp({x}) = {got}");
            }
        }
        assert_eq!(Float::exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(Float::exp::<true>(-1e30f32), 0.0);
        assert_eq!(Float::exp::<true>(0f32), 1.0);
        assert!(Float::exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn normal_cdf_in_f32_is_good_to_3e_7() {
        let mut worst = 0f64;
        for k in -80_000..=80_000 {
            let x = k as f32 * 1e-4;
            let exact = Float::normal_cdf::<true>(f64::from(x));
            for got in [Float::normal_cdf::<true>(x), Float::normal_cdf::<false>(x)] {
                worst = worst.max((f64::from(got) - exact).abs());
            }
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(Float::normal_cdf::<true>(f32::INFINITY), 1.0);
        assert_eq!(Float::normal_cdf::<true>(-1e20f32), 0.0);
        assert!(Float::normal_cdf::<true>(f32::NAN).is_nan());
    }
}
