//! The exact Gaussian error linear unit.

use candle_core::{Result, Tensor};

/// `x * Phi(x)` with the exact normal distribution function (erf, not the tanh approximation).
///
/// # Errors
/// An element type other than f32 or f64.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}
