//! Rust half of `cargo xtask interop`, which compares these crates with Python's transformers and peft.
//!
//! ```text
//! interop forward MODEL INPUTS OUTPUTS [LORA]   the model, with a PEFT LoRA where one is given
//! interop export MODEL INPUTS OUTPUTS FOLDER    a CP adapter with random factors, written as a PEFT LoRA to FOLDER
//! interop write MODEL FOLDER                    the model as it was read, written as a Hugging Face folder in shards
//! ```
//!
//! MODEL is a Hugging Face folder. INPUTS is a safetensors file with `pixel_values` (batch, 3, size, size) f32, of any
//! size that the patches divide, and `input_ids`, `attention_mask` (batch, length) i64; for question answering also
//! `decoder_input_ids`, `decoder_attention_mask` of the answers. OUTPUTS gets the outputs of the model's architecture:
//! `vision` (batch, tokens, width), the image states; `itc` (batch, batch), cosines of every image with every text;
//! `itm` (batch, 2), the matching logits of image and text b; `logits` (batch, length, words); `loss` (1), the mean
//! over tokens; `generated` (batch, 8) i64, greedily, padded with `[PAD]`.

#![allow(clippy::print_stderr, reason = "an example that is run by hand")]

use std::path::Path;
use std::process::ExitCode;

use aurora_kernels::random::Stream;
use aurora_layers::checkpoint::{Checkpoint, read_tensors};
use aurora_layers::peft::{export_lora, import_lora};
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    BoundModel, CrossAttention, DecoderTokens, EncoderKv, GenerationConfig, ParamGroup, Tensors,
    Variant, cls, tensors,
};
use aurora_train::vqa::{Texts, mean_text_loss, question_states};
use candle_core::{DType, Device, Tensor};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Number of generated tokens.
const WORDS: usize = 8;

const USAGE: &str = "usage: interop forward MODEL INPUTS OUTPUTS [LORA]
       interop export MODEL INPUTS OUTPUTS FOLDER
       interop write MODEL FOLDER";

/// Largest shard in bytes; a model takes several.
const SHARD: u64 = 400_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["forward", model, inputs, outputs] => forward(model, inputs, outputs, None),
        ["forward", model, inputs, outputs, lora] => forward(model, inputs, outputs, Some(lora)),
        ["export", model, inputs, outputs, folder] => export(model, inputs, outputs, folder),
        ["write", model, folder] => write(model, folder),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = &done {
        eprintln!("error: {error}");
    }
    ExitCode::from(u8::from(done.is_err()))
}

fn forward(model: &str, inputs: &str, outputs: &str, lora: Option<&str>) -> Result<()> {
    let (backbone, inputs) = read(model, inputs)?;
    let tuned =
        lora.map(|folder| import_lora(Path::new(folder), &backbone, &Device::Cpu)).transpose()?;
    compute(&backbone, tuned.as_ref(), &inputs, outputs)
}

fn export(model: &str, inputs: &str, outputs: &str, folder: &str) -> Result<()> {
    let (backbone, inputs) = read(model, inputs)?;
    let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 64);
    let mut tuned = AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu)?;
    for (name, tensor) in &mut tuned.tensors {
        // Perturbs factors and heads; gates and context stay closed, since LoRA has no place for them.
        let deviation = match AdaptedParams::param_group(name) {
            ParamGroup::Factor if name.starts_with("aurora_v") => 0.02,
            ParamGroup::Factor | ParamGroup::Head => 0.05,
            _ => continue,
        };
        let noise = Stream::new(3, name, 0, 0).normal_tensor(tensor.shape().clone(), deviation)?;
        *tensor = (&*tensor + noise)?;
    }
    export_lora(Path::new(folder), &tuned, &backbone.config, model, false)?;
    compute(&backbone, Some(&tuned), &inputs, outputs)
}

fn write(model: &str, folder: &str) -> Result<()> {
    let backbone = open(model, |_| ())?;
    Ok(backbone.write_hugging_face(Path::new(folder), Some(SHARD))?)
}

/// Reads the model, for images of the inputs' size, and the inputs.
fn read(model: &str, inputs: &str) -> Result<(Backbone, Tensors)> {
    let inputs = read_tensors(Path::new(inputs), DType::F32, &Device::Cpu)?;
    let size = named(&inputs, "pixel_values")?.dim(3)?;
    let backbone = open(model, |config| config.vision.image_size = size)?;
    Ok((backbone, inputs))
}

/// Opens a Hugging Face folder with changed sizes.
fn open(model: &str, change: impl FnOnce(&mut BlipConfig)) -> Result<Backbone> {
    let path = Path::new(model).join("config.json");
    let mut config = BlipConfig::from_json(&std::fs::read_to_string(&path)?, &path)?;
    change(&mut config);
    let (backbone, report) = Checkpoint::open(Path::new(model))?.backbone(&config, &Device::Cpu)?;
    eprintln!("{model}: {report}");
    Ok(backbone)
}

