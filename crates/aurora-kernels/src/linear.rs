//! Linear layer y = x W^T + b.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::Error;
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::epilogue::{Epilogue, EpilogueState};
use crate::float::Float;
use crate::gemm::{EpilogueFn, Matrix, MatrixMut, gemm, gemm_dual};
use crate::multiversion::multiversion;
use crate::precision::Precision;
use crate::tape::{apply2, apply3};
use crate::view::{
    Rows, by_element, check_element, check_like, column_sums, fill_uninit, on_gpu, tensor_from_vec,
};

/// Linear layer `x W^T + b` of `x` (.., in) with `weight` (out, in) and `bias` (out); (.., out).
///
/// Gradients go to those of the three that are tracked. A frozen weight (untracked, as after
/// `detach`) costs nothing in the backward pass and is never copied: the graph holds a reference
/// to it.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_with(x, weight, bias, &Epilogue::default())
}

/// [`linear`] with an epilogue: matmul precision, GELU and residual in one pass over the outputs instead of three.
/// Bias, GELU and residual and their gradients keep full precision.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn linear_with(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: &Epilogue,
) -> Result<Tensor> {
    check("linear", x, weight, bias)?;
    let tracked = x.track_op() || weight.track_op() || bias.is_some_and(Tensor::track_op);
    let (epilogue, rest) = EpilogueState::new("linear", epilogue, x, weight.dim(0)?, tracked)?;
    let op = Linear { epilogue };
    rest.apply(match bias {
        Some(bias) => apply3(x, weight, bias, op)?,
        None => apply2(x, weight, op)?,
    })
}

/// Checks the arguments of a linear layer.
pub(crate) fn check(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<()> {
    check_element(op, x)?;
    check_like(op, "weight", weight, x)?;
    if weight.rank() != 2 || x.rank() == 0 || x.dims().last() != weight.dims().last() {
        return Err(Error::Shape {
            op,
            left: "x",
            left_shape: x.dims().to_vec(),
            right: "weight",
            right_shape: weight.dims().to_vec(),
            rule: "x is (.., in), weight is (out, in)",
        }
        .into());
    }
    if let Some(bias) = bias {
        check_like(op, "bias", bias, x)?;
        if bias.rank() != 1 || bias.dims().first() != weight.dims().first() {
            return Err(Error::Shape {
                op,
                left: "weight",
                left_shape: weight.dims().to_vec(),
                right: "bias",
                right_shape: bias.dims().to_vec(),
                rule: "weight is (out, in), bias is (out)",
            }
            .into());
        }
    }
    Ok(())
}

/// Matrix view of any strides from the layout of a two-dimensional tensor, without a copy.
pub(crate) fn strided<'a, T: Float>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<Matrix<'a, T>> {
    let (rows, columns) = layout.shape().dims2()?;
    let stride = layout.stride();
    let data = &T::cpu_storage_as_slice(storage)?[layout.start_offset()..];
    Ok(Matrix::new(data, rows, columns, stride[0], stride[1]))
}

multiversion! {
    /// Vector addition: `y += x`.
    fn add_assign<T, HAS_FMA>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// GEMM into a new vector, with `epilogue` on every piece of it.
pub(crate) fn matmul<T: Float>(
    lhs: Matrix<'_, T>,
    rhs: Matrix<'_, T>,
    precision: Precision,
    epilogue: Option<EpilogueFn<'_, T>>,
) -> Vec<T> {
    let (rows, columns) = (lhs.rows(), rhs.columns());
    // SAFETY: a product that is not added to anything writes every element.
    unsafe {
        fill_uninit(rows * columns, |out| {
            let mut out = MatrixMut::uninit(out, rows, columns);
            gemm(&mut out, false, lhs, rhs, precision, epilogue);
        })
    }
}

/// Dual GEMM into a new vector, with `epilogue` on every piece of it. The second product is not deep.
pub(crate) fn matmul_dual<T: Float>(
    factors: [(Matrix<'_, T>, Matrix<'_, T>); 2],
    precision: Precision,
    epilogue: Option<EpilogueFn<'_, T>>,
) -> Vec<T> {
    let (rows, columns) = (factors[0].0.rows(), factors[0].1.columns());
    // SAFETY: a product that is not added to anything writes every element.
    unsafe {
        fill_uninit(rows * columns, |out| {
            let mut out = MatrixMut::uninit(out, rows, columns);
            gemm_dual(&mut out, factors, precision, epilogue);
        })
    }
}

/// Output shape of a linear layer on `x`.
pub(crate) fn output_shape(x: &Layout, out: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    Shape::from(dims)
}

struct Linear {
    epilogue: EpilogueState,
}

impl Linear {
    fn run<T: Float>(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let (out, _) = weight.1.shape().dims2()?;
        let shape = output_shape(x.1, out);
        let x = Rows::<T>::new(x.0, x.1)?;
        let weight = strided::<T>(weight.0, weight.1)?;
        let bias = bias.map(|(storage, layout)| Rows::<T>::new(storage, layout)).transpose()?;
        let y = self.epilogue.run(
            (x.rows, out),
            bias.as_ref().map(|bias| bias.row(0)),
            |epilogue| matmul(x.matrix(), weight.t(), self.epilogue.precision, epilogue),
        )?;
        Ok((T::to_cpu_storage_owned(y), shape))
    }

    fn gradients<T: Float>(
        &self,
        x_tensor: &Tensor,
        weight_tensor: &Tensor,
        bias_tensor: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let (out, input) = weight_tensor.dims2()?;
        let (dy, precision) = (self.epilogue.gradient::<T>(dy)?, self.epilogue.precision);
        let (dy, dy_layout) = dy.storage_and_layout();
        let dy = Rows::<T>::of(&dy, dy_layout)?;
        let dx = if x_tensor.track_op() {
            let (weight, layout) = weight_tensor.storage_and_layout();
            let weight = strided::<T>(crate::view::cpu(&weight)?, layout)?;
            Some(tensor_from_vec(matmul(dy.matrix(), weight, precision, None), x_tensor.dims())?)
        } else {
            None
        };
        let dw = if weight_tensor.track_op() {
            let (x, layout) = x_tensor.storage_and_layout();
            let x = Rows::<T>::of(&x, layout)?;
            Some(tensor_from_vec(
                matmul(dy.matrix().t(), x.matrix(), precision, None),
                &[out, input],
            )?)
        } else {
            None
        };
        let db = match bias_tensor {
            Some(bias) if bias.track_op() => Some(tensor_from_vec(column_sums(&dy), &[out])?),
            _ => None,
        };
        Ok([dx, dw, db])
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_element!("linear", x.dtype(), T => {
            self.run::<T>((x, x_layout), (weight, weight_layout), None)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        bridge::linear_forward((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        on_gpu!(x => {
            let [dx, dw, _] = bridge::linear_backward(x, weight, None, dy)?;
            Ok((dx, dw))
        });
        let [dx, dw, _] =
            by_element!("linear", x.dtype(), T => self.gradients::<T>(x, weight, None, dy))?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        by_element!("linear", x.dtype(), T => {
            self.run::<T>((x, x_layout), (weight, weight_layout), Some((bias, bias_layout)))
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
        bridge::linear_forward((x, x_layout), (weight, weight_layout), Some((bias, bias_layout)))
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
            let [dx, dw, db] = bridge::linear_backward(x, weight, Some(bias), dy)?;
            Ok((dx, dw, db))
        });
        let [dx, dw, db] = by_element!("linear", x.dtype(), T => {
            self.gradients::<T>(x, weight, Some(bias), dy)
        })?;
        Ok((dx, dw, db))
    }
}
