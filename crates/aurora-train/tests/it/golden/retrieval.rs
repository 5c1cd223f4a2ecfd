//! Retrieval of images and of clips in the reference variant: forward pass, both losses, every gradient, queues, six
//! optimizer steps, two-stage evaluation.

use super::support::reference::{Setting, config, split, variables};
use super::support::{Fixture, assert_close, assert_gradient, integers, part, read, scalar};
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Blip, BoundModel, CrossAttention, Variant, cls,
    reference_checkpoint,
};
use aurora_train::ema::{Ema, MomentumModel};
use aurora_train::evaluation::GalleryBuilder;
use aurora_train::itm::HardNegatives;
use aurora_train::optimizer::{AdamW, AdamWOptions, Group, Parameter};
use aurora_train::progress::Silent;
use aurora_train::queue::FeatureQueue;
use aurora_train::retrieval::{ImageTextBatch, ItcContext, encode, encode_features, itc, itm};
use candle_core::{DType, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

const FORWARD: f32 = 1e-5;
const LOSS: f32 = 5e-6;
const STEP_LOSS: f32 = 1e-5;
const STEP_PARAMETER: f32 = 2e-5;
const DECAY: f64 = 0.995;

/// Fixture model, every online tensor a variable.
pub struct Model {
    pub variables: BTreeMap<String, Var>,
    pub blip: Arc<Blip>,
    tuned: AdaptedParams,
    momentum: MomentumModel,
    queue: FeatureQueue,
    temperature: Var,
    setting: Setting,
}

/// Online name of a momentum tensor; a reference name is one's if its first part ends in `_m`.
fn live_name(name: &str) -> Option<String> {
    let (first, rest) = name.split_once('.')?;
    Some(format!("{}.{rest}", first.strip_suffix("_m")?))
}

/// True for tensors of the model: not the queue, the temperature, nor the constant 0, 1, 2, ... that the reference code
/// stores.
fn is_model_tensor(name: &str) -> bool {
    !["image_queue", "text_queue", "idx_queue", "ptr_queue", "temp"].contains(&name)
        && !name.ends_with("position_ids")
}

impl Model {
    pub fn read(fixture: &str, setting: Setting) -> Self {
        let weights = read(&format!("{fixture}.weights.safetensors"));
        let config = config(&weights);
        let rank = weights["CP_C"].dims()[0];
        let mut adapter_config = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, rank);
        adapter_config.frame_aware = fixture.ends_with("frame_aware");
        let online: Fixture = weights
            .iter()
            .filter(|(name, _)| is_model_tensor(name) && live_name(name).is_none())
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let (variables, tensors) = variables(&online);
        let (mut backbone, added) = split(&tensors, &adapter_config, &config);
        if setting.frozen {
            backbone.values_mut().for_each(|tensor| *tensor = tensor.detach());
        }
        let blip = Arc::new(Blip::new(&config, &backbone).unwrap());
        let tuned =
            AdaptedParams::from_tensors(adapter_config.clone(), &config, "the fixture", added)
                .unwrap();

        // The momentum model of the reference code has a backbone of its own, averaged too; factors and core are passed
        // unaveraged.
        let stored: Fixture = weights
            .iter()
            .filter_map(|(name, tensor)| Some((live_name(name)?, tensor.clone())))
            .collect();
        let stored = reference_checkpoint::translate(&stored).unwrap();
        let mut ema = Ema::new(DECAY);
        let mut track = |(name, online): (&String, &Tensor)| match stored.get(name) {
            Some(start) => (name.clone(), ema.track(start, online).unwrap()),
            None => (name.clone(), online.detach()),
        };
        let averaged: Fixture = tensors.iter().map(&mut track).collect();
        let (backbone, added) = split(&averaged, &adapter_config, &config);
        let momentum = MomentumModel::from_parts(
            ema,
            AdaptedParams::from_tensors(adapter_config, &config, "the fixture", added).unwrap(),
            Arc::new(Blip::new(&config, &backbone).unwrap()),
        );
        let queue = FeatureQueue::from_state(&weights).unwrap();
        let temperature = Var::from_tensor(&weights["temp"].reshape(1).unwrap()).unwrap();
        Self { variables, blip, tuned, momentum, queue, temperature, setting }
    }

    pub fn bind(&self) -> BoundModel {
        self.setting.apply(self.tuned.bind(&self.blip, None).unwrap())
    }

    /// True if the variable of this name is trained.
    pub fn trains(&self, name: &str) -> bool {
        !self.setting.frozen || self.tuned.tensors.contains_key(name)
    }
}

/// Batch of the fixture.
pub struct Batch {
    images: Tensor,
    token_ids: Tensor,
    mask: Tensor,
    ids: Vec<i64>,
}

impl Batch {
    pub fn read(io: &Fixture) -> Self {
        Self {
            images: io["image"].clone(),
            token_ids: io["input_ids"].to_dtype(DType::U32).unwrap(),
            mask: io["attention_mask"].to_dtype(DType::F32).unwrap(),
            ids: integers(&io["idx"]),
        }
    }

