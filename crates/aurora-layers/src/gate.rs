//! Gated query transformation: gated affine branches of a fusion layer's self- and cross-attention output, added to the
//! layer's output (Wang et al. 2023, arXiv:2305.08381).

use crate::gradient_checkpoint::{MapTensors, TensorMapper};
use crate::site::{text_layer, text_towers};
use crate::tensors::{Tensors, get};
use crate::{BlipConfig, Result, Variant};
use candle_core::Tensor;

/// Scale of both branches in the reference code, which has no gate.
const REFERENCE_SCALE: f64 = 0.1;

/// Affine branches of one fusion layer, ready to apply.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    own: Branch,
    cross: Branch,
}

#[derive(Debug, Clone)]
struct Branch {
    /// tanh(a), (1), in variant paper; none in variant reference.
    gate: Option<Tensor>,
    scale: Tensor, // (width)
    shift: Tensor, // (width)
}

/// Name of a gate tensor of the fusion layer at this path: six per layer, four in variant reference.
pub(crate) fn name(layer: &str, branch: &str, part: &str) -> String {
    format!("{layer}.aurora_{part}_{branch}")
}

/// Paths of the layers that can have a gate: those with cross-attention.
pub(crate) fn layers(config: &BlipConfig) -> Vec<String> {
    let layers =
        |(tower, _)| (0..config.text.num_hidden_layers).map(move |layer| text_layer(tower, layer));
    text_towers(config).into_iter().flat_map(layers).collect()
}

impl Gate {
    pub(crate) fn new(layer: &str, variant: Variant, tensors: &Tensors) -> Result<Self> {
        let branch = |branch: &str| -> Result<Branch> {
            let gate = match variant {
                Variant::Paper => Some(get(tensors, &name(layer, branch, "gate"))?.tanh()?),
                Variant::Reference => None,
            };
            let scale = get(tensors, &name(layer, branch, "scale"))?;
            Ok(Branch { gate, scale, shift: get(tensors, &name(layer, branch, "shift"))? })
        };
        Ok(Self { own: branch("self")?, cross: branch("cross")? })
    }

    /// `out + gate_s (scale_s * h_self + shift_s) + gate_c (scale_c * h_cross + shift_c)`, all (tokens, width). In
    /// variant reference both gates are 0.1.
    pub(crate) fn apply(&self, out: &Tensor, h_self: &Tensor, h_cross: &Tensor) -> Result<Tensor> {
        Ok(((out + self.own.apply(h_self)?)? + self.cross.apply(h_cross)?)?)
    }
}

impl MapTensors for Gate {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        let mut branch = |branch: &Branch| -> Result<Branch> {
            let gate = branch.gate.as_ref().map(&mut *mapper).transpose()?;
            let scale = mapper(&branch.scale)?;
            Ok(Branch { gate, scale, shift: mapper(&branch.shift)? })
        };
        let own = branch(&self.own)?;
        Ok(Self { own, cross: branch(&self.cross)? })
    }
}

impl Branch {
    fn apply(&self, h: &Tensor) -> Result<Tensor> {
        // The gate is folded into the two vectors, so that the large tensor is touched twice, not three times.
        let (scale, shift) = match &self.gate {
            Some(gate) => (self.scale.broadcast_mul(gate)?, self.shift.broadcast_mul(gate)?),
            None => ((&self.scale * REFERENCE_SCALE)?, (&self.shift * REFERENCE_SCALE)?),
        };
        Ok(h.broadcast_mul(&scale)?.broadcast_add(&shift)?)
    }
}

/// True if a tensor of this name is the gate of a branch, in variant paper.
pub(crate) fn is_gate(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.starts_with("aurora_gate_"))
}

/// True if a tensor of this name belongs to a gate.
pub(crate) fn is_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["gate", "scale", "shift"].iter().any(|part| last.starts_with(&format!("aurora_{part}_")))
}
