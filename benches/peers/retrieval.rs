//! Benchmark c: a retrieval training step, as the program tunes.

use std::sync::Arc;

use aurora_benches::worker::Result;
use aurora_kernels::Precision;
use aurora_layers::Tensors;
use aurora_layers::peft::import_lora;
use aurora_train::config::{Config, RunConfig as _};
use aurora_train::ema::MomentumModel;
use aurora_train::itm::HardNegatives;
use aurora_train::queue::FeatureQueue;
use aurora_train::retrieval::{ImageTextBatch, ItcContext, encode, itc, itm};
use aurora_train::trainer::Trainer;
use candle_core::{DType, Device, Tensor};

use crate::agreement::gradients;
use crate::rows::both;
use crate::setting::{PreparedCase, RANK, Setting, Texts, named};

/// Temperature of PyTorch's half.
const TEMPERATURE: f64 = 0.07;
const ALPHA: f64 = 0.4;
const MOMENTUM: f64 = 0.995;

/// Trainer with its default adapter (CP, gates, context) at BLIP-base's settings, with a full queue.
pub fn step(setting: &Setting) -> Result<PreparedCase> {
    let (backbone, inputs) = (setting.backbone()?, setting.inputs()?);
    let queue = FeatureQueue::from_state(&setting.read("queue")?)?;
    let texts = Texts::of(&inputs)?;
    let (lengths, slots) = (texts.lengths()?, queue.size() as u64);
    let operations = both(&backbone, |cost| cost.retrieval_step(&lengths, slots));
    let config = Config::resolve(
        None,
        &[
            format!("gradient_checkpointing={}", setting.checkpoint),
            format!(
                "precision={}",
                if setting.precision == Precision::Bf16 { "bf16" } else { "f32" }
            ),
            format!("adapter.rank={RANK}"),
            format!("retrieval.queue_size={slots}"),
            format!("retrieval.momentum={MOMENTUM}"),
            format!("retrieval.temperature={TEMPERATURE}"),
            format!("retrieval.alpha={ALPHA}"),
            "retrieval.alpha_warmup_steps=0".to_owned(),
            format!("retrieval.itm_pairs={}", setting.batch),
        ],
    )?;
    let mut trainer = Trainer::new(&config, &backbone, &Device::Cpu)?;
    trainer.set_queue(queue)?;
    let images = named(&inputs, "pixel_values")?.clone();
    let ids: Vec<i64> = (0..setting.batch as i64).collect();
    let mut number = 0;
    let run = move || {
        let images = (&images).into();
        let pairs = ImageTextBatch { images, token_ids: &texts.ids, mask: &texts.mask, ids: &ids };
        trainer.step(&pairs, number)?;
        number += 1;
        Ok(())
    };
    Ok(PreparedCase { run: Box::new(run), operations })
}

/// Both losses and their gradients with PyTorch's LoRA, the same queue and given negatives. The momentum model begins
/// where the online one is, so its first average is the same in both halves.
pub fn check(setting: &Setting) -> Result<Tensors> {
    let (backbone, inputs) = (setting.backbone()?, setting.inputs()?);
    let lora = import_lora(&setting.out.join("lora_all"), &backbone, &Device::Cpu)?;
    let (online, variables) = lora.into_variables()?;
    let blip = Arc::new(backbone.model()?);
    let texts = Texts::of(&inputs)?;
    let ids: Vec<i64> = (0..setting.batch as i64).collect();
    let images = named(&inputs, "pixel_values")?.into();
    let pairs = ImageTextBatch { images, token_ids: &texts.ids, mask: &texts.mask, ids: &ids };

    let (follower, mut view) = MomentumModel::new(&online, &blip, MOMENTUM)?.step()?;
    view.precision = setting.precision;
    let followed = encode(&follower, &view, &pairs)?;
    let mut bound = online.bind(&blip, None)?;
    bound.precision = setting.precision;
    let encoded = encode(&blip, &bound, &pairs)?;
    let queue = FeatureQueue::from_state(&setting.read("queue")?)?.filled()?;
    let context = ItcContext {
        momentum: Some([&followed.image, &followed.text]),
        queue: Some(&queue),
        alpha: ALPHA,
        temperature: &Tensor::new(&[TEMPERATURE as f32], &Device::Cpu)?,
    };
    let (itc, _) = itc(&encoded, &ids, &context)?;
    let rows =
        |name| -> Result<Vec<u32>> { Ok(named(&inputs, name)?.to_dtype(DType::U32)?.to_vec1()?) };
    let negatives = HardNegatives {
        first: 0,
        image_for_text: rows("image_for_text")?,
        text_for_image: rows("text_for_image")?,
    };
    let itm = itm(&blip, &bound, &pairs, &encoded, &negatives)?;
    let grads = (&itc + &itm)?.backward()?;
    let mut found = Tensors::new();
    for (name, loss) in [("itc", itc), ("itm", itm)] {
        found.insert(name.to_owned(), loss.detach().reshape(1)?);
    }
    gradients(&variables, &grads, &mut found);
    Ok(found)
}
