//! Retrieval heads: projections to the joint embedding space, and the matching head.

use crate::layers::{Linear, ParamShapes};
use crate::tensors::Tensors;
use crate::{Architecture, BlipConfig, Result};
use candle_core::{D, Tensor};

/// Projections and matching head, ready to apply.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    pub(crate) vision_proj: Linear,
    pub(crate) text_proj: Linear,
    pub(crate) itm_head: Linear,
}

/// Names and shapes of the heads' tensors; only a retrieval model has any.
pub(crate) fn param_shapes(config: &BlipConfig) -> ParamShapes {
    if config.architecture != Architecture::Retrieval {
        return ParamShapes::new();
    }
    let mut shapes =
        Linear::param_shapes("vision_proj", config.vision.hidden_size, config.projection_dim);
    shapes.extend(Linear::param_shapes(
        "text_proj",
        config.text.hidden_size,
        config.projection_dim,
    ));
    shapes.extend(Linear::param_shapes("itm_head", config.text.hidden_size, 2));
    shapes
}

impl Heads {
    pub(crate) fn new(config: &BlipConfig, tensors: &Tensors) -> Result<Option<Self>> {
        if config.architecture != Architecture::Retrieval {
            return Ok(None);
        }
        Ok(Some(Self {
            vision_proj: Linear::new("vision_proj", tensors)?,
            text_proj: Linear::new("text_proj", tensors)?,
            itm_head: Linear::new("itm_head", tensors)?,
        }))
    }
}

/// L2 normalization of rows: (rows, width) to (rows, width). A zero row stays zero.
pub fn normalize(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    Ok(x.broadcast_div(&norm)?)
}
