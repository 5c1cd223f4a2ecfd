//! Layer normalization on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Shape, Tensor};
use cudarc::driver::CudaSlice;

use super::memory::{Operand, Work, element, gpu_storage, matrix_dims, tensor};
use crate::cuda::DevicePointer;
use crate::cuda::plan::{LayerNormBackwardBuffers, LayerNormForwardBuffers, LayerNormPlan};

const OP: &str = "layer_norm";
const NULL: DevicePointer = DevicePointer::NULL;

/// State saved for the backward pass: mean and reciprocal standard deviation of each row.
#[derive(Debug)]
pub(crate) struct LayerNormState {
    mean: CudaSlice<f32>,
    rstd: CudaSlice<f32>,
}

fn plan(x: Operand<'_>, x_stride: usize, eps: f64) -> Result<LayerNormPlan> {
    let (rows, columns) = matrix_dims(x.1);
    let element = element(OP, x.0.dtype())?;
    Ok(LayerNormPlan { element, rows, columns, x_stride, eps: eps as f32 })
}

/// Layer norm forward: the normalized rows of x (.., d), and the state for the backward pass.
pub(crate) fn forward(
    [x, weight, bias]: [Operand<'_>; 3],
    eps: f64,
) -> Result<(CudaStorage, Shape, LayerNormState)> {
    let work = Work::on(OP, &x.0.device)?;
    let rows = work.rows("x", x)?;
    let plan = plan(x, rows.stride, eps)?;
    let (weight, bias) = (work.dense("weight", weight)?, work.dense("bias", bias)?);
    let shape = x.1.shape().clone();
    let y = work.uninit(&shape, x.0.dtype())?;
    let state = LayerNormState { mean: work.floats(plan.rows)?, rstd: work.floats(plan.rows)? };
    let launch = plan.forward(&LayerNormForwardBuffers {
        x: work.pointer(&rows)?,
        residual: NULL,
        weight: work.pointer(&weight)?,
        bias: work.pointer(&bias)?,
        y: work.start(&y)?,
        sum: NULL,
        mean: work.at(&state.mean),
        rstd: work.at(&state.rstd),
    })?;
    // SAFETY: all memory is as large as the plan's sizes, which are those of the tensors.
    unsafe { work.run(launch) }?;
    Ok((y, shape, state))
}

/// Layer norm backward: gradients of x, weight and bias, of each that is tracked.
pub(crate) fn backward(
    [x, weight, bias]: [&Tensor; 3],
    dy: &Tensor,
    eps: f64,
    state: &LayerNormState,
) -> Result<[Option<Tensor>; 3]> {
    let ((x_read, x_layout), (w_read, w_layout)) =
        (x.storage_and_layout(), weight.storage_and_layout());
    let (dy_read, dy_layout) = dy.storage_and_layout();
    let x_operand = (gpu_storage(OP, "x", &x_read)?, x_layout);
    let work = Work::on(OP, &x_operand.0.device)?;
    let rows = work.rows("x", x_operand)?;
    let plan = plan(x_operand, rows.stride, eps)?;
    let scale = work.dense("weight", (gpu_storage(OP, "weight", &w_read)?, w_layout))?;
    let dy = work.dense("dy", (gpu_storage(OP, "dy", &dy_read)?, dy_layout))?;
    let dtype = x.dtype();
    let wanted = |of: &Tensor| -> Result<Option<CudaStorage>> {
        // Of an empty batch nothing is launched, and the sums over it are zeros.
        let make = |shape: &Shape| match plan.rows {
            0 => work.zeros(shape, dtype),
            _ => work.uninit(shape, dtype),
        };
        of.track_op().then(|| make(of.shape())).transpose()
    };
    let [dx, dweight, dbias] = [wanted(x)?, wanted(weight)?, wanted(bias)?];
    let sums = dweight.is_some() || dbias.is_some();
    let workspace = work.floats(if sums { plan.workspace() } else { 0 })?;
    let start =
        |storage: &Option<CudaStorage>| storage.as_ref().map_or(Ok(NULL), |s| work.start(s));
    let launches = plan.backward(&LayerNormBackwardBuffers {
        x: work.pointer(&rows)?,
        weight: work.pointer(&scale)?,
        dy: work.pointer(&dy)?,
        dsum: NULL,
        mean: work.at(&state.mean),
        rstd: work.at(&state.rstd),
        dx: start(&dx)?,
        dweight: start(&dweight)?,
        dbias: start(&dbias)?,
        workspace: if sums { work.at(&workspace) } else { NULL },
    })?;
    // SAFETY: as in the forward pass, and the workspace is as large as the plan says.
    unsafe { work.run(launches) }?;
    let done = |storage: Option<CudaStorage>, of: &Tensor| storage.map(|s| tensor(s, of.shape()));
    Ok([done(dx, x), done(dweight, weight), done(dbias, bias)])
}
