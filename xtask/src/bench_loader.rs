//! `cargo xtask bench-loader`: the loader against PyTorch's DataLoader, and the shard reader against plain reading.
//!
//! `benches/loader/loader.py` makes the files: JPEGs of about 640 x 480, collages of the embedded openclipart
//! drawings, and a shard of them. Both sides then read them from the folder, decode, resize to a square, normalize and
//! collate batches, ours on threads and PyTorch's in as many worker processes (Pillow and torchvision). Once their
//! first batches have been found equal up to what JPEG decoders may differ in, both stay alive and are told in turn to
//! run one epoch. The images of the shard, opened once, are read by the shard reader, and the file by a loop that does
//! nothing but read, in turn too, after the file was dropped from the page cache. CI does not run this.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::python::{self, Python};
use crate::results_csv;
use crate::statistics::{median, spread};
use crate::teachers::call;
use crate::worker::{self, Worker};

/// Tolerance: mean difference of the first batches, in 8-bit color steps.
const ALLOWED: f64 = 1.0;

/// Arguments of `cargo xtask bench-loader`.
#[derive(Debug, clap::Args)]
pub struct BenchLoaderArgs {
    /// Image size in pixels.
    #[arg(long, default_value_t = 384)]
    size: usize,
    /// Batch size.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Worker threads of ours, worker processes of PyTorch's.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Images per epoch.
    #[arg(long, default_value_t = 400)]
    count: usize,
    /// Measured pairs of runs.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Folder for the files, about half a gigabyte.
    #[arg(long, default_value = "target/loader")]
    out: PathBuf,
    /// CSV file that every pair is appended to.
    #[arg(long, default_value = "benches/results/loader.csv")]
    results: PathBuf,
}

/// Columns of the record.
const COLUMNS: [&str; 14] = [
    "date", "commit", "aurora", "rustc", "peers", "device", "threads", "row", "size", "batch",
    "side", "pair", "seconds", "count",
];

/// One run: its seconds, and its number of images or bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    seconds: f64,
    count: u64,
}

impl Run {
    fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Paired runs of two sides that did the same work in turn.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    row: &'static str,
    sides: [&'static str; 2],
    pairs: Vec<[Run; 2]>,
}

impl Outcome {
    /// Ratio of our rate to theirs, pair by pair: median, minimum, maximum.
    fn ratio(&self) -> [f64; 3] {
        spread(self.pairs.iter().map(|[ours, theirs]| ours.rate() / theirs.rate()))
    }

    /// Median rate of each side.
    fn rates(&self) -> [f64; 2] {
        [0, 1].map(|side| median(self.pairs.iter().map(|pair| pair[side].rate())))
    }
}

/// Sets up the environment, the files and our program, times both comparisons and reports.
///
/// # Errors
/// A package that cannot be installed, a program that fails, batches that differ, a record that cannot be written.
pub fn run(args: &BenchLoaderArgs) -> anyhow::Result<()> {
    let root = crate::workspace_root();
    let results = root.join(&args.results);
    results_csv::read(&results, &COLUMNS)?;
    ensure!(args.pairs > 0 && args.count > 0, "at least one pair and one image");
    let python = Python::installed()?;
    let script = root.join("benches/loader/loader.py");
    let out = root.join(&args.out);
    // Images of an earlier run with another count would be read too.
    crate::empty_folder(&out)?;
    let ours = build(&root)?;
    eprintln!("files in {}", out.display());
    let pack = root.join("crates/aurora-data/assets/openclipart.tar.gz");
    let mut prepare = python.script(&script);
    call(prepare.arg("prepare").arg(pack).arg(&out).arg("--count").arg(args.count.to_string()))?;

    let told = |command: &mut Command| {
        let [size, batch, threads] = [args.size, args.batch, args.threads].map(|n| n.to_string());
        command.arg(&out).args(["--size", &size, "--batch", &batch, "--threads", &threads]);
    };
    let aurora = |what: &str| {
        let mut command = Command::new(&ours);
        command.args(["work", what]);
        told(&mut command);
        command
    };
    let pytorch = || {
        let mut command = python.script(&script);
        command.arg("work");
        told(&mut command);
        command
    };
    agree(&mut aurora("epoch"), &mut pytorch(), &out.join("expected.safetensors"))?;

    let (epochs, versions, device) = time(
        "epoch",
        ["aurora", "pytorch"],
        &mut aurora("epoch"),
        &mut pytorch(),
        args.pairs,
        || Ok(()),
    )?;
    let shard = out.join("shard.tar");
    let (reading, ..) = time(
        "shard",
        ["aurora", "plain"],
        &mut aurora("shard"),
        &mut aurora("plain"),
        args.pairs,
        || forget(&shard),
    )?;

    let outcomes = [epochs, reading];
    let mut rows = Vec::new();
    let (date, commit, rustc) = (results_csv::date(), results_csv::commit(), results_csv::rustc());
    for outcome in &outcomes {
        for (number, pair) in (1..).zip(&outcome.pairs) {
            for (side, run) in outcome.sides.iter().zip(pair) {
                rows.push([
                    date.clone(),
                    commit.clone(),
                    env!("CARGO_PKG_VERSION").to_owned(),
                    rustc.clone(),
                    versions.clone(),
                    device.clone(),
                    args.threads.to_string(),
                    outcome.row.to_owned(),
                    args.size.to_string(),
                    args.batch.to_string(),
                    (*side).to_owned(),
                    format!("{number}"),
                    format!("{:.6}", run.seconds),
                    run.count.to_string(),
                ]);
            }
        }
    }
    results_csv::append(&results, &COLUMNS, &rows)?;
    eprintln!("appended to {}", results.display());
    print!("{}", report(&outcomes));
    Ok(())
}

/// Builds our program.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--quiet", "--release"]);
    call(cargo.args(["--package", "aurora-benches", "--example", "loader"]))?;
    Ok(python::target()
        .join("release/examples/loader")
        .with_extension(std::env::consts::EXE_EXTENSION))
}