fn compute(
    backbone: &Backbone,
    tuned: Option<&AdaptedParams>,
    inputs: &Tensors,
    outputs: &str,
) -> Result<()> {
    let blip = backbone.model()?;
    let bound = match tuned {
        Some(tuned) => tuned.bind(&blip, None)?,
        None => blip.bind_frozen()?,
    };
    let model = (&blip, &bound);
    let found = match &backbone.config.architecture {
        Architecture::Retrieval => retrieval(model, inputs)?,
        Architecture::QuestionAnswering(tokens) => vqa(model, tokens, inputs)?,
        Architecture::Captioning(tokens) => captioning(model, tokens, inputs)?,
    };
    let found = found.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    Ok(tensors::write(&found, Path::new(outputs))?)
}

type Named = Vec<(&'static str, Tensor)>;

fn retrieval((blip, bound): (&Blip, &BoundModel), inputs: &Tensors) -> Result<Named> {
    let (ids, mask) = text(inputs, "input_ids", "attention_mask")?;
    let vision = blip.encode_image(named(inputs, "pixel_values")?, bound)?;
    let text = blip.encode_text(&ids, &mask, bound)?; // (batch, length, text width)
    let image = bound.image_features(&vision)?; // (batch, projection)
    let itc = image.matmul(&bound.text_features(&text)?.t()?)?;
    let keys = blip.encode_kv(&vision, bound)?;
    let fused = cls(&blip.fuse(&ids, &mask, &CrossAttention::new(&keys), bound)?)?; // (batch, text width)
    let itm = bound.match_logits(&fused)?;
    Ok(vec![("vision", vision), ("itc", itc), ("itm", itm)])
}

fn vqa(model: (&Blip, &BoundModel), tokens: &DecoderTokens, inputs: &Tensors) -> Result<Named> {
    let (blip, bound) = model;
    let (ids, mask) = text(inputs, "input_ids", "attention_mask")?;
    let questions = Texts { token_ids: &ids, mask: &mask };
    let states = question_states(blip, bound, named(inputs, "pixel_values")?, &questions)?;
    let (ids, answer_mask) = text(inputs, "decoder_input_ids", "decoder_attention_mask")?;
    let answers = Texts { token_ids: &ids, mask: &answer_mask };
    // Transformers has a mask for the padding of questions, and its cross-attention does not use it.
    let keys = blip.encode_decoder_kv(&states, None, bound)?;
    let loss = mean_text_loss(model, &answers, &CrossAttention::new(&keys), 0.0)?.reshape(1)?;
    Ok(vec![("loss", loss), ("generated", generated(model, tokens, &keys)?)])
}

fn captioning(
    model: (&Blip, &BoundModel),
    tokens: &DecoderTokens,
    inputs: &Tensors,
) -> Result<Named> {
    let (blip, bound) = model;
    let (ids, mask) = text(inputs, "input_ids", "attention_mask")?;
    let states = blip.encode_image(named(inputs, "pixel_values")?, bound)?;
    let keys = blip.encode_decoder_kv(&states, None, bound)?;
    let decoded = blip.decode(&ids, &mask, &CrossAttention::new(&keys), bound)?;
    let logits = blip.predict_words(&decoded)?;
    let captions = Texts { token_ids: &ids, mask: &mask };
    let loss = mean_text_loss(model, &captions, &CrossAttention::new(&keys), 0.0)?.reshape(1)?;
    let written = generated(model, tokens, &keys)?;
    Ok(vec![("logits", logits), ("loss", loss), ("generated", written)])
}

/// Generated ids, (batch, [`WORDS`]) i64.
fn generated(
    (blip, bound): (&Blip, &BoundModel),
    tokens: &DecoderTokens,
    keys: &EncoderKv,
) -> Result<Tensor> {
    let rows = blip.generate(&[], keys, &GenerationConfig::greedy(WORDS), bound)?;
    let padded = rows.iter().map(|row| {
        let padding = std::iter::repeat(&tokens.pad_token_id);
        row.iter().chain(padding).take(WORDS).map(|&id| i64::from(id)).collect()
    });
    Ok(Tensor::new(padded.collect::<Vec<Vec<i64>>>(), &Device::Cpu)?)
}

/// Ids (batch, length) u32 and mask (batch, length) f32 of texts.
fn text(inputs: &Tensors, ids: &str, mask: &str) -> Result<(Tensor, Tensor)> {
    Ok((named(inputs, ids)?.to_dtype(DType::U32)?, named(inputs, mask)?.to_dtype(DType::F32)?))
}

fn named<'a>(inputs: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    inputs.get(name).ok_or_else(|| format!("the inputs lack {name}").into())
}
