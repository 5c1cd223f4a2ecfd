//! Layers: linear with an optional delta, and layer norm.

use crate::gradient_checkpoint::{MapTensors, TensorMapper, is_tracked};
use crate::tensors::{Tensors, get};
use crate::{BoundModel, Error, Result};
use aurora_kernels::{Epilogue, linear_with};
use candle_core::{Shape, Tensor};

/// Names and shapes of a model's tensors.
pub(crate) type ParamShapes = Vec<(String, Shape)>;

/// Linear layer `y = x W^T + b` at a path of the backbone.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    path: String,
    weight: Tensor, // (out, in)
    bias: Tensor,   // (out)
}

impl Linear {
    pub(crate) fn param_shapes(path: &str, in_dim: usize, out_dim: usize) -> ParamShapes {
        vec![
            (format!("{path}.weight"), (out_dim, in_dim).into()),
            (format!("{path}.bias"), out_dim.into()),
        ]
    }

    pub(crate) fn new(path: &str, tensors: &Tensors) -> Result<Self> {
        let weight = get(tensors, &format!("{path}.weight"))?;
        Ok(Self { path: path.into(), weight, bias: get(tensors, &format!("{path}.bias"))? })
    }

    /// Linear layer without delta, for layers that are no sites.
    pub(crate) fn forward(&self, x: &Tensor, options: impl Into<Epilogue>) -> Result<Tensor> {
        Ok(linear_with(x, &self.weight, Some(&self.bias), &options.into())?)
    }

    /// Linear layer without delta, plus a residual.
    pub(crate) fn forward_residual(
        &self,
        x: &Tensor,
        residual: &Tensor,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        self.forward(x, Epilogue { residual: Some(residual.clone()), ..bound.precision.into() })
    }

    /// Linear layer without delta, then GELU.
    pub(crate) fn forward_gelu(&self, x: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.forward(x, Epilogue { gelu: true, ..bound.precision.into() })
    }

    /// Linear layer with the delta that `bound` has for it, if any.
    pub(crate) fn adapted_forward(&self, x: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.adapted_forward_with(x, bound.precision.into(), bound)
    }

    /// Linear layer with delta, plus a residual.
    pub(crate) fn adapted_forward_residual(
        &self,
        x: &Tensor,
        residual: &Tensor,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let residual = Some(residual.clone());
        self.adapted_forward_with(x, Epilogue { residual, ..bound.precision.into() }, bound)
    }

    /// Linear layer with delta, then GELU.
    pub(crate) fn adapted_forward_gelu(&self, x: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.adapted_forward_with(x, Epilogue { gelu: true, ..bound.precision.into() }, bound)
    }

    fn adapted_forward_with(
        &self,
        x: &Tensor,
        options: Epilogue,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        match bound.deltas.get(&self.path) {
            None => self.forward(x, options),
            Some(layer_delta) => {
                layer_delta.apply(x, &self.weight, &self.bias, options, bound.mode)
            }
        }
    }

    /// Merged weight (out, in) and bias (out) of the layer with its delta, for passes without graph.
    ///
    /// # Errors
    /// A tensor that wants a gradient: it would get none.
    pub(crate) fn merged(&self, bound: &BoundModel) -> Result<(Tensor, Tensor)> {
        let layer_delta = bound.deltas.get(&self.path);
        if is_tracked(self)? || layer_delta.map(is_tracked).transpose()?.unwrap_or(false) {
            let reason = "is trained, and a map that is folded into others has no gradient; \
                          take a view without graph (AdaptedParams::detached) or Blip::encode_kv";
            return Err(Error::config("map", &self.path, reason));
        }
        match layer_delta {
            None => Ok((self.weight.clone(), self.bias.clone())),
            Some(layer_delta) => layer_delta.merged(&self.weight, &self.bias),
        }
    }

    /// Outputs `first..first + count` of the linear layer with delta: (.., count).
    pub(crate) fn adapted_forward_rows(
        &self,
        x: &Tensor,
        (first, count): (usize, usize),
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let (weight, bias) =
            (self.weight.narrow(0, first, count)?, self.bias.narrow(0, first, count)?);
        match bound.deltas.get(&self.path) {
            None => Ok(linear_with(x, &weight, Some(&bias), &bound.precision.into())?),
            Some(layer_delta) => layer_delta.outputs(first, count)?.apply(
                x,
                &weight,
                &bias,
                bound.precision.into(),
                bound.mode,
            ),
        }
    }
}

impl MapTensors for Linear {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        let weight = mapper(&self.weight)?;
        Ok(Self { path: self.path.clone(), weight, bias: mapper(&self.bias)? })
    }
}

/// True if a tensor of this name belongs to a layer norm.
pub(crate) fn is_norm(name: &str) -> bool {
    name.contains("norm") || name.contains("LayerNorm")
}

/// Layer norm over the last dimension (Ba et al. 2016, arXiv:1607.06450).
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn param_shapes(path: &str, width: usize) -> ParamShapes {
        vec![(format!("{path}.weight"), width.into()), (format!("{path}.bias"), width.into())]
    }

    pub(crate) fn new(path: &str, eps: f64, tensors: &Tensors) -> Result<Self> {
        let weight = get(tensors, &format!("{path}.weight"))?;
        Ok(Self { weight, bias: get(tensors, &format!("{path}.bias"))?, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(aurora_kernels::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

impl MapTensors for LayerNorm {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        let weight = mapper(&self.weight)?;
        Ok(Self { weight, bias: mapper(&self.bias)?, eps: self.eps })
    }
}
