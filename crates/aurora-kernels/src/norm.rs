//! Layer normalization (Ba et al. 2016, arXiv:1607.06450).

use std::mem::MaybeUninit;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::Error;
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::float::Float;
use crate::multiversion::{multiversion, sum1, sum2};
use crate::tape::apply3;
use crate::view::{
    ROW_BLOCK, Rows, by_element, check_element, check_like, fill_uninit, on_gpu, reduce,
    tensor_from_vec,
};

/// Layer normalization over the last dimension of `x` (.., d), scaled by `weight` (d) and shifted
/// by `bias` (d): `(x - mean) / sqrt(variance + eps) * weight + bias`, with the variance of the
/// row itself (divided by d).
///
/// Gradients for whichever of the three is tracked.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    const OP: &str = "layer_norm";
    for (name, vector) in [("weight", weight), ("bias", bias)] {
        check_like(OP, name, vector, x)?;
        if x.rank() == 0 || vector.rank() != 1 || x.dims().last() != vector.dims().last() {
            return Err(Error::Shape {
                op: OP,
                left: "x",
                left_shape: x.dims().to_vec(),
                right: name,
                right_shape: vector.dims().to_vec(),
                rule: "x is (.., d), weight and bias are (d)",
            }
            .into());
        }
    }
    check_element(OP, x)?;
    apply3(x, weight, bias, LayerNorm::new(eps))
}

