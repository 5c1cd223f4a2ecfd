//! A tuning from start to finish.

use aurora_data::{Augment, Batch, Loader, LoaderOptions, Released, Tokens, Transform, transform};
use aurora_layers::{Backbone, Tuned, save_adapter};
use candle_core::Tensor;
use std::sync::Arc;
use std::time::Instant;

use super::measure::{Evaluation, measure};
use super::sources::Pictures;
use crate::config::{self, Config, DataSection, RunConfig};
use crate::error::Result;
use crate::progress::{EvaluationReport, Progress, StepReport};
use crate::retrieval::Pairs;
use crate::run::{Record, RunFolder, Summary};
use crate::trainer::{Trained, Trainer};

/// What a tuning works on.
#[derive(Debug)]
pub struct Inputs {
    /// The frozen weights.
    pub backbone: Backbone,
    /// What the adapter's configuration calls them.
    pub backbone_name: String,
    /// The backbone's vocabulary.
    pub tokens: Arc<Tokens>,
    /// The data.
    pub pictures: Pictures,
}

/// What a tuning came to.
#[derive(Debug)]
pub struct Outcome {
    /// As in `summary.json`.
    pub summary: Summary,
    /// The bare backbone on the test pairs.
    pub before: Evaluation,
    /// The tuned model on the test pairs.
    pub after: Evaluation,
    /// The lines of `metrics.jsonl`.
    pub history: Vec<Record>,
    /// The best tensors by validation.
    pub tuned: Tuned,
}

/// The training transform that a configuration names.
fn training_transform(section: &DataSection, size: usize) -> Arc<dyn Transform> {
    match section.augment {
        config::Augment::Affine => Arc::new(Augment::new(size)),
        config::Augment::Released => Arc::new(Released::new(size)),
        config::Augment::None => Arc::new(transform::Evaluation { size }),
    }
}

/// A loader of training pairs.
fn training_loader(
    section: &DataSection,
    seed: u64,
    inputs: (&aurora_data::Dataset, &Arc<Tokens>),
    (size, max_tokens): (usize, usize),
) -> Result<Loader> {
    let (dataset, tokens) = inputs;
    let mut options = LoaderOptions::training(section.batch, seed);
    options.max_tokens = max_tokens;
    options.keywords = section.keywords.into();
    if section.threads > 0 {
        options.threads = section.threads;
    }
    // Drawings are small: scaled once to the model's size, they are only cut and turned afterwards.
    let dataset = match section.augment {
        config::Augment::Released => dataset.clone(),
        _ => dataset.resized(size)?,
    };
    Ok(Loader::new(dataset, training_transform(section, size), tokens.clone(), options)?)
}

/// The batch as the losses see it.
fn pairs(batch: &Batch) -> Pairs<'_> {
    Pairs {
        images: &batch.images,
        token_ids: &batch.input_ids,
        mask: &batch.attention_mask,
        ids: &batch.concepts,
    }
}

/// Lines of `metrics.jsonl`, written and remembered.
pub(super) struct History {
    metrics: crate::run::Metrics,
    pub(super) records: Vec<Record>,
}

impl History {
    pub(super) fn new(run: &RunFolder) -> Result<Self> {
        Ok(Self { metrics: run.metrics()?, records: Vec::new() })
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        self.metrics.append(&record)?;
        self.records.push(record);
        Ok(())
    }
}

/// A tuning under way, with the best state so far.
struct Run<'a> {
    config: &'a Config,
    inputs: &'a Inputs,
    trainer: Trainer,
    history: History,
    best: Option<(f64, f64, Tuned)>, // mean recall on validation, beta, tensors
}

/// Tune where the backbone's weights are, keep the state that is best on validation, and write the run folder: `config.toml`, `metrics.jsonl`,
/// `adapter/`, `summary.json`.
///
/// # Errors
/// Data that cannot be read, an adapter that does not fit the backbone, a loss that is not a number.
pub fn tune(
    config: &Config,
    inputs: &Inputs,
    run: &RunFolder,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let start = Instant::now();
    run.write_config(&config.to_toml()?)?;
    let trainer = Trainer::new(config, &inputs.backbone, &inputs.backbone.device())?;
    let mut state = Run { config, inputs, trainer, history: History::new(run)?, best: None };
    progress.message("measuring the backbone as it is");
    let before = state.before(progress)?;
    state.train(progress)?;
    let (beta, tuned) = match state.best.take() {
        Some((_, beta, tuned)) => (beta, tuned),
        None => (before.beta, state.trainer.live().snapshot()?),
    };
    progress.message("measuring the best state on the test pairs");
    let after = state.evaluate(&tuned, Split::Test(beta), progress)?;
    state
        .history
        .add(Record::new("test_after", config.schedule.steps).with_recall(&after.report))?;

    let bytes = write_adapter(run, &tuned, inputs, &before, &after)?;
    let summary = Summary {
        before: before.report,
        after: after.report,
        trainable_parameters: state.trainer.trainable_parameters() as u64,
        backbone_parameters: inputs.backbone.parameters() as u64,
        adapter_bytes: bytes,
        seed: config.seed,
        test_pairs: inputs.pictures.test.len() as u64,
        seconds: start.elapsed().as_secs_f64(),
    };
    run.write_summary(&summary)?;
    Ok(Outcome { summary, before, after, history: state.history.records, tuned })
}

/// What an evaluation is for: choosing (with the candidates of beta), or reporting (with the one chosen).
#[derive(Clone, Copy)]
enum Split {
    Validation,
    Test(f64),
}

