//! GEMM on a GPU, by cuBLAS, and the linear layer made of it.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

use super::bias;
use super::memory::{Held, Operand, Work, gpu_storage, matrix_dims, tensor};

const OP: &str = "linear";

/// Layout of held rows as a dense matrix of `columns` columns.
fn dense_layout(held: &Held<'_>, rows: usize, columns: usize) -> Layout {
    Layout::contiguous_with_offset((rows, columns), held.start())
}

/// GEMM with a transposed right operand: `x W^T` for `x` (rows, in), dense, and `weight` (out, in), dense; (rows,
/// out).
pub(super) fn matmul_nt(
    work: &Work,
    x: &Held<'_>,
    rows: usize,
    weight: &Held<'_>,
    (out, input): (usize, usize),
) -> Result<CudaStorage> {
    let shape = Shape::from((rows, out));
    if shape.elem_count() == 0 || input == 0 {
        return work.zeros(&shape, x.storage().dtype());
    }
    let left = dense_layout(x, rows, input);
    let right = dense_layout(weight, out, input).transpose(0, 1)?;
    x.storage().matmul(weight.storage(), (1, rows, out, input), &left, &right)
}

/// GEMM of two tensors without a graph, `left right`, whatever their sizes.
pub(super) fn matmul(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let ((rows, inner), (_, columns)) = (left.dims2()?, right.dims2()?);
    if rows * columns * inner == 0 {
        return Tensor::zeros((rows, columns), left.dtype(), left.device());
    }
    multiplicable(left)?.matmul(&multiplicable(right)?)
}

/// Operand without a graph as cuBLAS takes it: dense, or the transpose of a dense matrix.
fn multiplicable(matrix: &Tensor) -> Result<Tensor> {
    let matrix = matrix.detach();
    if matrix.is_contiguous() || matrix.t()?.is_contiguous() {
        return Ok(matrix);
    }
    matrix.contiguous()
}

/// Tensor as rows of its last dimension, dense, without a graph.
pub(super) fn as_rows(tensor: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix_dims(tensor.layout());
    tensor.detach().contiguous()?.reshape((rows, columns))
}

/// Output shape of a linear layer on `x`.
pub(super) fn output_shape(x: &Layout, out: usize) -> Shape {
    crate::linear::output_shape(x, out)
}

/// Linear forward: `x W^T + b` of x (.., in).
pub(crate) fn linear_forward(
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Option<Operand<'_>>,
) -> Result<(CudaStorage, Shape)> {
    let work = Work::on(OP, &x.0.device)?;
    let (rows, _) = matrix_dims(x.1);
    let (out, input) = weight.1.shape().dims2()?;
    let (held, weight) = (work.dense("x", x)?, work.dense("weight", weight)?);
    let mut y = matmul_nt(&work, &held, rows, &weight, (out, input))?;
    if let Some(bias) = bias {
        bias::add(&work, OP, &mut y, (rows, out), &work.dense("bias", bias)?)?;
    }
    Ok((y, output_shape(x.1, out)))
}

/// Linear backward: gradients of x, weight and bias, of each that is tracked.
pub(crate) fn linear_backward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dy: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let dy = as_rows(dy)?;
    let dx = x.track_op().then(|| matmul(&dy, weight)?.reshape(x.shape())).transpose()?;
    let dw = weight.track_op().then(|| matmul(&dy.t()?, &as_rows(x)?)).transpose()?;
    let db = match bias {
        Some(bias) if bias.track_op() => {
            let (read, layout) = dy.storage_and_layout();
            let storage = gpu_storage(OP, "dy", &read)?;
            let work = Work::on(OP, &storage.device)?;
            let held = work.rows("dy", (storage, layout))?;
            Some(bias::column_sum(&work, OP, &held, dy.dims2()?)?)
        }
        _ => None,
    };
    Ok([dx, dw, db])
}

/// Tensor over a new storage.
pub(super) fn wrapped(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    tensor(storage, shape)
}
