//! Tuning run from start to finish, in one go or resumed (`training_checkpoint.rs`, `resume.rs`).

mod baseline;
mod resume;
mod training_checkpoint;

use aurora_data::{Loader, Tokenizer};
use aurora_layers::{AdaptedParams, AdapterConfig, AdapterKind, Backbone, save_adapter};
use candle_core::Tensor;
use std::sync::Arc;
use std::time::Instant;

use super::data_module::{DataModule, task_batch};
use super::eval::{EvalResult, Evaluator};
use super::sources::DataSplits;
use crate::config::{Config, RunConfig};
use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;
use crate::progress::{EvaluationReport, Progress, StepReport};
use crate::run::{MetricsRecord, RunFolder, Summary};
use crate::trainer::{StepOutput, Trainer};

use training_checkpoint::InputFingerprints;
pub use training_checkpoint::TrainingCheckpoint;

/// Inputs of a tuning run.
#[derive(Debug)]
pub struct Inputs {
    /// Frozen weights.
    pub backbone: Backbone,
    /// Name of the backbone in the adapter's configuration.
    pub backbone_name: String,
    /// Tokenizer of the backbone.
    pub tokens: Arc<Tokenizer>,
    /// Datasets.
    pub splits: DataSplits,
}

/// Result of a tuning run.
#[derive(Debug)]
pub struct TuningResult {
    /// Contents of `summary.json`.
    pub summary: Summary,
    /// Evaluation of the bare backbone on the test split.
    pub baseline: EvalResult,
    /// Evaluation of the tuned model on the test split.
    pub tuned: EvalResult,
    /// Records of `metrics.jsonl`.
    pub history: Vec<MetricsRecord>,
    /// Best tensors by validation.
    pub params: AdaptedParams,
}

/// Records of `metrics.jsonl`, written and remembered.
pub(super) struct History {
    metrics: crate::run::MetricsLog,
    pub(super) records: Vec<MetricsRecord>,
}

impl History {
    pub(super) fn new(run: &RunFolder) -> Result<Self> {
        Ok(Self { metrics: run.metrics()?, records: Vec::new() })
    }

    /// Truncates to the first `count` records, to resume from there.
    fn cut(run: &RunFolder, count: usize) -> Result<Self> {
        let records = run.cut_metrics(count)?;
        Ok(Self { metrics: run.metrics()?, records })
    }

    pub(super) fn add(&mut self, record: MetricsRecord) -> Result<()> {
        self.metrics.append(&record)?;
        self.records.push(record);
        Ok(())
    }
}

/// Tuning run under way, with the best state so far.
struct Run<'a> {
    config: &'a Config,
    inputs: &'a Inputs,
    folder: &'a RunFolder,
    trainer: Trainer,
    evaluator: Evaluator,
    /// Training loader.
    loader: Loader,
    history: History,
    best: Option<Best>,
    /// Fingerprints of backbone and data, once a checkpoint was saved or restored.
    fingerprints: Option<InputFingerprints>,
    begun: Instant,
    /// Wall time of the parts before this one, seconds.
    earlier: f64,
}

/// Best state by validation.
struct Best {
    /// Primary metric on validation.
    primary: f64,
    similarity_weight: Option<f64>,
    tuned: AdaptedParams,
}

/// Tunes on the device of the backbone's weights, keeps the best state by validation, and writes the run folder:
/// `config.toml`, `metrics.jsonl`, `adapter/`, `summary.json`, and, if there is anything to write, `skipped.jsonl` and
/// `answers.json`.
///
/// # Errors
/// Data that cannot be read, an adapter that does not fit the backbone, a loss that is not a number.
pub fn tune(
    config: &Config,
    inputs: &Inputs,
    run: &RunFolder,
    progress: &mut dyn Progress,
) -> Result<TuningResult> {
    run.write_config(&config.to_toml()?)?;
    listing_skipped(inputs, run, || {
        let mut state = Run::new(config, inputs, run)?;
        let baseline = state.baseline(progress)?;
        state.finish(0, baseline, progress)
    })
}

