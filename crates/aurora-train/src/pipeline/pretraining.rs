//! Pretraining run, from start to finish.

use aurora_data::video::Sampling;
use aurora_data::{Captions, Dataset, SkipLog, Split, Tokenizer, embedded, source};
use aurora_layers::Backbone;
use candle_core::{DType, Device};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::data_module::DataModule;
use super::eval::retrieval::{RetrievalEval, evaluate_retrieval};
use super::sources::open;
use super::tuning::{History, step_record};
use crate::config::{PretrainConfig, RunConfig, Task};
use crate::distill::Pretrainer;
use crate::distill::loader::DistillLoader;
use crate::distill::teachers::TeacherFeatures;
use crate::error::{Error, Result};
use crate::metrics::TaskMetrics;
use crate::progress::{EvaluationReport, Progress, StepReport};
use crate::run::{MetricsRecord, RunFolder};

/// Result of a pretraining run.
#[derive(Debug)]
pub struct Pretrained {
    /// Weights after the last step.
    pub backbone: Backbone,
    /// Evaluation on the validation pairs.
    pub validation: RetrievalEval,
    /// Evaluation on the test pairs, of another domain.
    pub test: RetrievalEval,
    /// Records of `metrics.jsonl`.
    pub history: Vec<MetricsRecord>,
    /// Wall time of the whole run, seconds.
    pub seconds: f64,
}

/// Pretrains from random weights and writes the run folder: `config.toml`, `metrics.jsonl`, `backbone/` (weights in
/// f16, tokenizer beside them).
///
/// # Errors
/// Teachers that are missing or made for another pack, impossible sizes, a loss that is not a number.
pub fn pretrain(
    config: &PretrainConfig,
    device: &Device,
    run: &RunFolder,
    progress: &mut dyn Progress,
) -> Result<Pretrained> {
    let start = Instant::now();
    run.write_config(&config.to_toml()?)?;
    // Batches are drawn on the CPU and moved: the teachers' views are more than a step needs.
    let teachers = TeacherFeatures::read(Path::new(&config.pretrain.teachers), &Device::Cpu)?;
    let tokens = Arc::new(embedded::vocabulary()?);
    let reading =
        source::ReadOptions { captions: Captions::Required, ..source::ReadOptions::default() };
    let open = |names, split| open(names, split, &reading, &SkipLog::default());
    let validation = open(&config.data.validation, Split::Validation)?;
    let test = open(&config.data.test, Split::Test)?;
    let mut model = Pretrainer::new(config, &teachers, device)?;
    let loader = DistillLoader::new(config, &teachers, &tokens)?;
    let mut history = History::new(run)?;
    let steps = config.schedule.steps;
    for step in 0..steps {
        let begun = Instant::now();
        let learned = model.step(&loader.batch(step)?.to_device(device)?, step)?;
        let (done, seconds) = (step + 1, begun.elapsed().as_secs_f64());
        history.add(step_record(&learned, done).seconds(seconds))?;
        progress.on_step(&StepReport {
            step: done,
            steps,
            loss: learned.loss,
            values: &learned.parts,
            learning_rate_factor: learned.stats.learning_rate_factor,
            pairs: config.data.batch_size,
            seconds,
        });
        if done % config.schedule.eval_every == 0 && done < steps {
            let found = evaluate(&model.backbone()?, config, &validation, &tokens, None, progress)?;
            history.add(validation_record(&found, done))?;
            let report = EvaluationReport {
                step: done,
                split: "validation",
                metrics: &TaskMetrics::Recall(found.report),
                best: false,
                seconds,
            };
            progress.on_evaluation(&report);
        }
    }
    // Evaluated as written: weights rounded to f16.
    let mut backbone = model.backbone()?;
    for tensor in backbone.tensors.values_mut() {
        *tensor = tensor.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
    }
    let validated = evaluate(&backbone, config, &validation, &tokens, None, progress)?;
    history.add(validation_record(&validated, steps))?;
    let tested =
        evaluate(&backbone, config, &test, &tokens, Some(validated.similarity_weight), progress)?;
    history.add(MetricsRecord::new("test", steps).with_recall(&tested.report))?;
    run.write_folder("backbone", |folder| -> Result<()> {
        backbone.write(folder, DType::F16)?;
        let path = folder.join("vocab.txt");
        std::fs::write(&path, embedded::VOCABULARY)
            .map_err(|source| Error::io("write", &path, source))
    })?;
    Ok(Pretrained {
        backbone,
        validation: validated,
        test: tested,
        history: history.records,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn validation_record(found: &RetrievalEval, step: u64) -> MetricsRecord {
    MetricsRecord::new("validation", step)
        .with_recall(&found.report)
        .with("similarity_mean_recall", found.by_similarity.mean())
        .with("similarity_weight", found.similarity_weight)
}

fn evaluate(
    backbone: &Backbone,
    config: &PretrainConfig,
    dataset: &Dataset,
    tokens: &Arc<Tokenizer>,
    similarity_weight: Option<f64>,
    progress: &mut dyn Progress,
) -> Result<RetrievalEval> {
    let blip = backbone.model()?;
    let bound = blip.bind_frozen()?;
    let data_module = DataModule {
        tokens: tokens.clone(),
        task: Task::Retrieval,
        keywords: config.data.eval_caption_keywords,
        clips: Sampling::Uniform(1),
        size: backbone.config.vision.image_size,
        max_tokens: backbone.config.text.max_position_embeddings,
        num_workers: 0,
        skips: Arc::default(),
    };
    evaluate_retrieval(
        (&blip, &bound),
        dataset,
        &data_module,
        &config.evaluation,
        similarity_weight,
        progress,
    )
}
