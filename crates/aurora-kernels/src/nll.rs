//! Negative log-likelihood of tokens, one value per row: the training loss of a language model, and the score by
//! which it ranks answers.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::cross_entropy::{check_labels, log_sum_exp, scaled_softmax};
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::float::Float;
use crate::multiversion::sum1;
use crate::tape::apply1;
use crate::view::{Rows, by_element, fill_uninit, on_gpu, tensor_from_vec};

/// Negative log-likelihood of each row's label (`labels` is (N), u32) under `logits` (N, C), shape (N): `-(1 - s) log
/// p(label) - s mean over classes of log p(class)`, with p the softmax of the row and s the label smoothing (Szegedy
/// et al. 2015, arXiv:1512.00567), between 0 and 1; 0 is the plain negative log-likelihood.
///
/// # Errors
/// Shapes or element types that do not fit, no rows, a label that is not below C.
pub fn negative_log_likelihood(
    logits: &Tensor,
    labels: &Tensor,
    label_smoothing: f64,
) -> Result<Tensor> {
    const OP: &str = "negative_log_likelihood";
    let labels = check_labels(OP, logits, labels)?;
    apply1(
        logits,
        NegativeLogLikelihood {
            op: OP,
            labels,
            label_smoothing,
            log_sums: OnceLock::new(),
            #[cfg(feature = "cuda")]
            state: OnceLock::new(),
        },
    )
}

struct NegativeLogLikelihood {
    op: &'static str,
    labels: Vec<u32>,
    label_smoothing: f64,
    /// Log-sum-exp of every row, saved by the forward pass as f64 (exact for both types).
    log_sums: OnceLock<Vec<f64>>,
    /// State saved by the forward pass on a GPU.
    #[cfg(feature = "cuda")]
    state: OnceLock<bridge::LossState>,
}

impl NegativeLogLikelihood {
    fn run<T: Float>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = Rows::<T>::new(storage, layout)?;
        let log_sums: Vec<T> =
            (0..logits.rows).into_par_iter().map(|row| log_sum_exp(logits.row(row))).collect();
        let smoothing = self.label_smoothing;
        let loss = |(row, &label): (usize, &u32)| {
            let logits = logits.row(row);
            let log_sum = log_sums[row].to_f64();
            let of_label = log_sum - logits[label as usize].to_f64();
            if smoothing == 0.0 {
                return T::from_f64(of_label);
            }
            let mean = sum1(logits, |x, sum| sum + x).to_f64() / logits.len() as f64;
            T::from_f64((1.0 - smoothing) * of_label + smoothing * (log_sum - mean))
        };
        let losses: Vec<T> = self.labels.iter().enumerate().map(loss).collect();
        let _ = self.log_sums.set(log_sums.iter().map(|sum| sum.to_f64()).collect());
        Ok((T::to_cpu_storage_owned(losses), Shape::from(logits.rows)))
    }

    /// Logit gradient: dlogits = dy (softmax(logits) - (1 - s) onehot(label) - s / C), row by row.
    fn gradient<T: Float>(&self, logits: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let Some(log_sums) = self.log_sums.get() else {
            return Err(candle_core::Error::BackwardNotSupported { op: self.op });
        };
        let dy: Vec<T> = dy.to_vec1()?;
        let (storage, layout) = logits.storage_and_layout();
        let logits = Rows::<T>::of(&storage, layout)?;
        let (rows, classes) = (logits.rows, logits.columns);
        let spread = T::from_f64(self.label_smoothing / classes as f64);
        let rest = T::from_f64(1.0 - self.label_smoothing);
        // SAFETY: every row is written by `scaled_softmax` before anything else touches it.
        let gradient = unsafe {
            fill_uninit(rows * classes, |gradient| {
                gradient.par_chunks_mut(classes).enumerate().for_each(|(row, out)| {
                    let log_sum = T::from_f64(log_sums[row]);
                    scaled_softmax(logits.row(row), log_sum, dy[row], out);
                    if self.label_smoothing != 0.0 {
                        for out in out.iter_mut() {
                            *out.assume_init_mut() -= dy[row] * spread;
                        }
                    }
                    *out[self.labels[row] as usize].assume_init_mut() -= dy[row] * rest;
                });
            })
        };
        tensor_from_vec(gradient, &[rows, classes])
    }
}

impl CustomOp1 for NegativeLogLikelihood {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_element!(self.op, storage.dtype(), T => self.run::<T>(storage, layout))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let rows = bridge::LossRows::Each(&self.labels, self.label_smoothing);
        let (losses, shape, state) = bridge::loss_forward(self.op, (storage, layout), rows)?;
        let _ = self.state.set(state);
        Ok((losses, shape))
    }

    fn bwd(&self, logits: &Tensor, _losses: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        on_gpu!(logits => {
            let rows = bridge::LossRows::Each(&self.labels, self.label_smoothing);
            let state = bridge::kept(self.op, &self.state)?;
            bridge::loss_backward(self.op, logits, rows, state, dy).map(Some)
        });
        by_element!(self.op, logits.dtype(), T => self.gradient::<T>(logits, dy)).map(Some)
    }
}