/// Resumes a tuning run from a checkpoint, to the same results as if it had never stopped.
///
/// # Errors
/// As [`tune`]; a configuration, backbone or data that are not those of the run; a damaged checkpoint.
pub fn resume(
    config: &Config,
    inputs: &Inputs,
    run: &RunFolder,
    saved: TrainingCheckpoint,
    progress: &mut dyn Progress,
) -> Result<TuningResult> {
    let mut state = Run::new(config, inputs, run)?;
    // Until here the folder stays as it is: samples skipped in other data are not the run's.
    let (baseline, first) = state.restore(saved, progress)?;
    listing_skipped(inputs, run, || state.finish(first, baseline, progress))
}

fn listing_skipped(
    inputs: &Inputs,
    run: &RunFolder,
    work: impl FnOnce() -> Result<TuningResult>,
) -> Result<TuningResult> {
    let done = work();
    // Also after a failure, which skipped samples may explain.
    let written = run.write_skipped(&inputs.splits.skips.list());
    done.and_then(|outcome| written.map(|()| outcome))
}

/// Purpose of an evaluation: selection (with candidate similarity weights) or report (with the one chosen).
#[derive(Clone, Copy)]
enum Split {
    Validation,
    Test(Option<f64>),
}

impl<'a> Run<'a> {
    /// Builds a run before its first step.
    fn new(config: &'a Config, inputs: &'a Inputs, folder: &'a RunFolder) -> Result<Self> {
        let begun = Instant::now();
        let Inputs { backbone, tokens, splits, .. } = inputs;
        let trainer = Trainer::new(config, backbone, &backbone.device())?;
        let data_module = DataModule::new(config, &backbone.config, tokens, &splits.skips);
        let evaluator = Evaluator::new(config, data_module, || Ok(splits.train.clone()))?;
        evaluator.check_validation(&splits.validation)?;
        let loader = evaluator.data_module().train_loader(config, &splits.train)?;
        Ok(Self {
            config,
            inputs,
            folder,
            trainer,
            evaluator,
            loader,
            history: History::new(folder)?,
            best: None,
            fingerprints: None,
            begun,
            earlier: 0.0,
        })
    }

    /// Trains from step `first` on and finishes the run; `baseline` is the evaluation of the bare backbone.
    fn finish(
        mut self,
        first: u64,
        baseline: EvalResult,
        progress: &mut dyn Progress,
    ) -> Result<TuningResult> {
        self.train(first, &baseline, progress)?;
        let (similarity_weight, tuned) = match self.best.take() {
            Some(best) => (best.similarity_weight, best.tuned),
            None => (baseline.similarity_weight(), self.trainer.online().snapshot()?),
        };
        progress.message("measuring the best state on the test pairs");
        let tuned_eval = self.evaluate(&tuned, Split::Test(similarity_weight), progress)?;
        let metrics = tuned_eval.metrics();
        let steps = self.config.schedule.steps;
        self.history.add(MetricsRecord::new("test_final", steps).with_metrics(&metrics))?;
        let (inputs, run) = (self.inputs, self.folder);
        if let EvalResult::Vqa(answered) = &tuned_eval {
            run.write("answers.json", answered.to_json(&inputs.splits.test)?)?;
        }
        let summary = Summary {
            baseline: baseline.metrics(),
            tuned: metrics,
            trainable_parameters: self.trainer.trainable_parameters() as u64,
            backbone_parameters: inputs.backbone.parameters() as u64,
            adapter_bytes: write_adapter(run, &tuned, inputs, &baseline, &tuned_eval)?,
            seed: self.config.seed,
            test_pairs: inputs.splits.test.len() as u64,
            skipped: inputs.splits.skips.len() as u64,
            seconds: self.seconds(),
        };
        run.write_summary(&summary)?;
        run.checkpoints().clear()?;
        Ok(TuningResult {
            summary,
            baseline,
            tuned: tuned_eval,
            history: self.history.records,
            params: tuned,
        })
    }

