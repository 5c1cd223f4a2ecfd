//! Generation: the decoder writes the likeliest texts, and the KV cache changes nothing.

use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    BoundModel, CrossAttention, DecoderTokens, EncoderKv, GenerationConfig, TextConfig, Variant,
    VisionConfig,
};
use candle_core::{DType, Device, Tensor};

const END: u32 = 3;

fn config(words: usize) -> BlipConfig {
    let tokens = DecoderTokens { start_token_id: 1, end_token_id: END, pad_token_id: 0 };
    BlipConfig {
        vision: VisionConfig {
            image_size: 16,
            patch_size: 8,
            hidden_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 48,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: words,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 12,
            layer_norm_eps: 1e-12,
            enc_token_id: 2,
        },
        projection_dim: 8,
        architecture: Architecture::Captioning(tokens),
    }
}

/// Captioning model, its weights scaled up so that tokens differ in likelihood, and two random images.
fn model(words: usize, seed: u64) -> (Backbone, Tensor) {
    let mut backbone = Backbone::random(config(words), seed, &Device::Cpu).unwrap();
    for (name, tensor) in &mut backbone.tensors {
        if name.starts_with("text_decoder") && name.ends_with("weight") && tensor.rank() == 2 {
            *tensor = (&*tensor * 12.0).unwrap();
        }
    }
    let images = Stream::new(seed, "images", 0, 0).normal_tensor((2, 3, 16, 16), 1.0).unwrap();
    (backbone, images)
}

fn keys(blip: &Blip, images: &Tensor, bound: &BoundModel) -> EncoderKv {
    let states = blip.encode_image(images, bound).unwrap();
    blip.encode_decoder_kv(&states, None, bound).unwrap()
}

/// Log-likelihoods of the tokens after `ids` for image `row`, computed without cache.
fn next(blip: &Blip, keys: &EncoderKv, row: u32, ids: &[u32], bound: &BoundModel) -> Vec<f64> {
    let length = ids.len();
    let ids = Tensor::from_slice(ids, (1, length), &Device::Cpu).unwrap();
    let mask = Tensor::ones((1, length), DType::F32, &Device::Cpu).unwrap();
    let states = blip.decode(&ids, &mask, &CrossAttention::new(keys).rows([row]), bound).unwrap();
    let last = states.narrow(1, length - 1, 1).unwrap().squeeze(1).unwrap();
    let logits: Vec<f32> =
        blip.predict_words(&last).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - sum.ln()).collect()
}

#[test]
fn kept_keys_change_nothing() {
    for seed in 0..6 {
        let (backbone, images) = model(30, seed);
        let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Reference, 4);
        let tuned = AdaptedParams::init(adapter_config, &backbone, 3, &Device::Cpu).unwrap();
        let blip = backbone.model().unwrap();
        let bound = tuned.bind(&blip, None).unwrap();
        let keys = keys(&blip, &images, &bound);
        let prompt = [7, 9];
        let written = blip.generate(&prompt, &keys, &GenerationConfig::greedy(8), &bound).unwrap();
        for (row, written) in (0u32..).zip(&written) {
            let mut ids = vec![1, 7, 9];
            for step in 0..8 {
                let scores = next(&blip, &keys, row, &ids, &bound);
                let best = (0..30u32)
                    .max_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]))
                    .unwrap();
                if best == END {
                    assert_eq!(written.len(), step);
                    break;
                }
                assert_eq!(written[step], best, "seed {seed}, image {row}, word {step}");
                ids.push(best);
            }
        }
    }
}

/// With a beam as wide as all hypotheses, beam search is exhaustive.
#[test]
fn a_wide_beam_finds_the_best_text() {
    let (words, max_new_tokens) = (6u32, 3);
    for (seed, length_penalty) in [(1, 1.0), (2, 0.0), (3, 2.0), (4, 1.0)] {
        let (backbone, images) = model(words as usize, seed);
        let blip = backbone.model().unwrap();
        let bound = blip.bind_frozen().unwrap();
        let keys = keys(&blip, &images, &bound);
        let how = GenerationConfig { max_new_tokens, num_beams: 300, length_penalty };
        let written = blip.generate(&[], &keys, &how, &bound).unwrap();
        for (row, written) in (0u32..).zip(&written) {
            let mut best = (f64::NEG_INFINITY, Vec::new());
            let mut open = vec![(0.0, vec![1u32])];
            while let Some((score, ids)) = open.pop() {
                let scores = next(&blip, &keys, row, &ids, &bound);
                for word in 0..words {
                    let score = score + scores[word as usize];
                    let count = ids.len() as f64;
                    let more: Vec<u32> = ids.iter().copied().chain([word]).collect();
                    if word == END || ids.len() == max_new_tokens {
                        let mut text = more[1..].to_vec();
                        text.retain(|&word| word != END);
                        let score = score / count.powf(length_penalty);
                        if score > best.0 {
                            best = (score, text);
                        }
                    } else {
                        open.push((score, more));
                    }
                }
            }
            assert_eq!(*written, best.1, "seed {seed}, image {row}");
        }
    }
}

#[test]
fn a_model_says_which_part_it_lacks() {
    let (backbone, images) = model(30, 1);
    let blip = backbone.model().unwrap();
    let bare = blip.bind_frozen().unwrap();
    let ids = Tensor::zeros((1, 3), DType::U32, &Device::Cpu).unwrap();
    let mask = Tensor::ones((1, 3), DType::F32, &Device::Cpu).unwrap();
    let message = blip.encode_text(&ids, &mask, &bare).unwrap_err().to_string();
    assert!(message.contains("text encoder"), "{message}");
    let states = blip.encode_image(&images, &bare).unwrap();
    let message = bare.image_features(&states).unwrap_err().to_string();
    assert!(message.contains("matching head"), "{message}");
    let keys = keys(&blip, &images, &bare);
    for (how, field) in [
        (GenerationConfig::greedy(0), "max_new_tokens"),
        (GenerationConfig { num_beams: 0, ..GenerationConfig::greedy(3) }, "beams"),
        (GenerationConfig::greedy(20), "max_position_embeddings"),
    ] {
        let message = blip.generate(&[], &keys, &how, &bare).unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    }
}
