//! Linear layers with a low-rank delta on a GPU: the frozen GEMM by cuBLAS, the delta by our kernels.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Result, Shape, Tensor};

use super::bias;
use super::matmul::{as_rows, matmul, matmul_nt, output_shape, wrapped};
use super::memory::{Held, Operand, Work, element, gpu_storage, matrix_dims};
use crate::cuda::DevicePointer;
use crate::cuda::plan::{
    ApplyBuffers, CpApplyPlan, CpFactorGradientPlan, CpReconstructPlan, FactorGradientBuffers,
    FactorLayout, FactorPair, Slice,
};

const OP: &str = "adapted_linear";
const NULL: DevicePointer = DevicePointer::NULL;

/// Dense storage of a tensor on the device of `work`; `read` holds its lock.
macro_rules! dense {
    ($work:expr, $name:literal, $tensor:expr, $read:ident) => {{
        $read = $tensor.storage_and_layout();
        $work.dense($name, (gpu_storage(OP, $name, &$read.0)?, $read.1))?
    }};
}

/// Merged weight `weight + B A`, (out, in), in a new tensor: one slice per launch.
pub(crate) fn merged_weight(weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((out, input), rank) = (weight.dims2()?, a.dim(0)?);
    let shape = Shape::from((out, input));
    // The kernel takes factors in f32, the input-side one as (in, rank).
    let u = a.detach().t()?.to_dtype(DType::F32)?.contiguous()?; // (in, rank)
    let v = b.detach().to_dtype(DType::F32)?.contiguous()?; // (out, rank)
    let ones = Tensor::ones(rank, DType::F32, weight.device())?;
    let (w_read, a_read, b_read, ones_read);
    w_read = weight.storage_and_layout();
    let storage = gpu_storage(OP, "weight", &w_read.0)?;
    let work = Work::on(OP, &storage.device)?;
    let frozen = work.rows("weight", (storage, w_read.1))?;
    let u_held = dense!(work, "a", u, a_read);
    let v_held = dense!(work, "b", v, b_read);
    let modes = dense!(work, "modes", ones, ones_read);
    let result = work.uninit(&shape, weight.dtype())?;
    let slice = Slice {
        pair: 0,
        weight: work.pointer(&frozen)?,
        merged: work.start(&result)?,
        modes: work.pointer(&modes)?,
        weight_stride: frozen.stride,
        merged_stride: input,
    };
    let (u, v) = (work.pointer(&u_held)?, work.pointer(&v_held)?);
    let plan = CpReconstructPlan {
        element: element(OP, weight.dtype())?,
        rank,
        cores: false,
        pairs: vec![FactorPair { u, v, inputs: input, outputs: out }],
        slices: vec![slice],
    };
    if let Some(table) = plan.table()? {
        let memory = work.upload(&table.bytes)?;
        // SAFETY: the table's pointers are to tensors of its sizes, held until here.
        unsafe { work.run([table.launch(work.at(&memory), NULL)?]) }?;
    }
    Ok(wrapped(result, shape))
}

