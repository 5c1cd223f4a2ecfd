//! Parts of whole passes: blocks with and without gradient checkpointing, texts with their padding and without.

use std::sync::Arc;

use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    CrossAttention, EncoderKv, GradientCheckpointing, TextConfig, Variant, VisionConfig,
};
use candle_core::{Device, Result, Tensor, Var};

use super::Shared;
use super::cp::other;
use crate::cost::Cost;
use crate::model_cost::{ModelCost, Side};
use crate::site::{PADDED, TEXTS, TOKENS};
use crate::{BenchCase, Setting, check, check_within, normal, values};

/// Number of blocks and layers: one is no stack, and more say the same.
const LAYERS: usize = 2;
const RANK: usize = 64;

/// BLIP-base for images of 224 pixels, with few layers and words.
fn config() -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 224,
            patch_size: 16,
            hidden_size: 768,
            num_hidden_layers: LAYERS,
            num_attention_heads: 12,
            intermediate_size: 3072,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 1000,
            hidden_size: 768,
            num_hidden_layers: LAYERS,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            enc_token_id: 999,
        },
        projection_dim: 256,
        architecture: Architecture::default(),
    }
}

/// Two pairs of cases, each with its plain baseline after it.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let backbone = Shared::new(|| Backbone::random(config(), 0, &Device::Cpu).map_err(other));
    let mut cases = blocks(setting, &backbone);
    cases.extend(texts(setting, &backbone));
    cases
}

/// Pass over images with every linear layer adapted, forward and backward, with merged weights formed on the way.
struct Blocks {
    blip: Arc<Blip>,
    tuned: AdaptedParams,
    variables: Vec<(String, Var)>,
    images: Tensor,
}

impl Blocks {
    fn new(backbone: &Backbone, images: usize) -> Result<Self> {
        let blip = Arc::new(backbone.model().map_err(other)?);
        let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, RANK);
        let mut tuned =
            AdaptedParams::init(adapter_config, backbone, 0, &Device::Cpu).map_err(other)?;
        // Away from the initialization, where half of the gradients are zero.
        for (index, tensor) in (0..).zip(tuned.tensors.values_mut()) {
            *tensor = (&*tensor + (normal(index, tensor.dims())? * 0.02)?)?;
        }
        let (tuned, variables) = tuned.into_variables().map_err(other)?;
        let size = backbone.config.vision.image_size;
        Ok(Self { blip, tuned, variables, images: normal(0, &[images, 3, size, size])? })
    }

    /// Gradients of the trained tensors.
    fn run(&self, gradient_checkpointing: GradientCheckpointing) -> Result<Vec<Option<Tensor>>> {
        let mut bound = self.tuned.bind(&self.blip, None).map_err(other)?;
        bound.gradient_checkpointing = gradient_checkpointing;
        let states = self.blip.encode_image(&self.images, &bound).map_err(other)?;
        let grads = states.backward()?;
        Ok(self.variables.iter().map(|(_, variable)| grads.get(variable).cloned()).collect())
    }
}

fn blocks(setting: &Setting, backbone: &Shared<Backbone>) -> Vec<BenchCase> {
    let images = setting.images;
    let of = backbone.clone();
    let shared = Shared::new(move || Blocks::new(&*of.get()?, images));
    let case = |(name, gradient_checkpointing): (&str, GradientCheckpointing)| {
        let text = format!("{LAYERS} blocks, {images}x197x768 R={RANK}");
        let of = shared.clone();
        let cost = move |e| {
            let config = config();
            let cost = ModelCost { config: &config, side: Side::Ours { rank: RANK as u64 } };
            let operations = match gradient_checkpointing {
                GradientCheckpointing::None => cost.vision_trained(images as u64),
                GradientCheckpointing::Block => cost.vision_recomputed(images as u64),
            };
            // Weights of the linear layers, and the images; saved activations of blocks are not counted.
            let weights = LAYERS * 12 * 768 * 768;
            Cost { operations, bytes: e * (weights + images * 3 * 224 * 224) as u64 }
        };
        BenchCase::new("vit_b16_224.blocks", name, text, cost).on_cpu(move || {
            let of = of.get()?;
            let each = of
                .run(gradient_checkpointing)?
                .into_iter()
                .zip(of.run(GradientCheckpointing::None)?);
            let mut compared = 0;
            for ((found, wanted), (name, _)) in each.zip(&of.variables) {
                let Some(wanted) = wanted else { continue };
                let Some(found) = found else { candle_core::bail!("no gradient of {name}") };
                check_within(name, &values(&found)?, &values(&wanted)?, 1e-6)?;
                compared += 1;
            }
            if compared == 0 {
                candle_core::bail!("nothing is trained");
            }
            Ok(move || of.run(gradient_checkpointing).map(drop))
        })
    };
    [("recomputed", GradientCheckpointing::Block), ("kept", GradientCheckpointing::None)]
        .map(case)
        .into()
}

