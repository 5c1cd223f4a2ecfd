//! GELU on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, Tensor};

use super::memory::{Operand, Work, element, gpu_storage, matrix_dims, tensor};
use crate::cuda::DevicePointer;
use crate::cuda::plan::{GeluBackwardBuffers, GeluPlan};

const OP: &str = "gelu";
const NULL: DevicePointer = DevicePointer::NULL;

fn plan(storage: &CudaStorage, layout: &Layout) -> Result<GeluPlan> {
    let (rows, columns) = matrix_dims(layout);
    Ok(GeluPlan { element: element(OP, storage.dtype())?, rows, columns })
}

/// GELU forward: x Phi(x), element by element.
pub(crate) fn forward(x: Operand<'_>) -> Result<(CudaStorage, Shape)> {
    let work = Work::on(OP, &x.0.device)?;
    let dense = work.dense("x", x)?;
    let shape = x.1.shape().clone();
    let y = work.uninit(&shape, x.0.dtype())?;
    let launch = plan(x.0, x.1)?.forward(work.pointer(&dense)?, NULL, work.start(&y)?)?;
    // SAFETY: x and y have as many elements as the plan.
    unsafe { work.run(launch) }?;
    Ok((y, shape))
}

/// GELU backward: gradient of x.
pub(crate) fn backward(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let ((x_read, layout), (dy_read, dy_layout)) =
        (x.storage_and_layout(), dy.storage_and_layout());
    let storage = gpu_storage(OP, "x", &x_read)?;
    let work = Work::on(OP, &storage.device)?;
    let x_dense = work.dense("x", (storage, layout))?;
    let dy_dense = work.dense("dy", (gpu_storage(OP, "dy", &dy_read)?, dy_layout))?;
    let dx = work.uninit(x.shape(), x.dtype())?;
    let launches = plan(storage, layout)?.backward(&GeluBackwardBuffers {
        x: work.pointer(&x_dense)?,
        bias: NULL,
        dy: work.pointer(&dy_dense)?,
        dx: work.start(&dx)?,
        dbias: NULL,
        workspace: NULL,
    })?;
    // SAFETY: all have as many elements as the plan.
    unsafe { work.run(launches) }?;
    Ok(tensor(dx, x.shape()))
}
