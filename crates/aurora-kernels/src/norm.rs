//! Layer normalisation.

use candle_core::{D, Result, Tensor};

/// Layer normalisation over the last dimension of `x` (.., d), scaled by `weight` (d) and shifted
/// by `bias` (d).
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normal.broadcast_mul(weight)?.broadcast_add(bias)
}
