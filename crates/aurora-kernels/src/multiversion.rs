//! Function multiversioning: loops compiled for any processor, for AVX2 with fused multiply-add, and for AVX-512.

use crate::float::Float;

/// Defines a function over an element type that is compiled three times from one body and dispatches on the processor
/// at run time. The second name in the angle brackets is a constant that is true with fused multiply-add.
macro_rules! multiversion {
    ($(#[$attribute:meta])* fn $name:ident<$real:ident, $has_fma:ident>(
        $($argument:ident: $kind:ty),* $(,)?
    ) $(-> $output:ty)? $body:block) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<$real: crate::float::Float>($($argument: $kind),*) $(-> $output)? {
            #[allow(clippy::too_many_arguments)]
            #[inline(always)]
            fn body<$real: crate::float::Float, const $has_fma: bool>(
                $($argument: $kind),*
            ) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma")]
                fn avx2<$real: crate::float::Float>($($argument: $kind),*) $(-> $output)? {
                    body::<$real, true>($($argument),*)
                }
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512<$real: crate::float::Float>($($argument: $kind),*) $(-> $output)? {
                    body::<$real, true>($($argument),*)
                }
                let isa = crate::isa::Isa::in_use();
                if isa >= crate::isa::Isa::Avx512 {
                    // SAFETY: the processor has these features.
                    return unsafe { avx512($($argument),*) };
                }
                if isa >= crate::isa::Isa::Avx2 {
                    // SAFETY: the processor has both features.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body::<$real, { cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    };
}
pub(crate) use multiversion;

/// Partial sums kept side by side, in a few vector registers.
const LANES: usize = 8;

/// Sum of the partial sums in a fixed order.
#[inline(always)]
fn fold<T: Float>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Sum of `f(a, b)` over two slices of one length.
#[inline(always)]
pub(crate) fn sum2<T: Float>(a: &[T], b: &[T], f: impl Fn(T, T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut a_chunks).zip(&mut b_chunks) {
        for i in 0..LANES {
            lanes[i] = f(a[i], b[i], lanes[i]);
        }
    }
    for ((&a, &b), lane) in a_chunks.remainder().iter().zip(b_chunks.remainder()).zip(&mut lanes) {
        *lane = f(a, b, *lane);
    }
    fold(lanes)
}

/// Sum of `f` over a slice; `f` takes an element and what to add it to.
#[inline(always)]
pub(crate) fn sum1<T: Float>(a: &[T], f: impl Fn(T, T) -> T) -> T {
    sum2(a, a, |a, _, sum| f(a, sum))
}

/// Largest element; minus infinity for an empty slice.
#[inline(always)]
pub(crate) fn largest<T: Float>(a: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let mut chunks = a.chunks_exact(LANES);
    for a in &mut chunks {
        for i in 0..LANES {
            lanes[i] = a[i].larger(lanes[i]);
        }
    }
    for (&a, lane) in chunks.remainder().iter().zip(&mut lanes) {
        *lane = a.larger(*lane);
    }
    lanes.into_iter().fold(T::NEG_INFINITY, |top, lane| lane.larger(top))
}
