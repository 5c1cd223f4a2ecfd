//! Growth of the cost of a training step with batch and queue size, and of an evaluation with its images and texts and
//! with the candidates of a query: measured curves, with the straight line that fits each.
//!
//! `cargo run --release -p aurora-benches --example growth`, two threads by `RAYON_NUM_THREADS=2`. The model has the
//! sizes of the embedded one and random weights. Points of a curve are measured in turn, round after round, so that
//! what else the machine does meets all of them alike; the median of the rounds counts.
#![allow(clippy::print_stdout)] // a program

use std::path::Path;
use std::time::Instant;

use aurora_kernels::random::Stream;
use aurora_layers::{Backbone, BlipConfig};
use aurora_train::config::{Config, RunConfig as _};
use aurora_train::evaluation::GalleryBuilder;
use aurora_train::progress::Silent;
use aurora_train::queue::FeatureQueue;
use aurora_train::retrieval::ImageTextBatch;
use aurora_train::trainer::Trainer;
use candle_core::{DType, Device, Tensor};

#[path = "growth/plot.rs"]
mod plot;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measured rounds; a warm-up round comes before them.
const ROUNDS: usize = 7;
/// Tokens per text.
const LENGTH: usize = 13;
const SIZES: &str = r#"{
    "model_type": "blip",
    "image_text_hidden_size": 128,
    "vision_config": {"image_size": 96, "patch_size": 16, "hidden_size": 192, "num_hidden_layers": 4,
                      "num_attention_heads": 3, "intermediate_size": 768, "layer_norm_eps": 1e-6},
    "text_config": {"vocab_size": 3600, "hidden_size": 192, "encoder_hidden_size": 192, "num_hidden_layers": 4,
                    "num_attention_heads": 3, "intermediate_size": 768, "max_position_embeddings": 20,
                    "layer_norm_eps": 1e-12}
}"#;

/// Measured curve.
struct Curve {
    name: &'static str,
    /// Quantity on the x axis.
    axis: &'static str,
    /// Points: x, and seconds of every round.
    points: Vec<(f64, Vec<f64>)>,
}

impl Curve {
    fn medians(&self) -> Vec<(f64, f64)> {
        let median = |seconds: &Vec<f64>| {
            let mut sorted = seconds.clone();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        self.points.iter().map(|(at, seconds)| (*at, median(seconds))).collect()
    }

    /// Intercept, slope and largest relative residual of the line through the medians. The fit minimizes the sum of
    /// squared relative residuals, since the points lie far apart.
    fn line(&self) -> (f64, f64, f64) {
        let points = self.medians();
        let weigh = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            points.iter().map(|&(x, y)| f(x, y) / (y * y)).sum()
        };
        let (one, x, y) = (weigh(&|_, _| 1.0), weigh(&|x, _| x), weigh(&|_, y| y));
        let (xx, xy) = (weigh(&|x, _| x * x), weigh(&|x, y| x * y));
        let slope = (one * xy - x * y) / (one * xx - x * x);
        let start = (y - slope * x) / one;
        let off = |&(x, y): &(f64, f64)| ((start + slope * x) / y - 1.0).abs();
        (start, slope, points.iter().map(off).fold(0.0, f64::max))
    }
}

fn normal(name: &str, shape: &[usize]) -> Result<Tensor> {
    Ok(Stream::new(1, name, 0, 0).normal_tensor(shape, 1.0)?)
}

fn texts(count: usize) -> Result<(Tensor, Tensor)> {
    let mut stream = Stream::new(1, "words", 0, 0);
    let ids: Vec<u32> = (0..count * LENGTH).map(|_| stream.below(3500) as u32).collect();
    let ids = Tensor::from_vec(ids, (count, LENGTH), &Device::Cpu)?;
    Ok((ids, Tensor::ones((count, LENGTH), DType::F32, &Device::Cpu)?))
}

/// Full feature queue: empty slots would be skipped. Its concepts match none of the batch.
fn full(width: usize, slots: usize) -> Result<FeatureQueue> {
    let features = (normal("queue", &[slots, width])? / (width as f64).sqrt())?;
    let ids: Vec<i64> = (1_000_000..).take(slots).collect();
    let mut queue = FeatureQueue::new(width, slots, &Device::Cpu)?;
    queue.enqueue(&features, &features, &ids)?;
    Ok(queue)
}

