//! Cross-entropy losses.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::Error;
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::float::Float;
use crate::multiversion::{largest, multiversion, sum1};
use crate::tape::apply1;
use crate::view::{
    Rows, by_element, check_element, check_like, fill_uninit, on_gpu, tensor_from_vec,
};

/// Soft-target cross-entropy: mean over rows of `-sum(targets * log_softmax(logits))`, both (N, C); a scalar.
///
/// Targets are weights, not necessarily summing to one; they get no gradient. A logit of minus infinity is an
/// impossible class; its target has to be zero. On a GPU this and the other losses are f32 whatever the logits are.
///
/// # Errors
/// Shapes or element types that do not fit, no rows.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "soft_cross_entropy";
    check_like(OP, "targets", targets, logits)?;
    check_logits(OP, logits)?;
    if logits.dims() != targets.dims() {
        return Err(Error::Shape {
            op: OP,
            left: "logits",
            left_shape: logits.dims().to_vec(),
            right: "targets",
            right_shape: targets.dims().to_vec(),
            rule: "both are (rows, classes)",
        }
        .into());
    }
    check_element(OP, logits)?;
    apply1(logits, CrossEntropy::new(OP, Targets::Soft(targets.detach())))
}

/// Cross-entropy: mean over rows of the negative log-likelihood of `labels` (N, u32) under `logits` (N, C); a scalar.
///
/// # Errors
/// Shapes or element types that do not fit, no rows, a label that is not below C.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let labels = check_labels(OP, logits, labels)?;
    apply1(logits, CrossEntropy::new(OP, Targets::Labels(labels)))
}

/// Labels as a vector, checked: one label below the number of classes for each row of logits.
pub(crate) fn check_labels(op: &'static str, logits: &Tensor, labels: &Tensor) -> Result<Vec<u32>> {
    let classes = check_logits(op, logits)?;
    check_element(op, logits)?;
    if labels.dtype() != DType::U32 {
        let dtype = labels.dtype().as_str();
        return Err(Error::DType { op, name: "labels", dtype, expected: "u32" }.into());
    }
    if labels.rank() != 1 || logits.dims().first() != labels.dims().first() {
        return Err(Error::Shape {
            op,
            left: "logits",
            left_shape: logits.dims().to_vec(),
            right: "labels",
            right_shape: labels.dims().to_vec(),
            rule: "logits are (rows, classes), labels (rows)",
        }
        .into());
    }
    let labels: Vec<u32> = labels.to_vec1()?;
    if let Some(position) = labels.iter().position(|&label| label as usize >= classes) {
        return Err(Error::Index {
            op,
            name: "labels",
            position,
            value: labels[position] as usize,
            limit: classes,
        }
        .into());
    }
    Ok(labels)
}

/// Number of classes. Refuses logits that are not a matrix with at least one row and class.
fn check_logits(op: &'static str, logits: &Tensor) -> Result<usize> {
    match logits.dims() {
        &[rows, classes] if rows > 0 && classes > 0 => Ok(classes),
        _ => Err(Error::Argument {
            op,
            name: "logits",
            shape: logits.dims().to_vec(),
            expected: "(rows, classes), at least one of each".to_owned(),
        }
        .into()),
    }
}

multiversion! {
    /// Log-sum-exp of a row: ln(sum(exp(row))).
    fn log_sum_exp<T, HAS_FMA>(row: &[T]) -> T {
        let top = largest(row);
        if top == T::NEG_INFINITY {
            return top;
        }
        top + sum1(row, |x, sum| sum + (x - top).exp::<HAS_FMA>()).ln()
    }
}

multiversion! {
    /// Scaled softmax of a row: out = factor exp(row - log_sum).
    fn scaled_softmax<T, HAS_FMA>(
        row: &[T], log_sum: T, factor: T, out: &mut [std::mem::MaybeUninit<T>],
    ) {
        for (&x, out) in row.iter().zip(out) {
            out.write(factor * (x - log_sum).exp::<HAS_FMA>());
        }
    }
}

enum Targets {
    Soft(Tensor),
    Labels(Vec<u32>),
}

struct CrossEntropy {
    op: &'static str,
    targets: Targets,
    /// Log-sum-exp of every row, saved by the forward pass as f64 (exact for both types).
    log_sums: OnceLock<Vec<f64>>,
    /// State saved by the forward pass on a GPU.
    #[cfg(feature = "cuda")]
    state: OnceLock<bridge::LossState>,
}