    /// Wall time of the run so far, all parts together, seconds.
    fn seconds(&self) -> f64 {
        self.earlier + self.begun.elapsed().as_secs_f64()
    }

    /// Evaluates the bare backbone: on validation, and on test with the similarity weight chosen there.
    fn measure_backbone(&self, progress: &mut dyn Progress) -> Result<[EvalResult; 2]> {
        progress.message("measuring the backbone as it is");
        let adapter_config = heads_only(&self.trainer.online().adapter_config);
        let bare = AdaptedParams { adapter_config, tensors: Default::default() };
        let chosen = self.evaluate(&bare, Split::Validation, progress)?;
        let baseline = self.evaluate(&bare, Split::Test(chosen.similarity_weight()), progress)?;
        Ok([chosen, baseline])
    }

    fn baseline(&mut self, progress: &mut dyn Progress) -> Result<EvalResult> {
        let [chosen, baseline] = self.measure_backbone(progress)?;
        let record = MetricsRecord::new("validation", 0).with_metrics(&chosen.metrics());
        self.history.add(match chosen.similarity_weight() {
            Some(similarity_weight) => record.with("similarity_weight", similarity_weight),
            None => record,
        })?;
        self.history
            .add(MetricsRecord::new("test_baseline", 0).with_metrics(&baseline.metrics()))?;
        Ok(baseline)
    }

    fn evaluate(
        &self,
        tuned: &AdaptedParams,
        split: Split,
        progress: &mut dyn Progress,
    ) -> Result<EvalResult> {
        let tuned = tuned.detached();
        let blip = tuned.model(self.trainer.frozen())?;
        let mut bound = tuned.bind(&blip, None)?;
        bound.precision = self.config.precision.into();
        let (dataset, similarity_weight) = match split {
            Split::Validation => (&self.inputs.splits.validation, None),
            Split::Test(similarity_weight) => (&self.inputs.splits.test, similarity_weight),
        };
        self.evaluator.evaluate((&blip, &bound), dataset, similarity_weight, progress)
    }

    /// Trains from step `first` on.
    fn train(
        &mut self,
        first: u64,
        baseline: &EvalResult,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let steps = self.config.schedule.steps;
        let device = self.inputs.backbone.device();
        for batch in self.loader.batches(first, Some(steps))? {
            let batch = batch?;
            let start = Instant::now();
            let batch = batch.to_device(&device)?;
            let trained = self.trainer.step(task_batch(&batch, self.config.task)?, batch.step)?;
            let (done, seconds) = (batch.step + 1, start.elapsed().as_secs_f64());
            self.history.add(step_record(&trained, done).seconds(seconds))?;
            progress.on_step(&StepReport {
                step: done,
                steps,
                loss: trained.loss,
                values: &trained.parts,
                learning_rate_factor: trained.stats.learning_rate_factor,
                pairs: batch.concepts.len(),
                seconds,
            });
            if done % self.config.schedule.eval_every == 0 || done == steps {
                self.validate(done, progress)?;
            }
            if self.config.checkpoint.is_due(done) {
                self.save(done, baseline)?;
            }
        }
        Ok(())
    }