multiversion! {
    /// Forward of one row: y = (x - mean) rstd weight + bias.
    fn forward<T, HAS_FMA>(x: &[T], weight: &[T], bias: &[T], eps: T, y: &mut [MaybeUninit<T>]) {
        let (mean, rstd) = moments::<T, HAS_FMA>(x, eps);
        for (((&x, &weight), &bias), y) in x.iter().zip(weight).zip(bias).zip(y) {
            y.write(((x - mean) * rstd).fma::<HAS_FMA>(weight, bias));
        }
    }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments<T: Float, const HAS_FMA: bool>(x: &[T], eps: T) -> (T, T) {
    let width = T::from_f64(x.len() as f64);
    let mean = sum1(x, |x, sum| x + sum) / width;
    let variance = sum1(x, |x, sum| (x - mean).fma::<HAS_FMA>(x - mean, sum)) / width;
    (mean, T::one() / (variance + eps).sqrt())
}

multiversion! {
    /// Input gradient of one row: with n = (x - mean) rstd and g = dy weight, dx = rstd (g - mean(g) - n mean(g n)).
    /// `normal` and `scaled` are room for n and g.
    fn input_gradient<T, HAS_FMA>(
        x: &[T], weight: &[T], dy: &[T], eps: T, normal: &mut [T], scaled: &mut [T],
        dx: &mut [MaybeUninit<T>],
    ) {
        let (mean, rstd) = moments::<T, HAS_FMA>(x, eps);
        let width = T::from_f64(x.len() as f64);
        for ((((&x, &weight), &dy), normal), scaled) in
            x.iter().zip(weight).zip(dy).zip(normal.iter_mut()).zip(scaled.iter_mut())
        {
            *normal = (x - mean) * rstd;
            *scaled = dy * weight;
        }
        let mean_g = sum1(scaled, |g, sum| g + sum) / width;
        let mean_gn = sum2(scaled, normal, |g, n, sum| g.fma::<HAS_FMA>(n, sum)) / width;
        for ((&normal, &scaled), dx) in normal.iter().zip(scaled.iter()).zip(dx) {
            dx.write(rstd * (-normal).fma::<HAS_FMA>(mean_gn, scaled - mean_g));
        }
    }
}

multiversion! {
    /// Parameter gradients of one row: dw += dy n, db += dy.
    fn parameter_gradient<T, HAS_FMA>(x: &[T], dy: &[T], eps: T, dw: &mut [T], db: &mut [T]) {
        let (mean, rstd) = moments::<T, HAS_FMA>(x, eps);
        for (((&x, &dy), dw), db) in x.iter().zip(dy).zip(dw).zip(db) {
            *dw = dy.fma::<HAS_FMA>((x - mean) * rstd, *dw);
            *db += dy;
        }
    }
}

struct LayerNorm {
    eps: f64,
    /// State saved by the forward pass on a GPU.
    #[cfg(feature = "cuda")]
    state: std::sync::OnceLock<bridge::LayerNormState>,
}

impl LayerNorm {
    fn new(eps: f64) -> Self {
        Self {
            eps,
            #[cfg(feature = "cuda")]
            state: std::sync::OnceLock::new(),
        }
    }

    fn run<T: Float>(
        &self,
        [x, weight, bias]: [(&CpuStorage, &Layout); 3],
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        let x = Rows::<T>::new(x.0, x.1)?;
        let weight = Rows::<T>::new(weight.0, weight.1)?;
        let bias = Rows::<T>::new(bias.0, bias.1)?;
        let (weight, bias) = (weight.row(0), bias.row(0));
        let eps = T::from_f64(self.eps);
        let width = x.columns.max(1);
        // SAFETY: every row is written from end to end.
        let y = unsafe {
            fill_uninit(shape.elem_count(), |y| {
                y.par_chunks_mut(ROW_BLOCK * width).enumerate().for_each(|(block, y)| {
                    for (row, y) in y.chunks_mut(width).enumerate() {
                        forward(x.row(block * ROW_BLOCK + row), weight, bias, eps, y);
                    }
                });
            })
        };
        Ok((T::to_cpu_storage_owned(y), shape))
    }

    fn gradients<T: Float>(
        &self,
        x_tensor: &Tensor,
        weight_tensor: &Tensor,
        bias_tensor: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let (x, x_layout) = x_tensor.storage_and_layout();
        let (weight, weight_layout) = weight_tensor.storage_and_layout();
        let (dy, dy_layout) = dy.storage_and_layout();
        let x = Rows::<T>::of(&x, x_layout)?;
        let weight = Rows::<T>::of(&weight, weight_layout)?;
        let weight = weight.row(0);
        let dy = Rows::<T>::of(&dy, dy_layout)?;
        let eps = T::from_f64(self.eps);
        let width = x.columns.max(1);
        let dx = if x_tensor.track_op() {
            // SAFETY: every row is written from end to end.
            let dx = unsafe {
                fill_uninit(x.rows * x.columns, |dx| {
                    dx.par_chunks_mut(ROW_BLOCK * width).enumerate().for_each(|(block, dx)| {
                        let mut workspace = vec![T::zero(); 2 * width];
                        let (normal, scaled) = workspace.split_at_mut(width);
                        for (row, dx) in dx.chunks_mut(width).enumerate() {
                            let row = block * ROW_BLOCK + row;
                            input_gradient(
                                x.row(row),
                                weight,
                                dy.row(row),
                                eps,
                                normal,
                                scaled,
                                dx,
                            );
                        }
                    });
                })
            };
            Some(tensor_from_vec(dx, x_tensor.dims())?)
        } else {
            None
        };
        if !weight_tensor.track_op() && !bias_tensor.track_op() {
            return Ok([dx, None, None]);
        }
        // Gradients of weight and bias side by side, block by block, then summed in order.
        let partial: Vec<Vec<T>> = (0..x.rows.div_ceil(ROW_BLOCK))
            .into_par_iter()
            .map(|block| {
                let mut sums = vec![T::zero(); 2 * width];
                let (dw, db) = sums.split_at_mut(width);
                for row in block * ROW_BLOCK..x.rows.min((block + 1) * ROW_BLOCK) {
                    parameter_gradient(x.row(row), dy.row(row), eps, dw, db);
                }
                sums
            })
            .collect();
        let mut dw = reduce(partial, 2 * width);
        let db = dw.split_off(width);
        let gradient = |of: &Tensor, values: Vec<T>| {
            of.track_op().then(|| tensor_from_vec(values, of.dims())).transpose()
        };
        Ok([dx, gradient(weight_tensor, dw)?, gradient(bias_tensor, db)?])
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_element!("layer_norm", x.dtype(), T => {
            self.run::<T>([(x, x_layout), (weight, weight_layout), (bias, bias_layout)])
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let inputs = [(x, x_layout), (weight, weight_layout), (bias, bias_layout)];
        let (y, shape, state) = bridge::layer_norm_forward(inputs, self.eps)?;
        let _ = self.state.set(state);
        Ok((y, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        on_gpu!(x => {
            let state = bridge::kept("layer_norm", &self.state)?;
            let [dx, dw, db] = bridge::layer_norm_backward([x, weight, bias], dy, self.eps, state)?;
            Ok((dx, dw, db))
        });
        let [dx, dw, db] = by_element!("layer_norm", x.dtype(), T => {
            self.gradients::<T>(x, weight, bias, dy)
        })?;
        Ok((dx, dw, db))
    }
}
