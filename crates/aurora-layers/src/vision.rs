//! Vision transformer: patches, position embeddings, pre-norm blocks.

use crate::gradient_checkpoint::{
    GradientCheckpointing, MapTensors, TensorMapper, as_one_node, checkpointed,
};
use crate::layers::{LayerNorm, Linear, ParamShapes};
use crate::tensors::{Tensors, get};
use crate::text::cls;
use crate::{BoundModel, Result, VisionConfig};
use aurora_kernels::{AttentionOptions, attention, linear_with, patchify, self_attention};
use candle_core::Tensor;

/// Pre-norm block.
#[derive(Debug, Clone)]
struct Block {
    path: String,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Vision tower of BLIP (ViT with a `[CLS]` token).
#[derive(Debug, Clone)]
pub(crate) struct VisionTower {
    config: VisionConfig,
    patch_weight: Tensor, // (width, 3 * patch * patch)
    patch_bias: Tensor,   // (width)
    cls_token: Tensor,    // (1, 1, width)
    positions: Tensor,    // (1, tokens, width)
    blocks: Vec<Block>,
    norm: LayerNorm,
}

fn block_path(layer: usize) -> String {
    format!("visual_encoder.blocks.{layer}")
}

impl VisionTower {
    pub(crate) fn param_shapes(config: &VisionConfig) -> ParamShapes {
        let (width, mlp, patch) = (config.hidden_size, config.intermediate_size, config.patch_size);
        let mut shapes: ParamShapes = vec![
            ("visual_encoder.cls_token".into(), (1, 1, width).into()),
            ("visual_encoder.pos_embed".into(), (1, config.tokens(), width).into()),
            ("visual_encoder.patch_embed.proj.weight".into(), (width, 3, patch, patch).into()),
            ("visual_encoder.patch_embed.proj.bias".into(), width.into()),
        ];
        for layer in 0..config.num_hidden_layers {
            let path = block_path(layer);
            shapes.extend(LayerNorm::param_shapes(&format!("{path}.norm1"), width));
            shapes.extend(Linear::param_shapes(&format!("{path}.attn.qkv"), width, 3 * width));
            shapes.extend(Linear::param_shapes(&format!("{path}.attn.proj"), width, width));
            shapes.extend(LayerNorm::param_shapes(&format!("{path}.norm2"), width));
            shapes.extend(Linear::param_shapes(&format!("{path}.mlp.fc1"), width, mlp));
            shapes.extend(Linear::param_shapes(&format!("{path}.mlp.fc2"), mlp, width));
        }
        shapes.extend(LayerNorm::param_shapes("visual_encoder.norm", width));
        shapes
    }

    pub(crate) fn new(config: &VisionConfig, tensors: &Tensors) -> Result<Self> {
        let eps = config.layer_norm_eps;
        let block = |layer| -> Result<Block> {
            let path = block_path(layer);
            Ok(Block {
                norm1: LayerNorm::new(&format!("{path}.norm1"), eps, tensors)?,
                qkv: Linear::new(&format!("{path}.attn.qkv"), tensors)?,
                proj: Linear::new(&format!("{path}.attn.proj"), tensors)?,
                norm2: LayerNorm::new(&format!("{path}.norm2"), eps, tensors)?,
                fc1: Linear::new(&format!("{path}.mlp.fc1"), tensors)?,
                fc2: Linear::new(&format!("{path}.mlp.fc2"), tensors)?,
                path,
            })
        };
        // A convolution whose stride is its kernel size is a linear layer on each patch.
        let patch_weight =
            get(tensors, "visual_encoder.patch_embed.proj.weight")?.flatten_from(1)?;
        Ok(Self {
            patch_weight,
            patch_bias: get(tensors, "visual_encoder.patch_embed.proj.bias")?,
            cls_token: get(tensors, "visual_encoder.cls_token")?,
            positions: get(tensors, "visual_encoder.pos_embed")?,
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::new("visual_encoder.norm", eps, tensors)?,
            config: config.clone(),
        })
    }

    /// Images (batch, 3, size, size), normalized, to token states (batch, tokens, width); token 0 is `[CLS]`.
    pub(crate) fn forward(&self, images: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        self.pass(images, false, bound)
    }

