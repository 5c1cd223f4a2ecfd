//! Small backbone, inputs for it, and all of its outputs.

pub mod trained;

use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    BoundModel, CrossAttention, DecoderTokens, LoraInit, TextConfig, Variant, VisionConfig, cls,
};
use candle_core::{DType, Device, Tensor};

pub fn config() -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 32,
            patch_size: 8,
            hidden_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 192,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 40,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 128,
            max_position_embeddings: 16,
            layer_norm_eps: 1e-12,
            enc_token_id: 39,
        },
        projection_dim: 16,
        architecture: Architecture::Retrieval,
    }
}

pub struct Inputs {
    pub images: Tensor,
    pub ids: Tensor,
    pub mask: Tensor,
}

impl Inputs {
    pub fn of(self, dtype: DType) -> Self {
        Self { images: self.images.to_dtype(dtype).unwrap(), ..self }
    }
}

pub fn inputs() -> Inputs {
    let device = Device::Cpu;
    let mut stream = Stream::new(5, "test inputs", 0, 0);
    let ids: Vec<u32> = (0..3 * 7).map(|_| stream.below(38) as u32).collect();
    let mask: Vec<f32> = (0..3 * 7).map(|n| if n % 7 < 4 + n / 7 { 1.0 } else { 0.0 }).collect();
    Inputs {
        images: stream.normal_tensor((3, 3, 32, 32), 1.0).unwrap(),
        ids: Tensor::from_vec(ids, (3, 7), &device).unwrap(),
        mask: Tensor::from_vec(mask, (3, 7), &device).unwrap(),
    }
}

/// All outputs of the model, with the context term as in evaluation.
pub fn outputs(blip: &Blip, bound: &BoundModel) -> Vec<Tensor> {
    let inputs = inputs();
    let images = blip.encode_image(&inputs.images, bound).unwrap();
    let texts = blip.encode_text(&inputs.ids, &inputs.mask, bound).unwrap();
    let keys = blip.encode_kv(&images, bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([2, 0, 1]);
    let fused = blip.fuse(&inputs.ids, &inputs.mask, &seen, bound).unwrap();
    let enhanced = bound.add_context(&cls(&fused).unwrap(), &cls(&texts).unwrap(), 0).unwrap();
    vec![
        bound.image_features(&images).unwrap(),
        bound.text_features(&texts).unwrap(),
        bound.match_logits(&enhanced).unwrap(),
        images,
        texts,
        fused,
    ]
}

/// Question answering model of the same sizes.
pub fn answering() -> BlipConfig {
    let tokens = DecoderTokens { start_token_id: 38, end_token_id: 3, pad_token_id: 0 };
    BlipConfig { architecture: Architecture::QuestionAnswering(tokens), ..config() }
}

/// All outputs of a model of [`answering`]: images, questions, logits of the answers.
pub fn answers(blip: &Blip, bound: &BoundModel) -> Vec<Tensor> {
    let inputs = inputs();
    let images = blip.encode_image(&inputs.images, bound).unwrap();
    let keys = blip.encode_kv(&images, bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([2, 0, 1]);
    let questions = blip.fuse(&inputs.ids, &inputs.mask, &seen, bound).unwrap();
    let keys = blip.encode_decoder_kv(&questions, Some(&inputs.mask), bound).unwrap();
    let states =
        blip.decode(&inputs.ids, &inputs.mask, &CrossAttention::new(&keys), bound).unwrap();
    let words = blip.predict_words(&states).unwrap();
    vec![images, questions, states, words]
}

pub fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Adapter whose every tensor has moved from its initialization by normal numbers of this size.
pub fn moved(backbone: &Backbone, adapter_config: AdapterConfig, size: f64) -> AdaptedParams {
    let mut tuned = AdaptedParams::init(adapter_config, backbone, 3, &Device::Cpu).unwrap();
    for (name, tensor) in &mut tuned.tensors {
        let shift = Stream::new(9, name, 0, 0).normal_tensor(tensor.shape(), size).unwrap();
        *tensor = (&*tensor + shift).unwrap();
    }
    tuned
}

/// Adapter configurations of every kind, and of LoRA with each initialization.
pub fn every_spec() -> Vec<AdapterConfig> {
    let mut specs: Vec<AdapterConfig> =
        AdapterKind::ALL.map(|kind| AdapterConfig::new(kind, Variant::Paper, 4)).into();
    let lora = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 4);
    specs.push(AdapterConfig { init: LoraInit::Pissa, alpha: Some(6.0), ..lora });
    specs
}

/// Relative difference: the largest difference over the largest value.
pub fn relative(found: &Tensor, wanted: &Tensor) -> f32 {
    let largest =
        |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(found - wanted).unwrap()) / largest(wanted)
}
