//! Bias of a linear layer on a GPU, and its gradient.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Shape, Tensor};

use super::memory::{Held, Work, element, tensor};
use crate::cuda::plan::{BiasPlan, ColumnSumBuffers};

/// Bias addition in place: y (rows, columns), dense, += bias (columns).
pub(super) fn add(
    work: &Work,
    op: &'static str,
    y: &mut CudaStorage,
    (rows, columns): (usize, usize),
    bias: &Held<'_>,
) -> Result<()> {
    let plan = BiasPlan { element: element(op, y.dtype())?, rows, columns };
    let launch = plan.add(work.start(y)?, work.pointer(bias)?)?;
    // SAFETY: both are as large as the plan's sizes.
    unsafe { work.run(launch) }
}

/// Column sum over the rows, (columns).
pub(super) fn column_sum(
    work: &Work,
    op: &'static str,
    x: &Held<'_>,
    (rows, columns): (usize, usize),
) -> Result<Tensor> {
    let dtype = x.storage().dtype();
    let plan = BiasPlan { element: element(op, dtype)?, rows, columns };
    let shape = Shape::from(columns);
    // Of an empty batch nothing is launched, and the sums are zeros.
    let sum = if rows == 0 { work.zeros(&shape, dtype)? } else { work.uninit(&shape, dtype)? };
    let workspace = work.floats(plan.workspace())?;
    let launches = plan.column_sum(&ColumnSumBuffers {
        x: work.pointer(x)?,
        x_stride: x.stride,
        sum: work.start(&sum)?,
        workspace: work.at(&workspace),
    })?;
    // SAFETY: all memory is as large as the plan's sizes.
    unsafe { work.run(launches) }?;
    Ok(tensor(sum, shape))
}