    /// Images to `[CLS]` states, (batch, width): in the last block the other tokens contribute only keys and values.
    pub(crate) fn forward_cls(&self, images: &Tensor, bound: &BoundModel) -> Result<Tensor> {
        cls(&self.pass(images, true, bound)?)
    }

    fn pass(&self, images: &Tensor, cls_alone: bool, bound: &BoundModel) -> Result<Tensor> {
        let (batch, width) = (images.dim(0)?, self.config.hidden_size);
        let patches = patchify(images, self.config.patch_size)?; // (batch, patches, 3 * patch * patch)
        let patches = linear_with(
            &patches,
            &self.patch_weight,
            Some(&self.patch_bias),
            &bound.precision.into(),
        )?; // (batch, patches, width)
        let cls = self.cls_token.broadcast_as((batch, 1, width))?;
        let mut x = Tensor::cat(&[&cls, &patches], 1)?.broadcast_add(&self.positions)?; // (batch, tokens, width)
        for (index, block) in self.blocks.iter().enumerate() {
            let cls_alone = cls_alone && index + 1 == self.blocks.len();
            let heads = self.config.num_attention_heads;
            x = match bound.gradient_checkpointing {
                GradientCheckpointing::None => {
                    let forward = || block.forward(&x, heads, cls_alone, bound);
                    let part = bound.of_block(&block.path, &[""], false)?;
                    as_one_node(block, &part, vec![x.clone()], forward)?
                }
                GradientCheckpointing::Block => {
                    let own = bound.of_block(&block.path, &[""], false)?;
                    checkpointed(block, own, vec![x], move |block, inputs, bound| {
                        block.forward(&inputs[0], heads, cls_alone, bound)
                    })?
                }
            };
        }
        self.norm.forward(&x)
    }
}

impl MapTensors for Block {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            norm1: self.norm1.map_tensors(mapper)?,
            qkv: self.qkv.map_tensors(mapper)?,
            proj: self.proj.map_tensors(mapper)?,
            norm2: self.norm2.map_tensors(mapper)?,
            fc1: self.fc1.map_tensors(mapper)?,
            fc2: self.fc2.map_tensors(mapper)?,
        })
    }
}

impl Block {
    /// Block: token states (batch, tokens, width) to the next; with `cls_alone` to those of `[CLS]`, (batch, 1, width).
    fn forward(
        &self,
        x: &Tensor,
        heads: usize,
        cls_alone: bool,
        bound: &BoundModel,
    ) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let (x, mixed) = match cls_alone {
            true => (x.narrow(1, 0, 1)?, self.mix_cls(&normed, heads, bound)?),
            false => (x.clone(), self.mix(&normed, heads, bound)?),
        };
        let x = self.proj.adapted_forward_residual(&mixed, &x, bound)?;
        let hidden = self.fc1.adapted_forward_gelu(&self.norm2.forward(&x)?, bound)?; // (batch, tokens, mlp)
        let out = self.fc2.adapted_forward_residual(&hidden, &x, bound)?;
        match bound.parallel.get(&self.path) {
            None => Ok(out),
            Some(parallel) => parallel.add_self(out, &x, bound.precision),
        }
    }

    /// Self-attention of all tokens, before the projection: (batch, tokens, width).
    fn mix(&self, normed: &Tensor, heads: usize, bound: &BoundModel) -> Result<Tensor> {
        let qkv = self.qkv.adapted_forward(normed, bound)?; // (batch, tokens, 3 * width)
        let precision = bound.precision;
        let options = AttentionOptions { precision, ..AttentionOptions::default() };
        Ok(self_attention(&qkv, heads, &options)?)
    }

    /// Self-attention of `[CLS]` over all tokens, before the projection: (batch, 1, width).
    fn mix_cls(&self, normed: &Tensor, heads: usize, bound: &BoundModel) -> Result<Tensor> {
        let (_, _, width) = normed.dims3()?;
        let query = normed.narrow(1, 0, 1)?;
        let query = self.qkv.adapted_forward_rows(&query, (0, width), bound)?; // (batch, 1, width)
        let keys = self.qkv.adapted_forward_rows(normed, (width, 2 * width), bound)?; // (batch, tokens, 2 * width)
        let (key, value) = (keys.narrow(2, 0, width)?, keys.narrow(2, width, width)?);
        let precision = bound.precision;
        let options = AttentionOptions { precision, ..AttentionOptions::default() };
        Ok(attention(&query, &key, &value, heads, &options)?)
    }
}
