//! Cross-entropy losses.

use candle_core::{D, DType, Result, Tensor};

/// Mean over rows of `-sum(targets * log_softmax(logits))`, both (N, C); a scalar.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let top = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&top)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_p = shifted.broadcast_sub(&log_sum)?;
    (log_p * targets.detach())?.sum_all()?.affine(-1.0 / logits.dim(0)? as f64, 0.0)
}

/// Mean over rows of the negative log-likelihood of `labels` (N, u32) under `logits` (N, C); a
/// scalar.
///
/// # Errors
/// Shapes or element types that do not fit, a label that is not below C.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0u32, logits.dim(1)? as u32, logits.device())?;
    let hot = labels
        .to_dtype(DType::U32)?
        .unsqueeze(1)?
        .broadcast_eq(&classes.unsqueeze(0)?)?
        .to_dtype(logits.dtype())?;
    soft_cross_entropy(logits, &hot)
}