impl CrossEntropy {
    fn new(op: &'static str, targets: Targets) -> Self {
        Self {
            op,
            targets,
            log_sums: OnceLock::new(),
            #[cfg(feature = "cuda")]
            state: OnceLock::new(),
        }
    }

    #[cfg(feature = "cuda")]
    fn rows(&self) -> bridge::LossRows<'_> {
        match &self.targets {
            Targets::Soft(targets) => bridge::LossRows::Soft(targets),
            Targets::Labels(labels) => bridge::LossRows::Labels(labels),
        }
    }

    fn run<T: Float>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = Rows::<T>::new(storage, layout)?;
        let log_sums: Vec<T> =
            (0..logits.rows).into_par_iter().map(|row| log_sum_exp(logits.row(row))).collect();
        // The sum over rows in f64 and in order.
        let total: f64 = match &self.targets {
            Targets::Labels(labels) => labels
                .iter()
                .enumerate()
                .map(|(row, &label)| (log_sums[row] - logits.row(row)[label as usize]).to_f64())
                .sum(),
            Targets::Soft(targets) => {
                let (targets, layout) = targets.storage_and_layout();
                let targets = Rows::<T>::of(&targets, layout)?;
                let losses: Vec<f64> = (0..logits.rows)
                    .into_par_iter()
                    .map(|row| {
                        let pairs = logits.row(row).iter().zip(targets.row(row));
                        let wanted = pairs.filter(|(_, target)| **target != T::zero());
                        wanted.map(|(&x, &target)| (target * (log_sums[row] - x)).to_f64()).sum()
                    })
                    .collect();
                losses.iter().sum()
            }
        };
        let _ = self.log_sums.set(log_sums.into_iter().map(T::to_f64).collect());
        let mean = T::from_f64(total / logits.rows as f64);
        Ok((T::to_cpu_storage_owned(vec![mean]), Shape::from(())))
    }

    /// Logit gradient: dlogits = dy / N (softmax(logits) sum(targets) - targets).
    fn gradient<T: Float>(&self, logits_tensor: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let Some(log_sums) = self.log_sums.get() else {
            return Err(candle_core::Error::BackwardNotSupported { op: self.op });
        };
        let (storage, layout) = logits_tensor.storage_and_layout();
        let logits = Rows::<T>::of(&storage, layout)?;
        let (rows, classes) = (logits.rows, logits.columns);
        let scale = T::from_f64(dy.to_scalar::<T>()?.to_f64() / rows as f64);
        let targets = match &self.targets {
            Targets::Soft(targets) => Some(targets.storage_and_layout()),
            Targets::Labels(_) => None,
        };
        let targets =
            targets.as_ref().map(|(storage, layout)| Rows::<T>::of(storage, layout)).transpose()?;
        // SAFETY: every row is written by `scaled_softmax` before anything else touches it.
        let gradient = unsafe {
            fill_uninit(rows * classes, |gradient| {
                gradient.par_chunks_mut(classes).enumerate().for_each(|(row, out)| {
                    let log_sum = T::from_f64(log_sums[row]);
                    let weight = match &targets {
                        Some(targets) => targets.row(row).iter().copied().sum(),
                        None => T::one(),
                    };
                    scaled_softmax(logits.row(row), log_sum, scale * weight, out);
                    match (&targets, &self.targets) {
                        (Some(targets), _) => {
                            for (out, &target) in out.iter_mut().zip(targets.row(row)) {
                                *out.assume_init_mut() -= scale * target;
                            }
                        }
                        (None, Targets::Labels(labels)) => {
                            *out[labels[row] as usize].assume_init_mut() -= scale;
                        }
                        (None, Targets::Soft(_)) => {}
                    }
                });
            })
        };
        tensor_from_vec(gradient, &[rows, classes])
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_element!(self.op, storage.dtype(), T => self.run::<T>(storage, layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (loss, shape, state) = bridge::loss_forward(self.op, (storage, layout), self.rows())?;
        let _ = self.state.set(state);
        Ok((loss, shape))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        on_gpu!(logits => {
            let state = bridge::kept(self.op, &self.state)?;
            bridge::loss_backward(self.op, logits, self.rows(), state, dy).map(Some)
        });
        by_element!(self.op, logits.dtype(), T => self.gradient::<T>(logits, dy)).map(Some)
    }
}
