//! Benchmarks of one tower: a, the vision tower trained; b, the same frozen; d, re-ranking by the matching head.

use std::sync::Arc;

use aurora_benches::model_cost::{ModelCost, Side};
use aurora_benches::worker::Result;
use aurora_kernels::Precision;
use aurora_kernels::random::Stream;
use aurora_layers::peft::import_lora;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Backbone, Blip, ParamGroup, Tensors, Tower, Variant,
};
use aurora_train::evaluation::{Gallery, GalleryBuilder};
use aurora_train::rerank::Candidates;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};

use crate::agreement::gradients;
use crate::setting::{LORA_RANK, PADDED, PreparedCase, RANK, Setting, Texts, named};

/// Operations of both sides.
pub fn both(backbone: &Backbone, count: impl Fn(&ModelCost<'_>) -> u64) -> [u64; 2] {
    let plain = Side::Plain { rank: LORA_RANK, padded: PADDED };
    [Side::Ours { rank: RANK as u64 }, plain]
        .map(|side| count(&ModelCost { config: &backbone.config, side }))
}

/// Vision states, and the gradients of their inner product with `direction`.
fn vision_step(
    blip: &Blip,
    tuned: &AdaptedParams,
    inputs: &Tensors,
    precision: Precision,
) -> Result<(Tensor, GradStore)> {
    let mut bound = tuned.bind(blip, None)?;
    bound.precision = precision;
    let states = blip.encode_image(named(inputs, "pixel_values")?, &bound)?;
    let grads = (&states * named(inputs, "direction")?)?.sum_all()?.backward()?;
    Ok((states, grads))
}

/// Benchmark a: CP on every site of the vision tower, no factor at its initialization.
pub fn vision_trained(setting: &Setting) -> Result<PreparedCase> {
    let (backbone, inputs) = (setting.backbone()?, setting.inputs()?);
    let images = setting.batch as u64;
    let operations = both(&backbone, |cost| cost.vision_trained(images));
    let mut adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, RANK);
    adapter_config.targets.towers = vec![Tower::Vision];
    (adapter_config.gated_query, adapter_config.context_slots) = (false, 0);
    adapter_config.modules_to_save = Vec::new();
    let mut tuned = AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu)?;
    for (name, tensor) in &mut tuned.tensors {
        if AdaptedParams::param_group(name) == ParamGroup::Factor {
            let noise = Stream::new(3, name, 0, 0).normal_tensor(tensor.shape().clone(), 0.02)?;
            *tensor = (&*tensor + noise)?;
        }
    }
    let (tuned, _variables) = tuned.into_variables()?;
    let blip = backbone.model()?;
    let precision = setting.precision;
    let run = move || vision_step(&blip, &tuned, &inputs, precision).map(drop);
    Ok(PreparedCase { run: Box::new(run), operations })
}

/// Check of a with PyTorch's LoRA: states and gradients.
pub fn check_vision_trained(setting: &Setting) -> Result<Tensors> {
    let backbone = setting.backbone()?;
    let lora = import_lora(&setting.out.join("lora_vision"), &backbone, &Device::Cpu)?;
    let (tuned, variables) = lora.into_variables()?;
    let (states, grads) =
        vision_step(&backbone.model()?, &tuned, &setting.inputs()?, setting.precision)?;
    let mut found = Tensors::from([("states".to_owned(), states.detach())]);
    gradients(&variables, &grads, &mut found);
    Ok(found)
}

/// Benchmark b: the frozen vision tower.
pub fn vision_frozen(setting: &Setting) -> Result<PreparedCase> {
    let (backbone, inputs) = (setting.backbone()?, setting.inputs()?);
    let images = setting.batch as u64;
    let operations = both(&backbone, |cost| cost.vision(images));
    let blip = backbone.model()?;
    let bound = setting.bare(&blip)?;
    let run = move || {
        blip.encode_image(named(&inputs, "pixel_values")?, &bound)?;
        Ok(())
    };
    Ok(PreparedCase { run: Box::new(run), operations })
}

/// Check of b: states.
pub fn check_vision_frozen(setting: &Setting) -> Result<Tensors> {
    let blip = setting.backbone()?.model()?;
    let inputs = setting.inputs()?;
    let states = blip.encode_image(named(&inputs, "pixel_values")?, &setting.bare(&blip)?)?;
    Ok(Tensors::from([("states".to_owned(), states)]))
}

/// Candidates as an evaluation encodes them, and the pairs of one query with all.
fn gallery(
    setting: &Setting,
    blip: &Blip,
    one_text: bool,
) -> Result<(Gallery, Vec<Candidates>, Vec<u64>)> {
    let given = setting.read(&format!("candidates_{}", setting.size))?;
    let (states, texts) = (named(&given, "image_states")?, Texts::of(&given)?);
    let (bound, count) = (setting.bare(blip)?, states.dim(0)?);
    let mut builder = GalleryBuilder::default();
    builder.image_states(&bound, states)?;
    builder.texts(blip, &bound, &texts.ids, &texts.mask)?;
    let lengths = texts.lengths()?;
    let (work, lengths) = if one_text {
        let work = (0..count).map(|image| Candidates { image, texts: vec![0] }).collect();
        (work, vec![lengths[0]; count])
    } else {
        (vec![Candidates { image: 0, texts: (0..count).collect() }], lengths)
    };
    Ok((builder.finish()?, work, lengths))
}

/// Benchmark d: one text against every candidate image, or one image against every candidate text.
pub fn rerank(setting: &Setting, one_text: bool) -> Result<PreparedCase> {
    let backbone = setting.backbone()?;
    let blip = Arc::new(backbone.model()?);
    let (gallery, work, lengths) = gallery(setting, &blip, one_text)?;
    let images = work.len() as u64;
    let operations = both(&backbone, |cost| cost.rerank(&lengths, images));
    let bound = setting.bare(&blip)?;
    let run = move || {
        gallery.score(&blip, &bound, &work)?;
        Ok(())
    };
    Ok(PreparedCase { run: Box::new(run), operations })
}

/// Check of d: matching logits.
pub fn check_rerank(setting: &Setting, one_text: bool) -> Result<Tensors> {
    let blip = setting.backbone()?.model()?;
    let (gallery, work, _) = gallery(setting, &blip, one_text)?;
    let logits = gallery.score(&blip, &setting.bare(&blip)?, &work)?.concat();
    let logits = Tensor::from_slice(&logits, logits.len(), &Device::Cpu)?;
    Ok(Tensors::from([("logits".to_owned(), logits)]))
}
