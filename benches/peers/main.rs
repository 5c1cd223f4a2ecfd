//! Our half of `cargo xtask bench-peers`: one benchmark at a time, beside the same one in PyTorch (`peer.py`).
//!
//! ```text
//! peer ceiling ...              GEMM throughput, as a line of JSON
//! peer work ROW OUT ...         one row: a line of JSON when ready, one for each line `run`, one with the peak memory
//! peer work ROW OUT --check F   instead, how far our tensors are from PyTorch's in the file F
//! ```

mod agreement;
mod retrieval;
mod rows;
mod setting;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aurora_benches::roofline::Roofline;
use aurora_benches::worker::{Result, program, say, serve};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use setting::Setting;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure GEMM throughput.
    #[command(name = "ceiling")]
    Roofline {
        #[arg(long)]
        precision: Precision,
    },
    /// Run a benchmark.
    Work(Work),
}

#[derive(Debug, clap::Args)]
struct Kind {
    #[arg(long)]
    precision: Precision,
    #[arg(long)]
    checkpoint: Checkpointing,
}

#[derive(Debug, clap::Args)]
struct Work {
    row: Benchmark,
    /// Folder that `peer.py prepare` filled.
    out: PathBuf,
    #[arg(long)]
    size: usize,
    #[arg(long)]
    batch: usize,
    #[command(flatten)]
    kind: Kind,
    /// File with PyTorch's outputs.
    #[arg(long)]
    check: Option<PathBuf>,
    /// File with PyTorch's f32 outputs, where the benchmark is in bf16.
    #[arg(long)]
    exact: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Benchmark {
    A,
    B,
    C,
    DText,
    /// Named as in recorded results.
    #[value(name = "d_picture")]
    DImage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Checkpointing {
    None,
    Block,
}

impl Checkpointing {
    /// Value of the configuration's key.
    fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Block => "block",
        }
    }
}

impl Precision {
    /// Our precision of that name.
    fn of_products(self) -> aurora_kernels::Precision {
        match self {
            Self::F32 => aurora_kernels::Precision::F32,
            Self::Bf16 => aurora_kernels::Precision::Bf16,
        }
    }

    /// Tolerance relative to the largest value of a tensor: rounding in another order of sums. bf16 has 8 bits of
    /// precision.
    fn allowed(self) -> f64 {
        match self {
            Self::F32 => 1e-4,
            Self::Bf16 => 3e-2,
        }
    }
}

fn main() -> ExitCode {
    program(|| run(&Arguments::parse().command))
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Roofline { precision } => {
            let Roofline { device, threads, operations, bytes } =
                Roofline::of_processor(precision.of_products())?;
            let value = json!({"operations": operations, "bytes": bytes, "device": device, "threads": threads});
            say(&value)
        }
        Command::Work(work) => {
            let setting = Setting {
                out: work.out.clone(),
                size: work.size,
                batch: work.batch,
                precision: work.kind.precision.of_products(),
                checkpoint: work.kind.checkpoint.key(),
            };
            match &work.check {
                Some(expected) => check(work, &setting, expected),
                None => time(work.row, &setting),
            }
        }
    }
}

fn check(work: &Work, setting: &Setting, expected: &Path) -> Result<()> {
    let found = match work.row {
        Benchmark::A => rows::check_vision_trained(setting)?,
        Benchmark::B => rows::check_vision_frozen(setting)?,
        Benchmark::C => retrieval::check(setting)?,
        Benchmark::DText => rows::check_rerank(setting, true)?,
        Benchmark::DImage => rows::check_rerank(setting, false)?,
    };
    let (exact, allowed) = (work.exact.as_deref(), work.kind.precision.allowed());
    let lines = agreement::compare(&found, expected, exact, allowed)?;
    say(&json!({"agreement": lines}))
}

fn time(row: Benchmark, setting: &Setting) -> Result<()> {
    let mut prepared = match row {
        Benchmark::A => rows::vision_trained(setting)?,
        Benchmark::B => rows::vision_frozen(setting)?,
        Benchmark::C => retrieval::step(setting)?,
        Benchmark::DText => rows::rerank(setting, true)?,
        Benchmark::DImage => rows::rerank(setting, false)?,
    };
    let [operations, plain] = prepared.operations;
    let ready = json!({"operations": operations, "plain_operations": plain});
    serve(ready, move || (prepared.run)().map(Value::from))
}
