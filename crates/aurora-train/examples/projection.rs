//! Projection of image features onto text features, trained with the contrastive loss (ITC), a feature
//! queue and AdamW, with recall before and after; no model is involved.
//!
//! Texts are random vectors; an image is its text through a fixed random linear map, plus noise. Run it
//! with `cargo run --release -p aurora-train --example projection`.
#![allow(clippy::print_stdout)] // An example prints its results.

use aurora_kernels::random::Stream;
use aurora_train::Result;
use aurora_train::itc::{ItcInput, itc_loss};
use aurora_train::optimizer::{AdamW, AdamWOptions, Group, Parameter, clip_gradients};
use aurora_train::queue::FeatureQueue;
use aurora_train::recall::RetrievalReport;
use aurora_train::schedule::{Decay, Schedule};
use candle_core::{Device, Tensor, Var};

const PAIRS: usize = 600;
const TRAINED: usize = 400;
const BATCH: usize = 50;
const IMAGE: usize = 48;
const TEXT: usize = 32;
const SEED: u64 = 1;

fn unit(features: &Tensor) -> Result<Tensor> {
    let norm = features.sqr()?.sum_keepdim(1)?.sqrt()?;
    Ok(features.broadcast_div(&norm)?)
}

fn report(images: &Tensor, texts: &Tensor, map: &Tensor) -> Result<RetrievalReport> {
    // Held-out pairs.
    let held_out = |t: &Tensor| t.narrow(0, TRAINED, PAIRS - TRAINED);
    let images = unit(&held_out(images)?.matmul(map)?)?; // (200, TEXT)
    let similarity = images.matmul(&held_out(texts)?.t()?)?; // (200, 200)
    let ids: Vec<i64> = (TRAINED as i64..PAIRS as i64).collect();
    RetrievalReport::from_similarity(&similarity, &ids, &ids)
}

fn main() -> Result<()> {
    let device = Device::Cpu;
    let draw = |what: &str, rows, columns, std| {
        Stream::new(SEED, what, 0, 0).normal_tensor((rows, columns), std)
    };
    let texts = unit(&draw("texts", PAIRS, TEXT, 1.0)?)?;
    let hidden = draw("hidden map", TEXT, IMAGE, 1.0)?;
    let images = (texts.matmul(&hidden)? + draw("noise", PAIRS, IMAGE, 2.0)?)?;

    let map = Var::from_tensor(&draw("start", IMAGE, TEXT, 0.1)?)?;
    let parameters = vec![Parameter::new("map", map.clone(), "heads")];
    let groups = vec![Group::new("heads", 1e-2, 0.01)];
    let mut optimizer = AdamW::new(parameters, groups, AdamWOptions::default())?;
    let schedule = Schedule {
        decay: Decay::Cosine,
        steps: 200,
        warmup_steps: 10,
        min_lr_ratio: 0.0,
        cosine_epochs: 1,
    };
    let mut queue = FeatureQueue::new(TEXT, 200, &device)?;
    let temperature = Tensor::new(0.07f32, &device)?;

    let before = report(&images, &texts, &map)?;
    for step in 0..schedule.steps {
        let start = step as usize * BATCH % TRAINED;
        let ids: Vec<i64> = (start as i64..(start + BATCH) as i64).collect();
        let image = unit(&images.narrow(0, start, BATCH)?.matmul(&map)?)?; // (BATCH, TEXT)
        let text = texts.narrow(0, start, BATCH)?;
        let view = queue.filled()?;
        let output = itc_loss(&ItcInput {
            image: &image,
            text: &text,
            momentum: None,
            queue: Some(&view),
            ids: &ids,
            alpha: 0.0,
            temperature: &temperature,
        })?;
        let mut grads = output.loss.backward()?;
        let norm = clip_gradients(&mut grads, optimizer.parameters(), 1.0)?;
        optimizer.step(&grads, schedule.factor(step))?;
        queue.enqueue(&image, &text, &ids)?;
        if step % 50 == 0 {
            println!("step {step}: loss {:.3}, norm {norm:.3}", output.loss.to_scalar::<f32>()?);
        }
    }
    let after = report(&images, &texts, &map)?;
    for (name, report) in [("before", before), ("after", after)] {
        println!("{name}: R@1 {:.1} % by image, {:.1} % by text", report.i2t.r1, report.t2i.r1);
    }
    Ok(())
}
