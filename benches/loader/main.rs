//! Our half of `cargo xtask bench-loader`, beside PyTorch's (`loader.py`).
//!
//! ```text
//! loader work epoch OUT ...            every picture decoded, scaled and normalised
//! loader work shard OUT ...            every picture's bytes, by the shard reader
//! loader work plain OUT ...            the same file from its beginning to its end
//! loader work epoch OUT ... --check F  instead, how far our first batch is from PyTorch's in the file F
//! ```
//!
//! Work is a line of JSON when ready, one for each line `run`, and one at the end.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the program talks to the chore")]

use std::fs::File;
use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use aurora_benches::ceiling::processor;
use aurora_data::{
    Captions, Dataset, Decode, Evaluation, Loader, LoaderOptions, embedded, folder, shard,
};
use candle_core::Device;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do one of the works.
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
    /// PyTorch's first batch.
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
    // As the program `aurora` does.
    aurora_kernels::memory::keep_freed_memory();
    let Command::Work(work) = Arguments::parse().command;
    match run(&work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: &Work) -> Result<()> {
    let shard = work.out.join("shard.tar");
    match (work.what, &work.check) {
        (What::Epoch, Some(expected)) => say(&compared(&loader(work)?, expected)?),
        (What::Epoch, None) => {
            let loader = loader(work)?;
            let epoch = || {
                let mut count = 0;
                for batch in loader.epoch(0)? {
                    count += batch?.indices.len();
                }
                Ok(count as u64)
            };
            epoch()?;
            serve(epoch)?;
        }
        (What::Shard, _) => serve(|| read_shard(&shard))?,
        (What::Plain, _) => serve(|| read_plain(&shard))?,
    }
    Ok(())
}

fn say(value: &Value) {
    println!("{value}");
}

/// Runs when told to, until told to end.
fn serve(mut run: impl FnMut() -> Result<u64>) -> Result<()> {
    say(&json!({"ready": true, "device": processor()}));
    for line in std::io::stdin().lock().lines() {
        if line?.trim() != "run" {
            break;
        }
        let start = Instant::now();
        let count = run()?;
        say(&json!({"seconds": start.elapsed().as_secs_f64(), "count": count}));
    }
    say(&json!({"peak_bytes": 0}));
    Ok(())
}

fn loader(work: &Work) -> Result<Loader> {
    let samples = folder::read(&work.out.join("pictures"), Captions::Required)?;
    let options = LoaderOptions { threads: work.threads, ..LoaderOptions::evaluation(work.batch) };
    let tokens = Arc::new(embedded::vocabulary()?);
    let transform = Arc::new(Evaluation { size: work.size });
    Ok(Loader::new(Dataset::new(samples, Decode::OnUse)?, transform, tokens, options)?)
}

/// How far our first batch is from PyTorch's, in 255ths of the range of a colour.
fn compared(loader: &Loader, expected: &Path) -> Result<Value> {
    let theirs = candle_core::safetensors::load(expected, &Device::Cpu)?;
    let theirs = theirs.get("images").ok_or("no images in PyTorch's file")?;
    let ours = loader.batch(0)?.images;
    let difference = (ours - theirs)?.abs()?;
    let colours: Vec<f32> = difference.mean(3)?.mean(2)?.mean(0)?.to_vec1()?;
    let scaled = colours.iter().zip(aurora_data::transform::STD).map(|(value, std)| value * std);
    let mean = scaled.sum::<f32>() / 3.0 * 255.0;
    let largest =
        difference.max_all()?.to_scalar::<f32>()? * aurora_data::transform::STD[2] * 255.0;
    Ok(json!({"mean": mean, "largest": largest}))
}

/// Opens the shard and reads every picture, in order.
fn read_shard(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for sample in shard::read(path)? {
        for content in sample.visual.contents() {
            bytes += content.bytes()?.len() as u64;
        }
    }
    Ok(bytes)
}

/// Reads the file a piece at a time.
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
