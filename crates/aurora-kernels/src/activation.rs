//! Gaussian error linear unit (GELU), the exact form (Hendrycks and Gimpel 2016, arXiv:1606.08415).

use std::mem::MaybeUninit;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::float::Float;
use crate::multiversion::multiversion;
use crate::tape::apply1;
use crate::view::{Rows, by_element, check_element, fill_uninit, on_gpu, tensor_from_vec};

/// Elements per task.
const CHUNK: usize = 16 * 1024;

/// GELU: `x * Phi(x)` with the exact normal distribution function (erf, not the tanh approximation).
///
/// In f32 Phi is accurate to 3e-7.
///
/// # Errors
/// An element type other than f32 or f64; on a GPU, other than f32, f16 or bf16.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    check_element("gelu", x)?;
    apply1(x, Gelu)
}

multiversion! {
    /// y = x Phi(x).
    fn forward<T, HAS_FMA>(x: &[T], y: &mut [MaybeUninit<T>]) {
        for (&x, y) in x.iter().zip(y) {
            y.write(x * x.normal_cdf::<HAS_FMA>());
        }
    }
}

multiversion! {
    /// x = x Phi(x).
    fn in_place<T, HAS_FMA>(x: &mut [T]) {
        for x in x {
            *x *= x.normal_cdf::<HAS_FMA>();
        }
    }
}

multiversion! {
    /// dx = dy (Phi(x) + x phi(x)), phi the normal density.
    fn backward<T, HAS_FMA>(x: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
        // 1 / sqrt(2 pi)
        let density = T::from_f64(0.398_942_280_401_432_7);
        let half = T::from_f64(-0.5);
        for ((&x, &dy), dx) in x.iter().zip(dy).zip(dx) {
            let phi = density * (half * x * x).exp::<HAS_FMA>();
            dx.write(dy * x.fma::<HAS_FMA>(phi, x.normal_cdf::<HAS_FMA>()));
        }
    }
}

struct Gelu;

impl Gelu {
    fn run<T: Float>(storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<T>::new(storage, layout)?;
        // SAFETY: every chunk is written from end to end.
        let y = unsafe { fill_uninit(layout.shape().elem_count(), |y| by_chunks(&x, y, forward)) };
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }
}

/// Gradient of x from that of its GELU.
pub(crate) fn gradient<T: Float>(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dims = x.dims();
    let dy = dy.contiguous()?;
    let ((x, x_layout), (dy, dy_layout)) = (x.storage_and_layout(), dy.storage_and_layout());
    let x = Rows::<T>::of(&x, x_layout)?;
    let dy = Rows::<T>::of(&dy, dy_layout)?;
    let dy = dy.flat().unwrap_or_default();
    // SAFETY: every chunk is written from end to end, for a contiguous `dy` is as long as x.
    let dx = unsafe {
        fill_uninit(dy.len(), |dx| match x.flat() {
            Some(x) => dx
                .par_chunks_mut(CHUNK)
                .zip(x.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)))
                .for_each(|(dx, (x, dy))| backward(x, dy, dx)),
            None => dx
                .par_chunks_mut(x.columns)
                .zip(dy.par_chunks(x.columns))
                .enumerate()
                .for_each(|(row, (dx, dy))| backward(x.row(row), dy, dx)),
        })
    };
    tensor_from_vec(dx, dims)
}

/// Applies `f` to the elements of `x` in parallel, in chunks or row by row.
fn by_chunks<T: Float>(
    x: &Rows<'_, T>,
    y: &mut [MaybeUninit<T>],
    f: impl Fn(&[T], &mut [MaybeUninit<T>]) + Sync,
) {
    match x.flat() {
        Some(x) => {
            y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| f(x, y));
        }
        None => y.par_chunks_mut(x.columns).enumerate().for_each(|(row, y)| f(x.row(row), y)),
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        by_element!("gelu", storage.dtype(), T => Self::run::<T>(storage, layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        bridge::gelu_forward((storage, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        on_gpu!(x => bridge::gelu_backward(x, dy).map(Some));
        by_element!("gelu", x.dtype(), T => gradient::<T>(x, dy)).map(Some)
    }
}