/// Texts that attend to images whose keys and values are already computed.
struct Texts {
    blip: Blip,
    keys: EncoderKv,
    rows: Arc<[u32]>,
    ids: Tensor,
    mask: Tensor,
}

impl Texts {
    fn new(backbone: &Backbone, images: usize) -> Result<Self> {
        let blip = backbone.model().map_err(other)?;
        let states = normal(0, &[images, backbone.config.vision.tokens(), 768])?;
        let keys = blip.encode_kv(&states, &blip.bind_frozen().map_err(other)?).map_err(other)?;
        let texts = TEXTS * images;
        let ids: Vec<u32> = (0..texts * PADDED).map(|place| place as u32 * 37 % 999).collect();
        let row: Vec<f32> = (0..PADDED).map(|at| f32::from(u8::from(at < TOKENS))).collect();
        Ok(Self {
            blip,
            keys,
            rows: (0..texts).map(|text| (text % images) as u32).collect(),
            ids: Tensor::from_vec(ids, (texts, PADDED), &Device::Cpu)?,
            mask: Tensor::from_vec(row.repeat(texts), (texts, PADDED), &Device::Cpu)?,
        })
    }

    fn run(&self, packed: bool) -> Result<Tensor> {
        let bare = self.blip.bind_frozen().map_err(other)?;
        let seen = CrossAttention::new(&self.keys).rows(self.rows.clone());
        match packed {
            true => self.blip.fuse_tokens(&self.ids, &self.mask, &seen, &bare),
            false => self.blip.fuse(&self.ids, &self.mask, &seen, &bare),
        }
        .map_err(other)
    }
}

fn texts(setting: &Setting, backbone: &Shared<Backbone>) -> Vec<BenchCase> {
    let images = setting.images;
    let of = backbone.clone();
    let shared = Shared::new(move || Texts::new(&*of.get()?, images));
    let case = |(name, packed): (&str, bool)| {
        let texts = TEXTS * images;
        let text = format!("{LAYERS} layers, {texts}x{TOKENS} of {PADDED} on {images}x197 D=768");
        let of = shared.clone();
        let cost = move |e| {
            let (rank, padded) = (0, PADDED as u64);
            let side = if packed { Side::Ours { rank } } else { Side::Plain { rank, padded } };
            let operations =
                ModelCost { config: &config(), side }.fuse(&vec![TOKENS as u64; texts]);
            let (weights, keys) = (LAYERS * 14 * 768 * 768, LAYERS * 2 * images * 197 * 768);
            Cost { operations, bytes: e * (weights + keys + texts * TOKENS * 768) as u64 }
        };
        BenchCase::new("text.fuse", name, text, cost).on_cpu(move || {
            let of = of.get()?;
            // Tokens of the first text; at padding the two are not meant to agree.
            let first = |states: Tensor| states.narrow(0, 0, 1)?.narrow(1, 0, TOKENS);
            let wanted = values(&first(of.run(false)?)?)?;
            check("states of tokens", &first(of.run(packed)?)?, &wanted)?;
            Ok(move || of.run(packed).map(drop))
        })
    };
    [("packed", true), ("padded", false)].map(case).into()
}