    pub fn pairs(&self) -> ImageTextBatch<'_> {
        ImageTextBatch {
            images: (&self.images).into(),
            token_ids: &self.token_ids,
            mask: &self.mask,
            ids: &self.ids,
        }
    }
}

fn rows(tensor: &Tensor) -> Vec<u32> {
    integers(tensor).into_iter().map(|row| row as u32).collect()
}

/// Hard negatives that the fixture's losses were computed with.
pub fn negatives(io: &Fixture) -> HardNegatives {
    HardNegatives {
        first: 0,
        image_for_text: rows(&io["neg_image_for_text"]),
        text_for_image: rows(&io["neg_text_for_image"]),
    }
}

/// Training step up to the losses, and the features to enqueue after the backward pass.
pub fn losses(
    model: &mut Model,
    batch: &Batch,
    alpha: f64,
    negatives: &HardNegatives,
) -> ([Tensor; 2], [Tensor; 2]) {
    let bound = model.bind();
    let encoded = encode(&model.blip, &bound, &batch.pairs()).unwrap();
    let (momentum_blip, mut momentum_view) = model.momentum.step().unwrap();
    momentum_view.precision = model.setting.precision;
    let [image, text] = encode_features(&momentum_blip, &momentum_view, &batch.pairs()).unwrap();
    // The reference code compares with every slot of its queue, empty ones included.
    let queue = model.queue.all();
    let context = ItcContext {
        momentum: Some([&image, &text]),
        queue: Some(&queue),
        alpha,
        temperature: model.temperature.as_tensor(),
    };
    let (itc, _) = itc(&encoded, &batch.ids, &context).unwrap();
    let itm = itm(&model.blip, &bound, &batch.pairs(), &encoded, negatives).unwrap();
    ([itc, itm], [image, text])
}

pub fn io(fixture: &str) -> Fixture {
    read(&format!("{fixture}.io.safetensors"))
}

/// Makes each part a test of its own, named after the fixture.
macro_rules! cases {
    ($fixture:ident) => {
        mod $fixture {
            use super::Setting;

            const NAME: &str = stringify!($fixture);

            #[test]
            fn forward() {
                Setting::all().for_each(|setting| super::forward(NAME, setting));
            }

            #[test]
            fn losses_gradients_and_queues() {
                Setting::all()
                    .for_each(|setting| super::losses_gradients_and_queues(NAME, setting));
            }

            #[test]
            fn six_steps() {
                super::six_steps(NAME);
            }

            #[test]
            fn two_stage_evaluation() {
                Setting::all().for_each(|setting| super::two_stage_evaluation(NAME, setting));
            }
        }
    };
}

cases!(retrieval_image);
cases!(retrieval_video_frame_aware);

fn forward(fixture: &str, setting: Setting) {
    let (model, io) = (Model::read(fixture, setting), io(fixture));
    let (batch, bound) = (Batch::read(&io), model.bind());
    let encoded = encode(&model.blip, &bound, &batch.pairs()).unwrap();
    // The fixture has a row for each frame.
    let wanted = &io["out_vision"];
    let states = encoded.image_states.reshape(wanted.dims()).unwrap();
    assert_close("out_vision", &states, wanted, FORWARD);
    let text_states = model.blip.encode_text(&batch.token_ids, &batch.mask, &bound).unwrap();
    assert_close("out_text", &text_states, &io["out_text"], FORWARD);
    assert_close("text [CLS]", &encoded.text_cls, &cls(&io["out_text"]).unwrap(), FORWARD);
    let features = match &encoded.frames {
        Some(frames) => frames.features.flatten(0, 1).unwrap(),
        None => encoded.image.clone(),
    };
    assert_close("image_feat", &features, &io["image_feat"], FORWARD);
    assert_close("text_feat", &encoded.text, &io["text_feat"], FORWARD);
    let keys = model.blip.encode_kv(&encoded.image_states, &bound).unwrap();
    let fused = model
        .blip
        .fuse(&batch.token_ids, &batch.mask, &CrossAttention::new(&keys), &bound)
        .unwrap();
    assert_close("out_multimodal", &fused, &io["out_multimodal"], FORWARD);
    let fused_cls = model
        .blip
        .fuse_cls(&batch.token_ids, &batch.mask, &CrossAttention::new(&keys), &bound)
        .unwrap();
    let logits = bound.match_logits(&fused_cls).unwrap();
    assert_close("itm_logits", &logits, &io["itm_logits"], FORWARD);
}

