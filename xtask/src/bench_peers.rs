//! `cargo xtask bench-peers`: whole passes of BLIP-base against PyTorch, on this machine and at the same time.
//!
//! Each row has a process of ours (the example `peer` of aurora-benches) and one of PyTorch's (`benches/peers/peer.py`,
//! with transformers and peft), which read the same random weights and the same inputs. Before a row is timed the two
//! have to agree on its outputs, and on its gradients where it has some. Then both stay alive and are told to run in
//! turn, ours, theirs, ours, theirs, with two threads each, and whoever is not running sleeps: what else the machine
//! does meets both alike. The first pair is not counted. The processes say how much memory they needed at most, the
//! model included, from where they were ready.
//!
//! PyTorch is written as somebody who cares about speed writes it without changing the algorithm: inference mode, the
//! fused attention kernel, which transformers has no switch for (`attention.py`), and no `torch.compile`. CI does not
//! run this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use crate::python::{self, Python};
use crate::teachers::call;
use crate::worker::{self, Worker};
use outcome::{Benchmark, Case, Checkpointing, Machine, Outcome, Pair};

mod outcome;
mod plot;
mod report;
mod results;
mod summary;

pub(crate) use summary::summary;

/// Threads of each side.
const THREADS: &str = "2";
/// Folder of PyTorch's expected outputs.
const EXPECTED: &str = "expected";

/// Arguments of `cargo xtask bench-peers`.
#[derive(Debug, clap::Args)]
pub struct BenchPeersArgs {
    /// Benchmarks: a, a training step of the vision tower; b, its frozen forward pass; c, a retrieval training step;
    /// d, re-ranking by the matching head.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Benchmark::value_variants().to_vec())]
    rows: Vec<Benchmark>,
    /// Image sizes in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [224, 384])]
    sizes: Vec<usize>,
    /// Batch sizes; d has 128 candidates instead.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8])]
    batches: Vec<usize>,
    /// Element types; PyTorch's bf16 is the CPU's autocast.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Precision::value_variants().to_vec())]
    precisions: Vec<Precision>,
    /// Measured pairs of runs.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Gradient checkpointing of our side in benchmark c: a case for each.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Checkpointing::value_variants().to_vec())]
    checkpoint: Vec<Checkpointing>,
    /// PyTorch's attention: fused kernel, or the unfused one of transformers.
    #[arg(long, value_enum, default_value_t = Attention::Fused)]
    attention: Attention,
    /// Quick run: a and b at 224 pixels, 4 images, f32, 3 pairs; record and plot go below the folder of --out.
    #[arg(long)]
    quick: bool,
    /// Folder for models and inputs, some gigabytes.
    #[arg(long, default_value = "target/peers")]
    out: PathBuf,
    /// File that every pair is appended to, as soon as its case is done.
    #[arg(long, default_value = "benches/results/peers.csv")]
    results: PathBuf,
    /// Plot of the newest record of every case on this machine.
    #[arg(long, default_value = "docs/peers.svg")]
    plot: PathBuf,
}

/// Element types of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attention {
    Fused,
    Written,
}

/// Command-line name of a value.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Programs of both sides, with the options of a case.
struct Sides {
    python: Python,
    script: PathBuf,
    ours: PathBuf,
    out: PathBuf,
    attention: String,
}

/// Sets up the environment, the models and our program, runs every case and reports.
///
/// # Errors
/// A package that cannot be installed, a program that fails, outputs that do not agree, files that cannot be written.
pub fn run(args: &BenchPeersArgs) -> anyhow::Result<()> {
    let root = crate::workspace_root();
    fs::create_dir_all(root.join(&args.out))?;
    let out = root.join(&args.out).canonicalize()?;
    let cases = if args.quick { quick() } else { cases(args) };
    let pairs = if args.quick { 3 } else { args.pairs };
    let [results, plot] = match args.quick {
        true => [out.join("peers.csv"), out.join("peers.svg")],
        false => [root.join(&args.results), root.join(&args.plot)],
    };
    // Fails before hours are spent on results that cannot be appended.
    results::check(&results)?;
    let sides = Sides {
        python: Python::installed()?,
        script: root.join("benches/peers/peer.py"),
        ours: build(&root)?,
        attention: name(&args.attention),
        out,
    };
    sides.prepare(&cases)?;

    let machine = sides.machine()?;
    let mut failed = Vec::new();
    for case in &cases {
        if sides.agree(case)? {
            results::append(&results, &machine, &sides.attention, &sides.time(case, pairs)?)?;
            eprintln!("appended to {}", results.display());
        } else {
            failed.push(case.to_string());
        }
    }
    let outcomes = results::latest(&results, &machine)?;
    if !outcomes.is_empty() {
        fs::write(&plot, plot::svg(&outcomes))
            .with_context(|| format!("cannot write {}", plot.display()))?;
        eprintln!("wrote {}", plot.display());
    }
    print!("{}", report::markdown(&machine, &outcomes));
    ensure!(
        failed.is_empty(),
        "the outputs of {} do not agree, so they were not timed; the lines that begin with FAIL say where",
        failed.join("; ")
    );
    Ok(())
}