/// Adapted linear forward: `x W^T + bias`, and, unless `weight` is the merged one already, `+ (x A^T) B^T`.
pub(crate) fn forward(
    [x, a, b]: [Operand<'_>; 3],
    weight: &Tensor,
    bias: Option<&Tensor>,
    merged: bool,
) -> Result<(CudaStorage, Shape)> {
    let work = Work::on(OP, &x.0.device)?;
    let ((rows, _), (out, input)) = (matrix_dims(x.1), weight.dims2()?);
    let (w_read, bias_read);
    let held = work.dense("x", x)?;
    let frozen = dense!(work, "weight", weight, w_read);
    let mut y = matmul_nt(&work, &held, rows, &frozen, (out, input))?;
    if let Some(bias) = bias {
        let bias = dense!(work, "bias", bias, bias_read);
        bias::add(&work, OP, &mut y, (rows, out), &bias)?;
    }
    if !merged {
        add_delta(&work, (&held, rows, input), [a, b], (&y, out))?;
    }
    Ok((y, output_shape(x.1, out)))
}

/// Low-rank delta in place: y += (x A^T) B^T.
fn add_delta(
    work: &Work,
    (x, tokens, inputs): (&Held<'_>, usize, usize),
    [a, b]: [Operand<'_>; 2],
    (y, outputs): (&CudaStorage, usize),
) -> Result<()> {
    let (rank, _) = a.1.shape().dims2()?;
    let element = element(OP, y.dtype())?;
    let plan =
        CpApplyPlan { element, tokens, inputs, outputs, rank, x_stride: inputs, y_stride: outputs };
    let (a, b) = (work.dense("a", a)?, work.dense("b", b)?);
    let launch = plan.launch(&ApplyBuffers {
        x: work.pointer(x)?,
        a: work.pointer(&a)?,
        b: work.pointer(&b)?,
        y: work.start(y)?,
    })?;
    // SAFETY: all memory is as large as the plan's sizes.
    unsafe { work.run(launch) }
}

/// Gradients of x and the factors, of each that is tracked: dx = dy (W + B A); dA = (dy B)^T x; dB = dy^T (x A^T).
/// `weight` is the merged one if `merged`.
pub(crate) fn backward(
    [x, a, b]: [&Tensor; 3],
    weight: &Tensor,
    merged: bool,
    dy: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let dy = as_rows(dy)?;
    let dx = if x.track_op() {
        let mut dx = matmul(&dy, weight)?;
        if !merged {
            dx = (dx + matmul(&matmul(&dy, b)?, a)?)?;
        }
        Some(dx.reshape(x.shape())?)
    } else {
        None
    };
    if !a.track_op() && !b.track_op() {
        return Ok([dx, None, None]);
    }
    let [da, db] = factor_gradients(x, [a, b], &dy)?;
    Ok([dx, a.track_op().then_some(da), b.track_op().then_some(db)])
}

fn factor_gradients(x: &Tensor, [a, b]: [&Tensor; 2], dy: &Tensor) -> Result<[Tensor; 2]> {
    let ((rank, inputs), (outputs, _), (tokens, _)) = (a.dims2()?, b.dims2()?, dy.dims2()?);
    let (a_read, b_read);
    let (x_read, dy_read) = (x.storage_and_layout(), dy.storage_and_layout());
    let storage = gpu_storage(OP, "x", &x_read.0)?;
    let work = Work::on(OP, &storage.device)?;
    let x_held = work.rows("x", (storage, x_read.1))?;
    let dy_held = work.rows("dy", (gpu_storage(OP, "dy", &dy_read.0)?, dy_read.1))?;
    let a_held = dense!(work, "a", a, a_read);
    let b_held = dense!(work, "b", b, b_read);
    let element = element(OP, x.dtype())?;
    let plan = CpFactorGradientPlan {
        element,
        factors: element,
        gradients: element,
        tokens,
        inputs,
        outputs,
        rank,
        x_stride: x_held.stride,
        dy_stride: dy_held.stride,
        u_layout: FactorLayout::ByRank,
        v_layout: FactorLayout::ByWidth,
        accumulate: false,
    };
    let shape = Shape::from((tokens, rank));
    let [z, g] = [work.uninit(&shape, x.dtype())?, work.uninit(&shape, x.dtype())?];
    let (da, db) = (work.uninit(a.shape(), x.dtype())?, work.uninit(b.shape(), x.dtype())?);
    let workspace = work.floats(plan.workspace()?)?;
    let launches = plan.launches(&FactorGradientBuffers {
        x: work.pointer(&x_held)?,
        dy: work.pointer(&dy_held)?,
        u: work.pointer(&a_held)?,
        v: work.pointer(&b_held)?,
        z: work.start(&z)?,
        g: work.start(&g)?,
        workspace: work.at(&workspace),
        scale: NULL,
        du: work.start(&da)?,
        dv: work.start(&db)?,
        dscale: NULL,
    })?;
    // SAFETY: all memory is as large as the plan's sizes.
    unsafe { work.run(launches) }?;
    Ok([wrapped(da, a.shape()), wrapped(db, b.shape())])
}