fn losses_gradients_and_queues(fixture: &str, setting: Setting) {
    let (mut model, io) = (Model::read(fixture, setting), io(fixture));
    let batch = Batch::read(&io);
    let negatives = negatives(&io);
    let alpha = f64::from(scalar(&io["alpha"]));
    let ([itc, itm], [image, text]) = losses(&mut model, &batch, alpha, &negatives);
    for (name, loss) in [("loss_ita", &itc), ("loss_itm", &itm)] {
        assert_close(name, &loss.reshape(1).unwrap(), &io[name].reshape(1).unwrap(), LOSS);
    }
    let grads = (itc + itm).unwrap().backward().unwrap();
    model.queue.enqueue(&image, &text, &batch.ids).unwrap();
    let mut wanted = part(&io, "grad.");
    let temperature = wanted.remove("temp").expect("grad.temp in the fixture");
    assert_gradient(
        "temp",
        grads.get(&model.temperature).unwrap(),
        &temperature.reshape(1).unwrap(),
    );
    let wanted = reference_checkpoint::translate(&wanted).unwrap();
    assert_eq!(wanted.len(), model.variables.len(), "every online parameter is compared");
    for (name, wanted) in wanted.iter().filter(|(name, _)| model.trains(name)) {
        let var = model.variables.get(name).unwrap_or_else(|| panic!("no variable {name}"));
        let found = grads.get(var).unwrap_or_else(|| panic!("no gradient for {name}"));
        assert_gradient(name, found, wanted);
    }
    let state = model.queue.state().unwrap();
    for (name, wanted) in part(&io, "after.") {
        assert_close(&name, &state[&name], &wanted, FORWARD);
    }
}

fn six_steps(fixture: &str) {
    let (mut model, io) = (Model::read(fixture, Setting::PLAIN), io(fixture));
    let steps = read(&format!("{fixture}.steps.safetensors"));
    let batch = Batch::read(&io);
    let last = part(&steps, "final.");
    let keep = |pick: &dyn Fn(&str) -> Option<String>| -> Fixture {
        let kept =
            last.iter().filter_map(|(name, tensor)| Some((pick(name)?, tensor.clone()))).collect();
        reference_checkpoint::translate(&kept).unwrap()
    };
    let trained =
        keep(&|name| (is_model_tensor(name) && live_name(name).is_none()).then(|| name.into()));
    let averaged = keep(&live_name);
    let parameters: Vec<Parameter> = trained
        .keys()
        .map(|name| Parameter::new(name, model.variables[name].clone(), "all"))
        .collect();
    let mut optimizer =
        AdamW::new(parameters, vec![Group::new("all", 5e-3, 0.05)], AdamWOptions::default())
            .unwrap();
    let wanted: Vec<Vec<f32>> = steps["loss"].to_vec2().unwrap();
    for (step, wanted) in wanted.iter().enumerate() {
        let row = |name: &str| rows(&steps[name].get(step).unwrap());
        let negatives = HardNegatives {
            first: 0,
            image_for_text: row("neg_image_for_text"),
            text_for_image: row("neg_text_for_image"),
        };
        let alpha = f64::from(scalar(&io["alpha"]));
        let ([itc, itm], [image, text]) = losses(&mut model, &batch, alpha, &negatives);
        for (name, found, wanted) in [("itc", &itc, wanted[0]), ("itm", &itm, wanted[1])] {
            let off = (scalar(found) - wanted).abs();
            assert!(off <= STEP_LOSS, "step {step}: {name} is off by {off:e}");
        }
        optimizer.step(&(itc + itm).unwrap().backward().unwrap(), 1.0).unwrap();
        model.queue.enqueue(&image, &text, &batch.ids).unwrap();
    }
    for (name, wanted) in &trained {
        assert_close(name, model.variables[name].as_tensor(), wanted, STEP_PARAMETER);
    }
    for (name, wanted) in &averaged {
        assert_close(
            &format!("{name}, averaged"),
            &model.momentum.tuned().tensors[name],
            wanted,
            STEP_PARAMETER,
        );
    }
    assert!(averaged.contains_key("vision_proj.weight"), "the averages are in the fixture");
    let state = model.queue.state().unwrap();
    for (name, wanted) in last.iter().filter(|(name, _)| !is_model_tensor(name)) {
        assert_close(name, &state[name], wanted, STEP_PARAMETER);
    }
}

fn two_stage_evaluation(fixture: &str, setting: Setting) {
    let (model, io) = (Model::read(fixture, setting), io(fixture));
    let (batch, bound) = (Batch::read(&io), model.bind());
    let mut gallery = GalleryBuilder::default();
    gallery.images(&model.blip, &bound, &batch.images).unwrap();
    gallery.texts(&model.blip, &bound, &batch.token_ids, &batch.mask).unwrap();
    let gallery = gallery.finish().unwrap();
    assert_close(
        "eval.similarity",
        &gallery.similarity().unwrap(),
        &io["eval.similarity"],
        FORWARD,
    );
    let k_test = integers(&io["eval.k_test"])[0] as usize;
    let reranked = gallery.rerank(&model.blip, &bound, k_test, &mut Silent).unwrap();
    let scores = reranked.scores(f64::from(scalar(&io["eval.beta"]))).unwrap();
    assert_close("eval.score_i2t", &scores.i2t, &io["eval.score_i2t"], FORWARD);
    assert_close("eval.score_t2i", &scores.t2i, &io["eval.score_t2i"], FORWARD);
}
