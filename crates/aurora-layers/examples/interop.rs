//! The Rust half of `cargo xtask interop`, which compares this crate with Python's transformers and peft.
//!
//! ```text
//! interop forward MODEL INPUTS OUTPUTS [LORA]   the model, with a PEFT LoRA where one is given
//! interop export MODEL INPUTS OUTPUTS FOLDER    a CP adapter with random factors, written as a PEFT LoRA to FOLDER
//! ```
//!
//! MODEL is a Hugging Face folder of a retrieval model. INPUTS is a safetensors file with `pixel_values`
//! (batch, 3, size, size) f32, of any size that the patches divide, and `input_ids`, `attention_mask` (batch, length) i64.
//! OUTPUTS gets `vision` (batch, tokens, width), the picture states; `itc` (batch, batch), cosines of every picture with
//! every text; `itm` (batch, 2), the logits of picture and text b belonging together.

#![allow(clippy::print_stderr, reason = "an example that is run by hand")]

use std::path::Path;
use std::process::ExitCode;

use aurora_kernels::random::Stream;
use aurora_layers::checkpoint::{Checkpoint, hugging_face_config};
use aurora_layers::peft::{export_lora, import_lora};
use aurora_layers::{
    AdapterKind, Backbone, Flavour, Part, Result, Tensors, TuneSpec, Tuned, cls, tensors,
};
use candle_core::{DType, Device, Tensor};

const USAGE: &str = "usage: interop forward MODEL INPUTS OUTPUTS [LORA]
       interop export MODEL INPUTS OUTPUTS FOLDER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["forward", model, inputs, outputs] => forward(model, inputs, outputs, None),
        ["forward", model, inputs, outputs, lora] => forward(model, inputs, outputs, Some(lora)),
        ["export", model, inputs, outputs, folder] => export(model, inputs, outputs, folder),
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
    let spec = TuneSpec::new(AdapterKind::Cp, Flavour::Aurora, 64);
    let mut tuned = Tuned::start(spec, &backbone, 1, &Device::Cpu)?;
    for (name, tensor) in &mut tuned.tensors {
        // No factor and no head as it starts; gates and context stay closed, for LoRA has no place for them.
        let deviation = match Tuned::part(name) {
            Part::Factor if name.starts_with("aurora_v") => 0.02,
            Part::Factor | Part::Head => 0.05,
            _ => continue,
        };
        let noise = Stream::new(3, name, 0, 0).normal_tensor(tensor.shape().clone(), deviation)?;
        *tensor = (&*tensor + noise)?;
    }
    export_lora(Path::new(folder), &tuned, &backbone.config, model, false)?;
    compute(&backbone, Some(&tuned), &inputs, outputs)
}

/// The model for pictures of the inputs' size, and the inputs.
fn read(model: &str, inputs: &str) -> Result<(Backbone, Tensors)> {
    let inputs = tensors::read(Path::new(inputs), DType::F32, &Device::Cpu)?;
    let path = Path::new(model).join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| aurora_layers::Error::File {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let mut config = hugging_face_config(&text, &path)?;
    config.vision.image_size = named(&inputs, "pixel_values")?.dim(3)?;
    let (backbone, report) = Checkpoint::open(Path::new(model))?.backbone(&config, &Device::Cpu)?;
    eprintln!("{model}: {report}");
    Ok((backbone, inputs))
}

fn compute(
    backbone: &Backbone,
    tuned: Option<&Tuned>,
    inputs: &Tensors,
    outputs: &str,
) -> Result<()> {
    let blip = backbone.model()?;
    let prepared = match tuned {
        Some(tuned) => tuned.prepare(&blip, None)?,
        None => blip.bare()?,
    };
    let ids = named(inputs, "input_ids")?.to_dtype(DType::U32)?; // (batch, length)
    let mask = named(inputs, "attention_mask")?.to_dtype(DType::F32)?;
    let vision = blip.encode_image(named(inputs, "pixel_values")?, &prepared)?;
    let text = blip.encode_text(&ids, &mask, &prepared)?; // (batch, length, text width)
    let image = prepared.image_features(&vision)?; // (batch, projection)
    let itc = image.matmul(&prepared.text_features(&text)?.t()?)?;
    let keys = blip.cross_keys(&vision, &prepared)?;
    let fused = cls(&blip.fuse(&ids, &mask, &keys, None, &prepared)?)?; // (batch, text width)
    let itm = prepared.match_logits(&prepared.add_context(&fused, &cls(&text)?, 0)?)?;
    let found = [("vision", vision), ("itc", itc), ("itm", itm)];
    let found = found.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    tensors::write(&found, Path::new(outputs))
}

fn named<'a>(inputs: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    inputs.get(name).ok_or_else(|| aurora_layers::Error::Mismatch {
        what: "the inputs".to_owned(),
        report: format!("missing: {name}"),
    })
}