/// Training step over `batch` pairs with a full queue of so many.
fn step(backbone: &Backbone, batch: usize, queue: usize) -> Result<Box<dyn FnMut() -> Result<()>>> {
    let settings = [
        "adapter.rank=32".to_owned(),
        format!("retrieval.queue_size={queue}"),
        format!("retrieval.itm_pairs={batch}"),
        "gradient_checkpointing=none".to_owned(),
    ];
    let config = Config::resolve(None, &settings)?;
    let mut trainer = Trainer::new(&config, backbone, &Device::Cpu)?;
    trainer.set_queue(full(backbone.config.projection_dim, queue)?)?;
    let images = normal("pictures", &[batch, 3, 96, 96])?;
    let (ids, mask) = texts(batch)?;
    let mut number = 0;
    Ok(Box::new(move || {
        let concepts: Vec<i64> = (0..batch as i64).collect();
        let images = (&images).into();
        let pairs = ImageTextBatch { images, token_ids: &ids, mask: &mask, ids: &concepts };
        trainer.step(&pairs, number)?;
        number += 1;
        Ok(())
    }))
}

/// Two-stage evaluation of so many images and as many texts, with so many candidates for each query.
fn evaluation(
    backbone: &Backbone,
    count: usize,
    candidates: usize,
) -> Result<Box<dyn FnMut() -> Result<()>>> {
    let (blip, images) = (backbone.model()?, normal("pictures", &[count, 3, 96, 96])?);
    let (ids, mask) = texts(count)?;
    Ok(Box::new(move || {
        let bare = blip.bind_frozen()?;
        let mut builder = GalleryBuilder::default();
        for first in (0..count).step_by(64) {
            let rows = 64.min(count - first);
            builder.images(&blip, &bare, &images.narrow(0, first, rows)?)?;
            let (ids, mask) = (ids.narrow(0, first, rows)?, mask.narrow(0, first, rows)?);
            builder.texts(&blip, &bare, &ids, &mask)?;
        }
        builder.finish()?.rerank(&blip, &bare, candidates, &mut Silent)?;
        Ok(())
    }))
}

fn curve(
    name: &'static str,
    axis: &'static str,
    at: &[usize],
    make: impl Fn(usize) -> Result<Box<dyn FnMut() -> Result<()>>>,
) -> Result<Curve> {
    let mut runs = at.iter().map(|&at| make(at)).collect::<Result<Vec<_>>>()?;
    let mut points: Vec<(f64, Vec<f64>)> = at.iter().map(|&at| (at as f64, Vec::new())).collect();
    for round in 0..=ROUNDS {
        for (run, point) in runs.iter_mut().zip(&mut points) {
            let start = Instant::now();
            run()?;
            if round > 0 {
                point.1.push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(Curve { name, axis, points })
}

fn main() -> Result<()> {
    aurora_kernels::allocator::retain_freed_memory();
    aurora_kernels::rayon_pool::include_main_thread();
    let config = BlipConfig::from_json(SIZES, Path::new("the sizes in examples/growth.rs"))?;
    let backbone = Backbone::random(config, 1, &Device::Cpu)?;
    let curves = [
        curve("a step, queue of 14,400", "pairs in a batch", &[4, 8, 16, 32, 64], |batch| {
            step(&backbone, batch, 14_400)
        })?,
        curve("a step of 16 pairs", "queue", &[57_600, 115_200, 230_400, 460_800], |queue| {
            step(&backbone, 16, queue)
        })?,
        curve("an evaluation, k = 16", "images, and as many texts", &[64, 128, 256, 512], |n| {
            evaluation(&backbone, n, 16)
        })?,
        curve("an evaluation of 128 by 128", "candidates, k", &[4, 8, 16, 32], |k| {
            evaluation(&backbone, 128, k)
        })?,
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut writer = csv::Writer::from_path(root.join("benches/results/growth.csv"))?;
    writer.write_record(["curve", "axis", "at", "round", "seconds"])?;
    for curve in &curves {
        for (at, seconds) in &curve.points {
            for (round, seconds) in (1..).zip(seconds) {
                let (at, round) = (format!("{at}"), format!("{round}"));
                let seconds = format!("{seconds:.6}");
                writer.write_record([curve.name, curve.axis, &at, &round, &seconds])?;
            }
        }
        let (start, slope, off) = curve.line();
        let points = curve.medians();
        let shown: Vec<String> =
            points.iter().map(|(at, seconds)| format!("{at}: {seconds:.4} s")).collect();
        println!(
            "{} by {}: {}; line {start:.4} s + {slope:.3e} s each, at most {:.1} % off",
            curve.name,
            curve.axis,
            shown.join(", "),
            100.0 * off
        );
    }
    writer.flush()?;
    std::fs::write(root.join("docs/growth.svg"), plot::svg(&curves))?;
    Ok(())
}