/// Checks that both sides make the same first batch, up to what JPEG decoders may differ in.
fn agree(ours: &mut Command, theirs: &mut Command, file: &Path) -> anyhow::Result<()> {
    call(theirs.arg("--check").arg(file))?;
    let answer = worker::answer(ours.arg("--check").arg(file))?;
    let number = |key: &str| answer[key].as_f64().with_context(|| format!("{answer} has no {key}"));
    let (mean, largest) = (number("mean")?, number("largest")?);
    println!("first batches: {mean:.3} of 255 apart on average, {largest:.0} at most");
    ensure!(mean <= ALLOWED, "the first batches are {mean} apart, so nothing was timed");
    Ok(())
}

/// Runs both sides in turn, `before` before each; the first pair is a warm-up. Also returns the versions that the
/// second side reports and the device that the first one reports.
fn time(
    row: &'static str,
    sides: [&'static str; 2],
    ours: &mut Command,
    theirs: &mut Command,
    pairs: usize,
    before: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<(Outcome, String, String)> {
    let ((mut ours, first), (mut theirs, second)) = (Worker::start(ours)?, Worker::start(theirs)?);
    let run = |worker: &mut Worker| -> anyhow::Result<Run> {
        before()?;
        let said = worker.run_saying()?;
        let parts = said["seconds"].as_f64().zip(said["count"].as_u64());
        let (seconds, count) = parts.with_context(|| format!("a run said {said}"))?;
        Ok(Run { seconds, count })
    };
    let mut found = Vec::with_capacity(pairs);
    for pair in 0..=pairs {
        let both = [run(&mut ours)?, run(&mut theirs)?];
        let what = if pair == 0 { "warm-up".to_owned() } else { format!("pair {pair} of {pairs}") };
        let [a, b] = both.map(|run| run.seconds);
        eprintln!("{row}: {what}, {} {a:.3} s, {} {b:.3} s", sides[0], sides[1]);
        if pair > 0 {
            found.push(both);
        }
    }
    ours.end()?;
    theirs.end()?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
    let outcome = Outcome { row, sides, pairs: found };
    Ok((outcome, text(&second["versions"]), text(&first["device"])))
}

/// Drops a file from the page cache, through `dd`.
fn forget(file: &Path) -> anyhow::Result<()> {
    let mut dd = Command::new("dd");
    let mut of = std::ffi::OsString::from("of=");
    of.push(file);
    dd.arg(of).args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    call(&mut dd)
}

fn report(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "| | a second | beside | a second | ratio, median (least to most) |\n|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let [ours, theirs] = outcome.rates();
        let [median, least, most] = outcome.ratio();
        let (scale, unit) = if outcome.row == "shard" { (1e-6, "MB") } else { (1.0, "images") };
        out.push_str(&format!(
            "| {} | {:.0} {unit} | {} | {:.0} {unit} | {median:.2} ({least:.2} to {most:.2}) |\n",
            outcome.row,
            ours * scale,
            outcome.sides[1],
            theirs * scale,
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(row: &'static str, pairs: &[(f64, f64)]) -> Outcome {
        let run = |seconds| Run { seconds, count: 400_000_000 };
        let pairs = pairs.iter().map(|&(ours, theirs)| [run(ours), run(theirs)]).collect();
        Outcome { row, sides: ["aurora", "pytorch"], pairs }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The second pair was disturbed as a whole, which its ratio does not show.
        let outcome = outcome("epoch", &[(1.0, 2.0), (10.0, 25.0), (2.0, 3.0)]);
        assert_eq!(outcome.ratio(), [2.0, 1.5, 2.5]);
        assert_eq!(outcome.rates(), [2e8, 400_000_000.0 / 3.0]);
    }

    #[test]
    fn a_report_has_a_line_for_each_row() {
        let report = report(&[outcome("epoch", &[(1e6, 2e6)]), outcome("shard", &[(1.0, 0.5)])]);
        assert!(
            report.contains("| epoch | 400 images | pytorch | 200 images | 2.00 (2.00 to 2.00) |"),
            "{report}"
        );
        assert!(
            report.contains("| shard | 400 MB | pytorch | 800 MB | 0.50 (0.50 to 0.50) |"),
            "{report}"
        );
    }
}
