//! The vision transformer: patches, position embeddings, pre-norm blocks.

use crate::block::{LayerNorm, Linear, Wanted};
use crate::tensors::{Tensors, get};
use crate::{Prepared, Result, VisionConfig};
use aurora_kernels::{AttentionOptions, gelu, linear, self_attention, unfold_patches};
use candle_core::Tensor;

#[derive(Debug, Clone)]
struct Block {
    path: String,
    norm1: LayerNorm,
    qkv: Linear,
    projection: Linear,
    norm2: LayerNorm,
    expand: Linear,
    contract: Linear,
}

/// The vision tower of BLIP (ViT with a `[CLS]` token).
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
    pub(crate) fn wanted(config: &VisionConfig) -> Wanted {
        let (width, mlp, patch) = (config.hidden_size, config.mlp_size, config.patch_size);
        let mut wanted: Wanted = vec![
            ("visual_encoder.cls_token".into(), (1, 1, width).into()),
            ("visual_encoder.pos_embed".into(), (1, config.tokens(), width).into()),
            ("visual_encoder.patch_embed.proj.weight".into(), (width, 3, patch, patch).into()),
            ("visual_encoder.patch_embed.proj.bias".into(), width.into()),
        ];
        for layer in 0..config.layers {
            let path = block_path(layer);
            wanted.extend(LayerNorm::wanted(&format!("{path}.norm1"), width));
            wanted.extend(Linear::wanted(&format!("{path}.attn.qkv"), width, 3 * width));
            wanted.extend(Linear::wanted(&format!("{path}.attn.proj"), width, width));
            wanted.extend(LayerNorm::wanted(&format!("{path}.norm2"), width));
            wanted.extend(Linear::wanted(&format!("{path}.mlp.fc1"), width, mlp));
            wanted.extend(Linear::wanted(&format!("{path}.mlp.fc2"), mlp, width));
        }
        wanted.extend(LayerNorm::wanted("visual_encoder.norm", width));
        wanted
    }

    pub(crate) fn new(config: &VisionConfig, tensors: &Tensors) -> Result<Self> {
        let eps = config.layer_norm_eps;
        let block = |layer| -> Result<Block> {
            let path = block_path(layer);
            Ok(Block {
                norm1: LayerNorm::new(&format!("{path}.norm1"), eps, tensors)?,
                qkv: Linear::new(&format!("{path}.attn.qkv"), tensors)?,
                projection: Linear::new(&format!("{path}.attn.proj"), tensors)?,
                norm2: LayerNorm::new(&format!("{path}.norm2"), eps, tensors)?,
                expand: Linear::new(&format!("{path}.mlp.fc1"), tensors)?,
                contract: Linear::new(&format!("{path}.mlp.fc2"), tensors)?,
                path,
            })
        };
        // A convolution whose stride is its kernel is a linear map of each patch.
        let patch_weight =
            get(tensors, "visual_encoder.patch_embed.proj.weight")?.flatten_from(1)?;
        Ok(Self {
            patch_weight,
            patch_bias: get(tensors, "visual_encoder.patch_embed.proj.bias")?,
            cls_token: get(tensors, "visual_encoder.cls_token")?,
            positions: get(tensors, "visual_encoder.pos_embed")?,
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::new("visual_encoder.norm", eps, tensors)?,
            config: config.clone(),
        })
    }

    /// Pictures (batch, 3, size, size), normalised, to token states (batch, tokens, width); token 0 is `[CLS]`.
    pub(crate) fn forward(&self, images: &Tensor, prepared: &Prepared) -> Result<Tensor> {
        let (batch, width) = (images.dim(0)?, self.config.hidden_size);
        let patches = unfold_patches(images, self.config.patch_size)?; // (batch, patches, 3 * patch * patch)
        let patches = linear(&patches, &self.patch_weight, Some(&self.patch_bias))?; // (batch, patches, width)
        let cls = self.cls_token.broadcast_as((batch, 1, width))?;
        let mut x = Tensor::cat(&[&cls, &patches], 1)?.broadcast_add(&self.positions)?; // (batch, tokens, width)
        for block in &self.blocks {
            x = block.forward(&x, self.config.heads, prepared)?;
        }
        self.norm.forward(&x)
    }
}

impl Block {
    fn forward(&self, x: &Tensor, heads: usize, prepared: &Prepared) -> Result<Tensor> {
        let qkv = self.qkv.adapted(&self.norm1.forward(x)?, prepared)?; // (batch, tokens, 3 * width)
        let mixed = self_attention(&qkv, heads, &AttentionOptions::default())?; // (batch, tokens, width)
        let x = (x + self.projection.adapted(&mixed, prepared)?)?;
        let hidden = gelu(&self.expand.adapted(&self.norm2.forward(&x)?, prepared)?)?; // (batch, tokens, mlp)
        let out = (&x + self.contract.adapted(&hidden, prepared)?)?;
        match prepared.beside.get(&self.path) {
            None => Ok(out),
            Some(beside) => beside.add_own(out, &x),
        }
    }
}
