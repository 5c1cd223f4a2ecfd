//! Eight elements at a time, for the one loop that compilers do not make vectors of by
//! themselves: the tile of a small matrix product.

use crate::element::Real;

/// Eight elements of a type. The functions are for code compiled for the processor in question:
/// an AVX register may be touched only where AVX2 and fused multiply-add have been found.
pub(crate) trait Register<T>: Copy {
    /// All zeros.
    ///
    /// # Safety
    /// The processor has what the register is made of.
    unsafe fn zero() -> Self;
    /// The same number everywhere.
    ///
    /// # Safety
    /// As [`Register::zero`].
    unsafe fn splat(value: T) -> Self;
    /// Eight elements from memory, of any alignment.
    ///
    /// # Safety
    /// As [`Register::zero`], and all eight can be read.
    unsafe fn load(from: *const T) -> Self;
    /// Eight elements to memory, of any alignment.
    ///
    /// # Safety
    /// As [`Register::zero`], and all eight can be written.
    unsafe fn store(self, to: *mut T);
    /// `self * factor + addend`.
    ///
    /// # Safety
    /// As [`Register::zero`].
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// `self + other`.
    ///
    /// # Safety
    /// As [`Register::zero`].
    unsafe fn add(self, other: Self) -> Self;
}

/// Eight elements that the compiler places as it likes.
#[derive(Clone, Copy)]
pub(crate) struct Plain<T>([T; 8]);

impl<T: Real> Register<T> for Plain<T> {
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
pub(crate) use avx2::{Doubles, Singles};

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::Register;

    /// Eight f32 in one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Singles(__m256);

    // SAFETY of all calls below: the caller vouches for the processor and the memory.
    impl Register<f32> for Singles {
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
    }

    /// Eight f64 in two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Doubles(__m256d, __m256d);

    // SAFETY of all calls below: the caller vouches for the processor and the memory.
    impl Register<f64> for Doubles {
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
