//! `aurora train`, and the tuning run shared with `aurora quickstart`.

use std::path::Path;

use anyhow::Result;
use aurora_train::config::Config;
use aurora_train::metrics::TaskMetrics;
use aurora_train::pipeline::{
    DataSplits, EvalResult, Inputs, Model, TrainingCheckpoint, TuningResult, resume, tune,
};
use aurora_train::run::RunFolder;
use candle_core::Device;

use super::report;
use super::shared::{metrics_table, recall_table, resolve_on, skipped_line};
use crate::args::{ConfigArgs, RunArgs, TrainArgs};
use crate::model;
use crate::output;
use crate::progress::ProgressDisplay;

/// Runs `aurora train`.
///
/// # Errors
/// Settings, data or a folder that cannot be used.
pub fn run(args: &TrainArgs) -> Result<()> {
    match &args.resume {
        Some(folder) => resume_run(folder, &args.run),
        None => tuning(&args.run, "train"),
    }
}

/// Resumes a run; the folder of a run that cannot be resumed is left unchanged.
fn resume_run(folder: &Path, args: &RunArgs) -> Result<()> {
    let run = RunFolder::open(folder)?;
    let own = Some(run.join("config.toml"));
    let settings = ConfigArgs { config: own, overrides: args.settings.overrides.clone() };
    let config: Config = resolve_on(&settings, &args.device)?;
    let saved = TrainingCheckpoint::newest(&run)?;
    saved.check(&config)?;
    let inputs = open(&config, &model::device(&config)?)?;
    let outcome = resume(&config, &inputs, &run, saved, &mut ProgressDisplay::new())?;
    report::write(&run, "aurora train", &config, &inputs, &outcome)?;
    print(folder, &inputs, &outcome)
}

/// Tuning run of the command `name`; its default folder is `runs/` and that name.
pub(super) fn tuning(args: &RunArgs, name: &str) -> Result<()> {
    let config: Config = resolve_on(&args.settings, &args.device)?;
    let device = model::device(&config)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    let run = RunFolder::create(&out)?;
    let done = open(&config, &device).and_then(|inputs| {
        let outcome = tune(&config, &inputs, &run, &mut ProgressDisplay::new())?;
        Ok((inputs, outcome))
    });
    let (inputs, outcome) = match done {
        Ok(done) => done,
        Err(error) => {
            discard_unstarted(&run);
            return Err(error);
        }
    };
    report::write(&run, &format!("aurora {name}"), &config, &inputs, &outcome)?;
    print(&out, &inputs, &outcome)
}

fn open(config: &Config, device: &Device) -> Result<Inputs> {
    let splits = DataSplits::open(&config.data)?;
    let Model { name: backbone_name, backbone, tokens, .. } =
        model::open(&config.model, config.task, device)?;
    Ok(Inputs { backbone, backbone_name, tokens, splits })
}

/// Removes the files of a run that failed before its first step, so that its folder can be used again. Later failures
/// keep their files for inspection.
pub(super) fn discard_unstarted(run: &RunFolder) {
    let metrics = run.join("metrics.jsonl");
    let begun = std::fs::read_to_string(&metrics)
        .is_ok_and(|text| text.lines().any(|line| line.contains("\"event\":\"train\"")));
    if begun {
        return;
    }
    // A file that cannot be removed is reported by the next run, which refuses the folder.
    for name in ["config.toml", "metrics.jsonl", "skipped.jsonl"] {
        let _ = std::fs::remove_file(run.join(name));
    }
    let _ = std::fs::remove_dir(run.path());
}

fn print(out: &Path, inputs: &Inputs, outcome: &TuningResult) -> Result<()> {
    let summary = &outcome.summary;
    output::line("");
    match (&summary.baseline, &summary.tuned, &outcome.tuned) {
        (
            TaskMetrics::Recall(baseline),
            TaskMetrics::Recall(tuned),
            EvalResult::Retrieval(found),
        ) => {
            let random_baseline =
                report::retrieval_report(&report::random_baseline_of(&inputs.splits.test, found)?);
            recall_table(&[
                ("by chance", &random_baseline),
                ("baseline", baseline),
                ("tuned", tuned),
            ])
            .print();
        }
        (baseline, tuned, _) => metrics_table(&[("baseline", baseline), ("tuned", tuned)]).print(),
    }
    output::line("");
    let share = output::share(summary.trainable_parameters, summary.backbone_parameters);
    let trained = output::count(summary.trainable_parameters);
    for (label, value) in [
        ("trainable", format!("{trained} parameters, {share} of the backbone's")),
        ("adapter", output::bytes(summary.adapter_bytes)),
        ("test pairs", output::count(summary.test_pairs)),
        ("seed", summary.seed.to_string()),
        ("time", output::duration(summary.seconds)),
    ] {
        output::line(&format!("{label:<10} {value}"));
    }
    if let Some(line) = skipped_line(summary.skipped, Some(&out.join("skipped.jsonl"))) {
        output::line(&line);
    }
    let page = out.join("report.html");
    if let EvalResult::Vqa(_) = &outcome.tuned {
        output::line(&format!(
            "\nOpen {} to see how it answers now; all its answers are in {}",
            page.display(),
            out.join("answers.json").display()
        ));
        return Ok(());
    }
    output::line(&format!(
        "\nOpen {} to see what it finds now, or search with it:",
        page.display()
    ));
    let adapter = out.join("adapter");
    output::line(&format!(
        "  {} search \"a red fruit\" --adapter {}",
        program(),
        adapter.display()
    ));
    Ok(())
}

/// Command prefix that starts this program again.
fn program() -> &'static str {
    // Set by cargo for the programs it runs.
    if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "aurora" }
}