/// One small case of each of the shorter benchmarks.
fn quick() -> Vec<Case> {
    let case = |row| Case {
        row,
        size: 224,
        batch: 4,
        precision: name(&Precision::F32),
        checkpoint: Checkpointing::None,
    };
    [Benchmark::B, Benchmark::A].map(case).to_vec()
}

/// Every combination of the options that a benchmark has a use for, small ones first.
fn cases(args: &BenchPeersArgs) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for precision in &args.precisions {
        for &row in &args.rows {
            for &size in &args.sizes {
                for &batch in &args.batches {
                    let batch = row.candidates().unwrap_or(batch);
                    let ways = match row {
                        Benchmark::C => args.checkpoint.as_slice(),
                        _ => &[Checkpointing::None],
                    };
                    for &checkpoint in ways {
                        let precision = name(precision);
                        let case = Case { row, size, batch, precision, checkpoint };
                        if !cases.contains(&case) {
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Builds our program.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--quiet", "--release"]);
    call(cargo.args(["--package", "aurora-benches", "--example", "peer"]))?;
    Ok(python::target()
        .join("release/examples/peer")
        .with_extension(std::env::consts::EXE_EXTENSION))
}

impl Sides {
    fn peer(&self) -> Command {
        let mut command = Command::new(&self.ours);
        command.env("RAYON_NUM_THREADS", THREADS);
        command
    }

    fn torch(&self, what: &str) -> Command {
        let mut command = self.python.script(&self.script);
        command.arg(what).args(["--threads", THREADS]);
        // Idle threads sleep: spinning ones would take the cores from the other side.
        command.env("OMP_WAIT_POLICY", "passive").env("KMP_BLOCKTIME", "0");
        command.env("OMP_NUM_THREADS", THREADS).env("MKL_NUM_THREADS", THREADS);
        command
    }

    /// Writes the models and inputs that both sides read.
    fn prepare(&self, cases: &[Case]) -> anyhow::Result<()> {
        let mut sizes: Vec<String> = cases.iter().map(|case| case.size.to_string()).collect();
        let batched = cases.iter().filter(|case| case.row.candidates().is_none());
        let mut batches: Vec<String> = batched.map(|case| case.batch.to_string()).collect();
        for list in [&mut sizes, &mut batches] {
            list.sort();
            list.dedup();
        }
        eprintln!("models and inputs in {}", self.out.display());
        // Outputs of another version of PyTorch or of its program are stale.
        crate::empty_folder(&self.out.join(EXPECTED))?;
        let mut torch = self.torch("prepare");
        call(torch.arg(&self.out).arg("--sizes").args(sizes).arg("--batches").args(batches))
    }

    /// GEMM throughput in operations per second, the better of both sides in this precision, and the machine.
    fn products(&self, precision: &str) -> anyhow::Result<(f64, Machine)> {
        let precision = ["--precision", precision];
        let ours = worker::answer(self.peer().arg("ceiling").args(precision))?;
        let theirs = worker::answer(self.torch("ceiling").args(precision))?;
        let number = |value: &serde_json::Value| value["operations"].as_f64().unwrap_or(0.0);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
        let machine =
            Machine { device: text(&ours["device"]), versions: text(&theirs["versions"]) };
        Ok((number(&ours).max(number(&theirs)), machine))
    }

    fn machine(&self) -> anyhow::Result<Machine> {
        Ok(self.products(&name(&Precision::F32))?.1)
    }

    /// Ceiling of a case: the better GEMM throughput of before and after it. What the machine once did it can do.
    fn ceiling(&self, case: &Case, before: f64) -> anyhow::Result<f64> {
        Ok(before.max(self.products(&case.precision)?.0))
    }

    fn work(&self, command: &mut Command, case: &Case) {
        let (size, batch) = (case.size.to_string(), case.batch.to_string());
        command.arg(case.row.argument()).arg(&self.out);
        command.args(["--size", &size, "--batch", &batch, "--precision", &case.precision]);
    }

    fn ours(&self, case: &Case) -> Command {
        let mut command = self.peer();
        command.arg("work");
        self.work(&mut command, case);
        command.args(["--checkpoint", &name(&case.checkpoint)]);
        command
    }

    fn theirs(&self, case: &Case) -> Command {
        let mut command = self.torch("work");
        self.work(&mut command, case);
        command.args(["--attention", &self.attention]);
        command
    }

    /// PyTorch's outputs of a case, computed once for all cases that differ only in our gradient checkpointing.
    fn expected(&self, case: &Case) -> anyhow::Result<PathBuf> {
        let Case { row, size, batch, precision, .. } = case;
        let file = format!("{}_{size}_{batch}_{precision}.safetensors", row.argument());
        let file = self.out.join(EXPECTED).join(file);
        if !file.exists() {
            call(self.theirs(case).arg("--check").arg(&file))?;
        }
        Ok(file)
    }

    /// True if the outputs of both sides agree; checked in processes of their own, so that nothing of it counts in a
    /// measured peak.
    fn agree(&self, case: &Case) -> anyhow::Result<bool> {
        eprintln!("{case}: comparing");
        let mut ours = self.ours(case);
        ours.arg("--check").arg(self.expected(case)?);
        if case.precision == name(&Precision::Bf16) {
            // Two roundings of a small difference of large numbers need not agree.
            let plain = Case { precision: name(&Precision::F32), ..case.clone() };
            ours.arg("--exact").arg(self.expected(&plain)?);
        }
        let answer = worker::answer(&mut ours)?;
        let lines = answer["agreement"].as_array().context("our side compared nothing")?;
        let mut agreed = !lines.is_empty();
        for line in lines {
            let fine = line["agrees"] == true;
            agreed &= fine;
            let (word, what) = (if fine { "ok  " } else { "FAIL" }, line["name"].as_str());
            let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
            println!(
                "{word} {case}, {}: largest difference {:.1e} of the largest value, allowed {:.1e}",
                what.unwrap_or("?"),
                number("difference"),
                number("allowed")
            );
        }
        Ok(agreed)
    }

    fn time(&self, case: &Case, pairs: usize) -> anyhow::Result<Outcome> {
        let before = self.products(&case.precision)?.0;
        let (mut ours, ready) = Worker::start(&mut self.ours(case))?;
        let (mut theirs, _) = Worker::start(&mut self.theirs(case))?;
        let mut found = Vec::with_capacity(pairs);
        for pair in 0..=pairs {
            let seconds = Pair { ours: ours.run()?, theirs: theirs.run()? };
            let Pair { ours, theirs } = seconds;
            let what =
                if pair == 0 { "warm-up".to_owned() } else { format!("pair {pair} of {pairs}") };
            eprintln!("{case}: {what}, ours {ours:.3} s, PyTorch {theirs:.3} s");
            if pair > 0 {
                found.push(seconds);
            }
        }
        let count =
            |key: &str| ready[key].as_u64().with_context(|| format!("our side lacks {key}"));
        let operations = [count("operations")?, count("plain_operations")?];
        let peaks = [ours.end()?, theirs.end()?];
        let ceiling = self.ceiling(case, before)?;
        Ok(Outcome { case: case.clone(), pairs: found, peaks, operations, ceiling })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchPeersArgs,
    }

    #[test]
    fn rows_of_candidates_are_not_multiplied_by_batches() {
        let all = cases(&Line::parse_from(["x"]).args);
        // Three benchmarks of two sizes and two batches, one of them with both kinds of checkpointing, two of two
        // sizes, in two element types.
        assert_eq!(all.len(), 2 * ((2 + 2) * 4 + 2 * 2));
        let some = ["x", "--rows", "a,d_text", "--sizes", "224", "--precisions", "f32"];
        let some: Vec<String> =
            cases(&Line::parse_from(some).args).iter().map(ToString::to_string).collect();
        assert_eq!(some, ["a 224 px x 4 f32", "a 224 px x 8 f32", "d_text 224 px x 128 f32"]);
    }
}