    fn validate(&mut self, step: u64, progress: &mut dyn Progress) -> Result<()> {
        let start = Instant::now();
        let found = self.evaluate(self.trainer.online(), Split::Validation, progress)?;
        let metrics = found.metrics();
        let primary = metrics.primary();
        let best = self.best.as_ref().is_none_or(|best| primary > best.primary);
        if best {
            let tuned = self.trainer.online().snapshot()?;
            self.best = Some(Best { primary, similarity_weight: found.similarity_weight(), tuned });
        }
        let seconds = start.elapsed().as_secs_f64();
        let record = MetricsRecord::new("validation", step).with_metrics(&metrics);
        let record = match &found {
            EvalResult::Retrieval(found) => record
                .with("similarity_mean_recall", found.by_similarity.mean())
                .with("similarity_weight", found.similarity_weight),
            EvalResult::Vqa(_) => record,
        };
        let record = record.with("mean_relative_delta", self.trainer.mean_relative_delta()?);
        self.history.add(record.seconds(seconds))?;
        let report =
            EvaluationReport { step, split: "validation", metrics: &metrics, best, seconds };
        progress.on_evaluation(&report);
        Ok(())
    }
}

/// Adapter configuration that adds nothing: the bare backbone.
fn heads_only(adapter_config: &AdapterConfig) -> AdapterConfig {
    let mut bare = AdapterConfig::new(AdapterKind::Heads, adapter_config.variant, 0);
    bare.modules_to_save.clear();
    bare
}

/// Training step as a record of `metrics.jsonl`.
pub(super) fn step_record(trained: &StepOutput, step: u64) -> MetricsRecord {
    let mut record = MetricsRecord::new("train", step).with("loss", trained.loss);
    for (name, value) in &trained.parts {
        record = record.with(name, *value);
    }
    record
        .with("gradient_norm", trained.stats.gradient_norm)
        .with("learning_rate_factor", trained.stats.learning_rate_factor)
}

fn write_adapter(
    run: &RunFolder,
    tuned: &AdaptedParams,
    inputs: &Inputs,
    baseline: &EvalResult,
    tuned_eval: &EvalResult,
) -> Result<u64> {
    let card = adapter_card(tuned, &inputs.backbone_name, baseline, tuned_eval);
    run.write_folder("adapter", |folder| -> Result<()> {
        Ok(save_adapter(folder, tuned, &inputs.backbone, &inputs.backbone_name, &card)?)
    })?;
    let weights = aurora_layers::AdapterFolder::weights_path(&run.join("adapter"));
    let size = std::fs::metadata(&weights).map_err(|e| Error::io("look at", &weights, e))?;
    Ok(size.len())
}

/// Model card of an adapter folder, its `README.md`.
pub fn adapter_card(
    tuned: &AdaptedParams,
    base: &str,
    baseline: &EvalResult,
    tuned_eval: &EvalResult,
) -> String {
    let adapter_config = &tuned.adapter_config;
    let values: usize = tuned.tensors.values().map(Tensor::elem_count).sum();
    let measured = match (baseline, tuned_eval) {
        (EvalResult::Retrieval(baseline), EvalResult::Retrieval(tuned_eval)) => format!(
            "| | mean recall, test | by similarity alone |\n|---|---|---|\n\
             | backbone | {:.2} % | {:.2} % |\n| tuned | {:.2} % | {:.2} % |\n\n\
             Similarity is weighed by {} beside the matching logit.\n",
            baseline.report.mean(),
            baseline.by_similarity.mean(),
            tuned_eval.report.mean(),
            tuned_eval.by_similarity.mean(),
            tuned_eval.similarity_weight,
        ),
        _ => {
            let (baseline, tuned_eval) = (baseline.metrics(), tuned_eval.metrics());
            let shown = |metrics: &TaskMetrics| match metrics {
                TaskMetrics::Accuracy(report) if report.known().is_none() => {
                    "not known: no right answers are".to_owned()
                }
                metrics => format!("{:.2} %", metrics.primary()),
            };
            format!(
                "| | {}, test |\n|---|---|\n| backbone | {} |\n| tuned | {} |\n",
                tuned_eval.name(),
                shown(&baseline),
                shown(&tuned_eval)
            )
        }
    };
    format!(
        "# Aurora adapter\n\nKind {:?}, variant {:?}, rank {}, {values} values, for the backbone `{base}`.\n\n{measured}",
        adapter_config.kind, adapter_config.variant, adapter_config.rank,
    )
}
