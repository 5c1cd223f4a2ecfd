//! Our half of `cargo xtask bench-loader`, beside PyTorch's (`loader.py`).
//!
//! ```text
//! loader work epoch OUT ...            every image decoded, scaled and normalized
//! loader work shard OUT ...            every image's bytes, of a shard that has been opened
//! loader work plain OUT ...            the same file from its beginning to its end
//! loader work epoch OUT ... --check F  instead, how far our first batch is from PyTorch's in the file F
//! ```
//!
//! Work is a line of JSON when ready, one for each line `run`, and one at the end.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use aurora_benches::roofline::processor;
use aurora_benches::worker::{Result, program, say, serve};
use aurora_data::{
    Captions, Dataset, Decode, EvalTransform, Loader, LoaderOptions, Sample, embedded, folder,
    shard,
};
use candle_core::Device;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one kind of work.
    Work(Work),
}

#[derive(Debug, clap::Args)]
struct Work {
    what: What,
    /// Folder that `loader.py prepare` filled.
    out: PathBuf,
    #[arg(long)]
    size: usize,
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    threads: usize,
    /// File with PyTorch's first batch.
    #[arg(long)]
    check: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Epoch,
    Shard,
    Plain,
}

fn main() -> ExitCode {
    let Command::Work(work) = Arguments::parse().command;
    program(|| run(&work))
}

fn run(work: &Work) -> Result<()> {
    let shard = work.out.join("shard.tar");
    let ready = json!({"device": processor()});
    match (work.what, &work.check) {
        (What::Epoch, Some(expected)) => say(&compared(&loader(work)?, expected)?),
        (What::Epoch, None) => {
            let loader = loader(work)?;
            let epoch = || {
                let mut count = 0;
                for batch in loader.epoch(0)? {
                    count += batch?.indices.len();
                }
                Ok(count.into())
            };
            epoch()?;
            serve(ready, epoch)
        }
        (What::Shard, _) => {
            // Training does this once and not in every epoch.
            let samples = shard::read(&shard)?;
            serve(ready, || Ok(read_images(&samples)?.into()))
        }
        (What::Plain, _) => serve(ready, || Ok(read_plain(&shard)?.into())),
    }
}

fn loader(work: &Work) -> Result<Loader> {
    let samples = folder::read(&work.out.join("images"), Captions::Required)?;
    let options =
        LoaderOptions { num_workers: work.threads, ..LoaderOptions::evaluation(work.batch) };
    let tokens = Arc::new(embedded::vocabulary()?);
    let transform = Arc::new(EvalTransform { size: work.size });
    Ok(Loader::new(Dataset::new(samples, Decode::OnUse)?, transform, tokens, options)?)
}

/// Difference of our first batch from PyTorch's, mean and largest, in 255ths of the range of a color.
fn compared(loader: &Loader, expected: &Path) -> Result<Value> {
    let theirs = candle_core::safetensors::load(expected, &Device::Cpu)?;
    let theirs = theirs.get("images").ok_or("no images in PyTorch's file")?;
    let ours = loader.batch(0)?.images;
    let difference = (ours - theirs)?.abs()?;
    let colors: Vec<f32> = difference.mean(3)?.mean(2)?.mean(0)?.to_vec1()?;
    let scaled = colors.iter().zip(aurora_data::transform::STD).map(|(value, std)| value * std);
    let mean = scaled.sum::<f32>() / 3.0 * 255.0;
    let largest =
        difference.max_all()?.to_scalar::<f32>()? * aurora_data::transform::STD[2] * 255.0;
    Ok(json!({"mean": mean, "largest": largest}))
}

/// Reads every image of a shard, in order.
fn read_images(samples: &[Sample]) -> Result<u64> {
    let mut bytes = 0;
    for content in samples.iter().flat_map(|sample| sample.media.contents()) {
        bytes += content.bytes()?.len() as u64;
    }
    Ok(bytes)
}

/// Reads the file in chunks.
fn read_plain(path: &Path) -> Result<u64> {
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 20]);
    let mut bytes = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}
