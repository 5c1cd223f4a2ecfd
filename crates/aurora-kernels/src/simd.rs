//! SIMD vectors of eight elements or sixteen, for the loops that compilers do not vectorize by themselves: the tiles
//! of GEMMs.

use crate::float::Float;

/// SIMD vector of elements. The functions are for code compiled for the processor in question: an AVX register may be
/// touched only where AVX2 and fused multiply-add have been found, a register of AVX-512 only where that has.
pub(crate) trait SimdVector<T: Float>: Copy {
    /// Number of elements, 8 or 16.
    const LANES: usize;
    /// All zeros.
    ///
    /// # Safety
    /// The processor has what the register is made of.
    unsafe fn zero() -> Self;
    /// Broadcast of one number.
    ///
    /// # Safety
    /// As [`SimdVector::zero`].
    unsafe fn splat(value: T) -> Self;
    /// Unaligned load.
    ///
    /// # Safety
    /// As [`SimdVector::zero`], and all of them can be read.
    unsafe fn load(from: *const T) -> Self;
    /// Unaligned store.
    ///
    /// # Safety
    /// As [`SimdVector::zero`], and all of them can be written.
    unsafe fn store(self, to: *mut T);
    /// Multiply-add: `self * factor + addend`.
    ///
    /// # Safety
    /// As [`SimdVector::zero`].
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// Sum: `self + other`.
    ///
    /// # Safety
    /// As [`SimdVector::zero`].
    unsafe fn add(self, other: Self) -> Self;
    /// Transpose of a square of as many rows and columns, from memory to memory: rows that are `from_step` apart to
    /// rows that are `to_step` apart.
    ///
    /// # Safety
    /// As [`SimdVector::zero`], and both squares exist.
    #[inline(always)]
    unsafe fn transpose_tile(from: *const T, from_step: usize, to: *mut T, to_step: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: vouched for by the caller.
                unsafe { to.add(j * to_step + i).write(*from.add(i * from_step + j)) };
            }
        }
    }
}

/// Portable vector: eight elements that the compiler places as it likes.
#[derive(Clone, Copy)]
pub(crate) struct Portable<T>([T; 8]);

impl<T: Float> SimdVector<T> for Portable<T> {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([T::zero(); 8])
    }

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: vouched for by the caller.
        Self(unsafe { from.cast::<[T; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: vouched for by the caller.
        unsafe { to.cast::<[T; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| {
            self.0[i].fma::<{ cfg!(target_arch = "aarch64") }>(factor.0[i], addend.0[i])
        }))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{F32x8, F32x16, F64x8, transpose_16x16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::SimdVector;

    /// AVX register of eight f32.
    #[derive(Clone, Copy)]
    pub(crate) struct F32x8(__m256);

    // SAFETY of all calls below: the caller vouches for the processor and the memory.
    impl SimdVector<f32> for F32x8 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0)) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0)) }
        }

        /// Exchanges pairs, then fours, then halves.
        #[inline(always)]
        unsafe fn transpose_tile(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
            unsafe {
                let mut rows = [_mm256_setzero_ps(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_loadu_ps(from.add(i * from_step));
                }
                let (mut pairs, mut fours) = ([_mm256_setzero_ps(); 8], [_mm256_setzero_ps(); 8]);
                for i in (0..8).step_by(2) {
                    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
                    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
                }
                for i in [0, 4] {
                    fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
                    fours[i + 1] = _mm256_shuffle_ps::<0xEE>(pairs[i], pairs[i + 2]);
                    fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
                    fours[i + 3] = _mm256_shuffle_ps::<0xEE>(pairs[i + 1], pairs[i + 3]);
                }
                for i in 0..4 {
                    let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                    let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
                    _mm256_storeu_ps(to.add(i * to_step), low);
                    _mm256_storeu_ps(to.add((i + 4) * to_step), high);
                }
            }
        }
    }

    /// AVX-512 register of sixteen f32.
    #[derive(Clone, Copy)]
    pub(crate) struct F32x16(__m512);

    impl SimdVector<f32> for F32x16 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn transpose_tile(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
            unsafe {
                let rows =
                    std::array::from_fn(|i| _mm512_loadu_si512(from.add(i * from_step).cast()));
                for (i, row) in transpose_16x16(rows).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(i * to_step).cast(), row);
                }
            }
        }
    }

    /// Transpose of sixteen rows of sixteen times 32 bits: within blocks of two, of four, then blocks of four as a
    /// whole.
    #[target_feature(enable = "avx512f")]
    pub(crate) fn transpose_16x16(rows: [__m512i; 16]) -> [__m512i; 16] {
        let twos: [__m512i; 16] = std::array::from_fn(|i| {
            let (a, b) = (rows[i & !1], rows[i | 1]);
            if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
        });
        // Row 4 g + k has, in each quarter q, elements 4 g to 4 g + 3 of column 4 q + k.
        let fours: [__m512i; 16] = std::array::from_fn(|i| {
            let first = i / 4 * 4 + i / 2 % 2;
            let (a, b) = (twos[first], twos[first + 2]);
            if i % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
        });
        std::array::from_fn(|i| {
            let (k, q) = (i % 4, i / 4);
            let [a, b, c, d] = [fours[k], fours[4 + k], fours[8 + k], fours[12 + k]];
            // Quarters 0 and 2, or 1 and 3, of two rows; then one of each of four.
            let (low, high) = if q % 2 == 0 {
                (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d))
            } else {
                (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d))
            };
            if q < 2 {
                _mm512_shuffle_i32x4::<0x88>(low, high)
            } else {
                _mm512_shuffle_i32x4::<0xdd>(low, high)
            }
        })
    }

    /// Two AVX registers of eight f64.
    #[derive(Clone, Copy)]
    pub(crate) struct F64x8(__m256d, __m256d);

    // SAFETY of all calls below: the caller vouches for the processor and the memory.
    impl SimdVector<f64> for F64x8 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_pd(), _mm256_setzero_pd()) }
        }

        #[inline(always)]
        unsafe fn splat(value: f64) -> Self {
            unsafe { Self(_mm256_set1_pd(value), _mm256_set1_pd(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            unsafe { Self(_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f64) {
            unsafe {
                _mm256_storeu_pd(to, self.0);
                _mm256_storeu_pd(to.add(4), self.1);
            }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: Self, addend: Self) -> Self {
            unsafe {
                Self(
                    _mm256_fmadd_pd(self.0, factor.0, addend.0),
                    _mm256_fmadd_pd(self.1, factor.1, addend.1),
                )
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_pd(self.0, other.0), _mm256_add_pd(self.1, other.1)) }
        }
    }
}
