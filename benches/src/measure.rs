//! Runs the cases of a target under Criterion and reports time and roofline share of each.
//!
//! Criterion decides how often a case runs, compares with its last run and prints that; it does not hand its numbers
//! back, and its short mode keeps two samples. So every single run is timed here, and the median is of those.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench talks to whoever started it"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aurora_kernels::Precision;
use aurora_kernels::cuda::Element;
use candle_core::Result;
use criterion::Criterion;

use crate::case::{BenchCase, Measured, median};
use crate::gpu::Device;
use crate::record::{Record, results};
use crate::roofline::Roofline;
use crate::table::table;

/// Settings of a run of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Images in a batch of BLIP-base; the small model takes 64 times as many.
    pub images: usize,
}

/// Images in a batch on the CPU, by default: a case stays well under a second.
const ON_CPU: usize = 2;
/// Images in a batch on a GPU, by default: BLIP's batch when tuned on one.
const ON_GPU: usize = 16;
/// Element types of the cases on a GPU.
const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

impl Setting {
    /// Reads `AURORA_BENCH_IMAGES`, with this default.
    ///
    /// # Errors
    /// A value that is no number above zero.
    pub fn from_environment(otherwise: usize) -> Result<Self> {
        let Ok(text) = std::env::var("AURORA_BENCH_IMAGES") else {
            return Ok(Self { images: otherwise });
        };
        match text.parse() {
            Ok(images) if images > 0 => Ok(Self { images }),
            _ => candle_core::bail!("AURORA_BENCH_IMAGES={text}: a number above 0 is wanted"),
        }
    }
}

/// Criterion target: measures every case, prints the tables, and appends them to `results/NAME.csv` where asked.
pub fn target(name: &str, cases: fn(&Setting) -> Vec<BenchCase>) -> ExitCode {
    match run(name, cases) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, cases: fn(&Setting) -> Vec<BenchCase>) -> Result<()> {
    aurora_kernels::allocator::retain_freed_memory();
    aurora_kernels::rayon_pool::include_main_thread();
    let (cpu, gpu) = match std::env::var("AURORA_BENCH_DEVICE").as_deref() {
        Err(_) | Ok("all") => (true, true),
        Ok("cpu") => (true, false),
        Ok("gpu") => (false, true),
        Ok(other) => candle_core::bail!("AURORA_BENCH_DEVICE={other}: cpu, gpu or all"),
    };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    // Otherwise Criterion lists the cases, or runs each once without a time.
    let asked = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let timed = asked("--bench") && !asked("--test") && !asked("--list");

    if cpu {
        let before = timed.then(|| Roofline::of_processor(Precision::F32)).transpose()?;
        let measured = on_cpu(&mut criterion, cases(&Setting::from_environment(ON_CPU)?));
        if let Some(before) = before.filter(|_| !measured.is_empty()) {
            // Measured again, so that a moment in which the machine was busy does not lower the roofline.
            report(name, &before.or_better(&Roofline::of_processor(Precision::F32)?), &measured)?;
        }
    }
    if gpu {
        match Device::first() {
            Ok(mut device) => {
                let setting = Setting::from_environment(ON_GPU)?;
                for element in ELEMENTS {
                    let before = timed.then(|| device.roofline(element)).transpose()?;
                    let measured = on_gpu(&mut criterion, &mut device, element, &cases(&setting));
                    if let Some(before) = before.filter(|_| !measured.is_empty()) {
                        report(name, &before.or_better(&device.roofline(element)?), &measured)?;
                    }
                }
            }
            Err(error) if cpu => println!("{name}: no GPU ({error})"),
            Err(error) => return Err(error.into()),
        }
    }
    criterion.final_summary();
    Ok(())
}

/// Prints the table of one device, and appends its rows to the file where asked.
fn report(name: &str, roofline: &Roofline, measured: &[Measured]) -> Result<()> {
    println!("{}", table(name, roofline, measured));
    if std::env::var_os("AURORA_BENCH_RECORD").is_some_and(|set| set == "1") {
        let path = results(name);
        Record::here().append(&path, name, roofline, measured)?;
        println!("{} rows appended to {}", measured.len(), path.display());
    }
    Ok(())
}

/// Measures every case that has a run on the CPU.
fn on_cpu(criterion: &mut Criterion, cases: Vec<BenchCase>) -> Vec<Measured> {
    let mut measured = Vec::new();
    for mut case in cases {
        let Some(setup) = case.cpu.take() else { continue };
        let prepare = || {
            let mut body = setup()?;
            Ok(move || {
                let start = Instant::now();
                body()?;
                Ok(start.elapsed())
            })
        };
        let median = median(&single_runs(criterion, &case.name, prepare));
        measured.extend(median.map(|median| case.measured(Element::F32, median)));
    }
    measured
}

/// Measures every case that has a run on a GPU.
fn on_gpu(
    criterion: &mut Criterion,
    device: &mut Device,
    element: Element,
    cases: &[BenchCase],
) -> Vec<Measured> {
    let mut measured = Vec::new();
    for case in cases {
        let Some(setup) = &case.gpu else { continue };
        let id = format!("gpu/{}/{}", element.name(), case.name);
        let device = &mut *device;
        let prepare = move || {
            let work = setup(device.executor(), element)?;
            Ok(move || device.time(&work))
        };
        let median = median(&single_runs(criterion, &id, prepare));
        measured.extend(median.map(|median| case.measured(element, median)));
    }
    measured
}

/// Times of every single run that Criterion asks for; none where its filter leaves the case out, which is then not
/// prepared either.
fn single_runs<T: FnMut() -> Result<Duration>>(
    criterion: &mut Criterion,
    id: &str,
    prepare: impl FnOnce() -> Result<T>,
) -> Vec<Duration> {
    let mut runs = Vec::new();
    let mut prepare = Some(prepare);
    let mut ready = None;
    criterion.bench_function(id, |bencher| {
        if let Some(prepare) = prepare.take() {
            let made = prepare().and_then(|mut run| {
                // Warm-up of the caches, the allocator and the thread pool.
                run()?;
                Ok(run)
            });
            ready = Some(made.unwrap_or_else(|error| fail(id, &error)));
        }
        let Some(run) = &mut ready else { return };
        bencher.iter_custom(|count| {
            let first = runs.len();
            for _ in 0..count {
                runs.push(run().unwrap_or_else(|error| fail(id, &error)));
            }
            runs[first..].iter().sum()
        });
    });
    runs
}

/// Ends the target on a wrong case: Criterion calls back and takes no error.
fn fail(name: &str, error: &candle_core::Error) -> ! {
    eprintln!("error: {name}: {error}");
    std::process::exit(1)
}
