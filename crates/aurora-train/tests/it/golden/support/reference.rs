//! Models of the reference PyTorch code, from its weights.

use super::{Fixture, folder};
use aurora_kernels::{DeltaMode, Precision};
use aurora_layers::{
    AdapterConfig, Architecture, Blip, BlipConfig, BoundModel, DecoderTokens,
    GradientCheckpointing, TextConfig, VisionConfig, reference_checkpoint,
};
use candle_core::Var;
use std::collections::BTreeMap;

/// Model configuration from `med_config.json` and the shapes of the weights.
pub fn config(weights: &Fixture) -> BlipConfig {
    let path = folder().join("med_config.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let med: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| {
        med[key].as_u64().unwrap_or_else(|| panic!("{key} in med_config.json")) as usize
    };
    let dims = |name: &str| weights[name].dims().to_vec();
    let patch = dims("visual_encoder.patch_embed.proj.weight");
    let grid = ((dims("visual_encoder.pos_embed")[1] - 1) as f64).sqrt() as usize;
    let blocks = (0..)
        .take_while(|n| weights.contains_key(&format!("visual_encoder.blocks.{n}.norm1.weight")))
        .count();
    BlipConfig {
        vision: VisionConfig {
            image_size: grid * patch[2],
            patch_size: patch[2],
            hidden_size: patch[0],
            num_hidden_layers: blocks,
            num_attention_heads: number("num_attention_heads"),
            intermediate_size: dims("visual_encoder.blocks.0.mlp.fc1.weight")[0],
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: number("vocab_size"),
            hidden_size: number("hidden_size"),
            num_hidden_layers: number("num_hidden_layers"),
            num_attention_heads: number("num_attention_heads"),
            intermediate_size: number("intermediate_size"),
            max_position_embeddings: number("max_position_embeddings"),
            layer_norm_eps: med["layer_norm_eps"].as_f64().unwrap(),
            enc_token_id: number("vocab_size") as u32 - 1,
        },
        projection_dim: weights.get("vision_proj.weight").map_or(16, |head| head.dims()[0]),
        architecture: match weights.contains_key("text_decoder.cls.predictions.bias") {
            true => Architecture::QuestionAnswering(DecoderTokens {
                start_token_id: number("vocab_size") as u32 - 2,
                end_token_id: 3,
                pad_token_id: 0,
            }),
            false => Architecture::Retrieval,
        },
    }
}

/// Splits tensors into the backbone's and the adapter's.
pub fn split(
    tensors: &Fixture,
    adapter_config: &AdapterConfig,
    config: &BlipConfig,
) -> (Fixture, Fixture) {
    let pick = |wanted: Vec<(String, candle_core::Shape)>| -> Fixture {
        wanted.into_iter().map(|(name, _)| (name.clone(), tensors[&name].clone())).collect()
    };
    (pick(Blip::param_shapes(config)), pick(adapter_config.param_shapes(config).unwrap()))
}

/// Online tensors of a state dict as variables under our names, and the tensors behind them.
pub fn variables(online: &Fixture) -> (BTreeMap<String, Var>, Fixture) {
    let variables: BTreeMap<String, Var> = reference_checkpoint::translate(online)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (name, Var::from_tensor(&tensor).unwrap()))
        .collect();
    let tensors =
        variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    (variables, tensors)
}

/// Settings of a computation; all of one precision give the same numbers.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// True if only what the reference code tunes is trained, not the backbone too.
    pub frozen: bool,
    pub mode: DeltaMode,
    pub precision: Precision,
    pub gradient_checkpointing: GradientCheckpointing,
}

impl Setting {
    pub const PLAIN: Self = Self {
        frozen: false,
        mode: DeltaMode::Auto,
        precision: Precision::F32,
        gradient_checkpointing: GradientCheckpointing::None,
    };

    /// All settings in f32.
    pub fn all() -> impl Iterator<Item = Self> {
        // With a trained backbone there is one way to apply a delta.
        let modes =
            [(false, DeltaMode::Auto), (true, DeltaMode::Apply), (true, DeltaMode::Reconstruct)];
        modes.into_iter().flat_map(|(frozen, mode)| {
            [GradientCheckpointing::None, GradientCheckpointing::Block].map(
                |gradient_checkpointing| Self {
                    frozen,
                    mode,
                    precision: Precision::F32,
                    gradient_checkpointing,
                },
            )
        })
    }

    pub fn apply(self, mut bound: BoundModel) -> BoundModel {
        (bound.mode, bound.gradient_checkpointing) = (self.mode, self.gradient_checkpointing);
        bound.precision = self.precision;
        bound
    }
}