impl Run<'_> {
    fn before(&mut self, progress: &mut dyn Progress) -> Result<Evaluation> {
        let bare =
            Tuned { spec: heads_only(&self.trainer.live().spec), tensors: Default::default() };
        let chosen = self.evaluate(&bare, Split::Validation, progress)?;
        let before = self.evaluate(&bare, Split::Test(chosen.beta), progress)?;
        self.history.add(
            Record::new("validation", 0).with_recall(&chosen.report).with("beta", chosen.beta),
        )?;
        self.history.add(Record::new("test_before", 0).with_recall(&before.report))?;
        Ok(before)
    }

    fn evaluate(
        &self,
        tuned: &Tuned,
        split: Split,
        progress: &mut dyn Progress,
    ) -> Result<Evaluation> {
        let tuned = tuned.detached();
        let blip = tuned.model(self.trainer.frozen())?;
        let mut prepared = tuned.prepare(&blip, None)?;
        prepared.precision = self.config.precision.into();
        let (dataset, beta) = match split {
            Split::Validation => (&self.inputs.pictures.validation, None),
            Split::Test(beta) => (&self.inputs.pictures.test, Some(beta)),
        };
        let keywords = self.config.data.evaluation_keywords;
        measure(
            (&blip, &prepared),
            dataset,
            &self.inputs.tokens,
            keywords,
            &self.config.evaluation,
            beta,
            progress,
        )
    }

    fn train(&mut self, progress: &mut dyn Progress) -> Result<()> {
        let steps = self.config.schedule.steps;
        let sizes = &self.inputs.backbone.config;
        let loader = training_loader(
            &self.config.data,
            self.config.seed,
            (&self.inputs.pictures.train, &self.inputs.tokens),
            (sizes.vision.image_size, sizes.text.max_positions),
        )?;
        let device = self.inputs.backbone.device();
        for batch in loader.batches(0, Some(steps))? {
            let batch = batch?;
            let start = Instant::now();
            let batch = batch.to_device(&device)?;
            let trained = self.trainer.step(&pairs(&batch), batch.step)?;
            let (done, seconds) = (batch.step + 1, start.elapsed().as_secs_f64());
            self.history.add(step_record(&trained, done).seconds(seconds))?;
            progress.on_step(&StepReport {
                step: done,
                steps,
                loss: trained.loss,
                values: &trained.parts,
                learning_rate_factor: trained.descended.learning_rate_factor,
                pairs: batch.concepts.len(),
                seconds,
            });
            if done % self.config.schedule.evaluate_every == 0 || done == steps {
                self.validate(done, progress)?;
            }
        }
        Ok(())
    }

    fn validate(&mut self, step: u64, progress: &mut dyn Progress) -> Result<()> {
        let start = Instant::now();
        let found = self.evaluate(self.trainer.live(), Split::Validation, progress)?;
        let mean = found.report.mean();
        let best = self.best.as_ref().is_none_or(|(so_far, ..)| mean > *so_far);
        if best {
            self.best = Some((mean, found.beta, self.trainer.live().snapshot()?));
        }
        let seconds = start.elapsed().as_secs_f64();
        let record = Record::new("validation", step)
            .with_recall(&found.report)
            .with("similarity_mean_recall", found.by_similarity.mean())
            .with("beta", found.beta)
            .with("mean_relative_delta", self.trainer.mean_relative_delta()?);
        self.history.add(record.seconds(seconds))?;
        let report =
            EvaluationReport { step, split: "validation", recall: &found.report, best, seconds };
        progress.on_evaluation(&report);
        Ok(())
    }
}

/// A specification that adds nothing: the backbone as it is.
fn heads_only(spec: &aurora_layers::TuneSpec) -> aurora_layers::TuneSpec {
    let mut bare = aurora_layers::TuneSpec::new(aurora_layers::AdapterKind::Heads, spec.flavour, 0);
    bare.modules_to_save.clear();
    bare
}

/// A step as a line of `metrics.jsonl`.
pub(super) fn step_record(trained: &Trained, step: u64) -> Record {
    let mut record = Record::new("train", step).with("loss", trained.loss);
    for (name, value) in &trained.parts {
        record = record.with(name, *value);
    }
    record
        .with("gradient_norm", trained.descended.gradient_norm)
        .with("learning_rate_factor", trained.descended.learning_rate_factor)
}

fn write_adapter(
    run: &RunFolder,
    tuned: &Tuned,
    inputs: &Inputs,
    before: &Evaluation,
    after: &Evaluation,
) -> Result<u64> {
    let card = adapter_card(tuned, &inputs.backbone_name, before, after);
    run.write_folder("adapter", |folder| -> Result<()> {
        Ok(save_adapter(folder, tuned, &inputs.backbone, &inputs.backbone_name, &card)?)
    })?;
    let weights = aurora_layers::AdapterFolder::weights_path(&run.join("adapter"));
    let size =
        std::fs::metadata(&weights).map_err(|e| crate::error::Error::io("look at", &weights, e))?;
    Ok(size.len())
}

/// The `README.md` of an adapter folder.
pub fn adapter_card(tuned: &Tuned, base: &str, before: &Evaluation, after: &Evaluation) -> String {
    let spec = &tuned.spec;
    let values: usize = tuned.tensors.values().map(Tensor::elem_count).sum();
    format!(
        "# Aurora adapter\n\nKind {:?}, flavour {:?}, rank {}, {values} values, for the backbone `{base}`.\n\n\
         | | mean recall, test | by similarity alone |\n|---|---|---|\n\
         | backbone | {:.2} % | {:.2} % |\n| tuned | {:.2} % | {:.2} % |\n\n\
         Similarity is weighed by {} beside the matching logit.\n",
        spec.kind,
        spec.flavour,
        spec.rank,
        before.report.mean(),
        before.by_similarity.mean(),
        after.report.mean(),
        after.by_similarity.mean(),
        after.beta,
    )
}
