//! What an adapter makes of a site's frozen map.

use crate::Result;
use aurora_kernels::{LowRank, Mode, adapted_linear, linear};
use candle_core::Tensor;

/// A site's map as it is tuned: `y = s * (x (W + dW)^T) + b`, or with the bias inside the scale. Either part may be
/// missing; with neither the map is the frozen one.
///
/// One value stands for one state of the adapter, say one training step.
#[derive(Debug, Default)]
pub struct Change {
    /// The delta of the weight, dW.
    pub delta: Option<LowRank>,
    /// What the outputs are multiplied by.
    pub scale: Option<OutputScale>,
}

/// A factor on each output of a map.
#[derive(Debug, Clone)]
pub struct OutputScale {
    /// The factors s, (out).
    pub factors: Tensor,
    /// Whether they act on the bias as well.
    pub bias: bool,
}

impl Change {
    /// The tuned map of `x` (.., in) with the frozen `weight` (out, in) and `bias` (out): (.., out).
    pub(crate) fn apply(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        mode: Mode,
    ) -> Result<Tensor> {
        let y = match &self.delta {
            None => linear(x, weight, Some(bias))?,
            Some(delta) => adapted_linear(x, weight, Some(bias), delta, mode)?,
        };
        let Some(OutputScale { factors, bias: with_bias }) = &self.scale else { return Ok(y) };
        let y = y.broadcast_mul(factors)?;
        if *with_bias {
            return Ok(y);
        }
        // The bias has been scaled with the rest. What that took away is given back as a difference, and not by adding
        // the bias at the end, so that a scale of one changes no bit.
        Ok(y.broadcast_add(&(bias - bias.mul(factors)?)?)?)
    }

    /// The weight (out, in) and bias (out) of a plain map that computes the same, without graph. What does not change
    /// is shared, not copied.
    pub(crate) fn merged(&self, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let summed = match &self.delta {
            None => weight.detach(),
            Some(delta) => delta.effective(weight)?,
        };
        let Some(OutputScale { factors, bias: with_bias }) = &self.scale else {
            return Ok((summed, bias.detach()));
        };
        let factors = factors.detach();
        let weight = summed.broadcast_mul(&factors.unsqueeze(1)?)?;
        Ok((weight, if *with_bias { bias.detach().mul(&factors)? } else { bias.detach() }))
    }

    /// The same with its rank components multiplied by `mask` (rank). Where a delta is made of several sets of the same
    /// components, one after the other, the mask acts on each.
    pub(crate) fn masked(self, mask: &Tensor) -> Result<Self> {
        let Some(delta) = self.delta else { return Ok(self) };
        let sets = delta.rank() / mask.elem_count().max(1);
        let a = delta.a().broadcast_mul(&mask.repeat(sets)?.unsqueeze(1)?)?; // (rank, in)
        Ok(Self { delta: Some(LowRank::new(a, delta.b().clone())?), ..self })
    }
}
