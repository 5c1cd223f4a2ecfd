//! Cross-entropies on a GPU: the mean over rows, or a loss for each row.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Result, Shape, Tensor};
use cudarc::driver::CudaSlice;

use super::memory::{Held, Operand, Work, element, gpu_storage, matrix_dims, tensor};
use crate::cuda::DevicePointer;
use crate::cuda::plan::{
    CrossEntropyTargets, SoftCrossEntropyBackwardBuffers, SoftCrossEntropyForwardBuffers,
    SoftCrossEntropyPlan,
};

/// Targets of the rows of logits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Soft targets: weights of all classes, in the type of the logits; the loss is the mean over rows.
    Soft(&'a Tensor),
    /// Labels, one class per row; the loss is the mean over rows.
    Labels(&'a [u32]),
    /// Labels with smoothing; a loss for each row.
    Each(&'a [u32], f64),
}

/// State saved for the backward pass: log-sum-exps and weights of rows, and labels on the device.
#[derive(Debug)]
pub(crate) struct LossState {
    log_sums: CudaSlice<f32>,
    weights: CudaSlice<f32>,
    labels: CudaSlice<u32>,
}

impl Rows<'_> {
    fn is_mean(&self) -> bool {
        !matches!(self, Self::Each(..))
    }

    fn plan(
        &self,
        op: &'static str,
        logits: Operand<'_>,
        stride: usize,
    ) -> Result<SoftCrossEntropyPlan> {
        let (rows, classes) = matrix_dims(logits.1);
        Ok(SoftCrossEntropyPlan {
            element: element(op, logits.0.dtype())?,
            rows,
            classes,
            logits_stride: stride,
            smoothing: if let Self::Each(_, smoothing) = self { *smoothing as f32 } else { 0.0 },
        })
    }
}

fn targets(
    work: &Work,
    soft: Option<&Held<'_>>,
    labels: &CudaSlice<u32>,
) -> Result<CrossEntropyTargets> {
    Ok(match soft {
        Some(held) => {
            CrossEntropyTargets::Soft { targets: work.pointer(held)?, stride: held.stride }
        }
        None => CrossEntropyTargets::Labels(work.at(labels)),
    })
}

/// Cross-entropy forward, f32 whatever the logits are: a scalar, or one value per row.
pub(crate) fn forward(
    op: &'static str,
    logits: Operand<'_>,
    rows: Rows<'_>,
) -> Result<(CudaStorage, Shape, LossState)> {
    let work = Work::on(op, &logits.0.device)?;
    let held = work.rows("logits", logits)?;
    let plan = rows.plan(op, logits, held.stride)?;
    let labels = match rows {
        Rows::Soft(_) => &[][..],
        Rows::Labels(labels) | Rows::Each(labels, _) => labels,
    };
    let state = LossState {
        log_sums: work.floats(plan.rows)?,
        weights: work.floats(plan.rows)?,
        labels: work.upload(labels)?,
    };
    let read =
        if let Rows::Soft(targets) = rows { Some(targets.storage_and_layout()) } else { None };
    let soft = match &read {
        Some((storage, layout)) => {
            Some(work.rows("targets", (gpu_storage(op, "targets", storage)?, layout))?)
        }
        None => None,
    };
    let losses = work.floats(plan.rows)?;
    let workspace = work.floats(plan.workspace())?;
    let launches = plan.forward(&SoftCrossEntropyForwardBuffers {
        logits: work.pointer(&held)?,
        targets: targets(&work, soft.as_ref(), &state.labels)?,
        loss: work.at(&losses),
        log_sum: work.at(&state.log_sums),
        weight: work.at(&state.weights),
        workspace: if plan.workspace() > 0 { work.at(&workspace) } else { DevicePointer::NULL },
    })?;
    // SAFETY: all memory is as large as the plan's sizes; labels were checked to be below the
    // number of classes.
    unsafe { work.run(launches) }?;
    let device = work.device().clone();
    if !rows.is_mean() {
        return Ok((CudaStorage::wrap_cuda_slice(losses, device), Shape::from(plan.rows), state));
    }
    let mean = work.floats(1)?;
    // SAFETY: as many losses as the plan has rows.
    unsafe { work.run([plan.mean(work.at(&losses), work.at(&mean))?]) }?;
    Ok((CudaStorage::wrap_cuda_slice(mean, device), Shape::from(()), state))
}

/// Cross-entropy backward: gradient of the logits.
pub(crate) fn backward(
    op: &'static str,
    logits: &Tensor,
    rows: Rows<'_>,
    state: &LossState,
    dy: &Tensor,
) -> Result<Tensor> {
    let (read, layout) = logits.storage_and_layout();
    let storage = gpu_storage(op, "logits", &read)?;
    let work = Work::on(op, &storage.device)?;
    let held = work.rows("logits", (storage, layout))?;
    let plan = rows.plan(op, (storage, layout), held.stride)?;
    let dy = dy.to_dtype(DType::F32)?.contiguous()?;
    let (dy_read, dy_layout) = dy.storage_and_layout();
    let dloss = work.dense("dy", (gpu_storage(op, "dy", &dy_read)?, dy_layout))?;
    let soft_read =
        if let Rows::Soft(targets) = rows { Some(targets.storage_and_layout()) } else { None };
    let soft = match &soft_read {
        Some((storage, layout)) => {
            Some(work.rows("targets", (gpu_storage(op, "targets", storage)?, layout))?)
        }
        None => None,
    };
    let dlogits = work.uninit(logits.shape(), logits.dtype())?;
    let launch = plan.backward(&SoftCrossEntropyBackwardBuffers {
        logits: work.pointer(&held)?,
        targets: targets(&work, soft.as_ref(), &state.labels)?,
        log_sum: work.at(&state.log_sums),
        weight: if soft.is_some() { work.at(&state.weights) } else { DevicePointer::NULL },
        dloss: work.pointer(&dloss)?,
        of_mean: rows.is_mean(),
        dlogits: work.start(&dlogits)?,
    })?;
    // SAFETY: as in the forward pass.
    unsafe { work.run(launch) }?;
    Ok(tensor(dlogits, logits.shape()))
}
