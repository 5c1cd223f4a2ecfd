//! A pretraining from start to finish.

use aurora_data::{Dataset, Padding, Tokens, embedded};
use aurora_kernels::random::Stream;
use aurora_layers::Backbone;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::measure::{Evaluation, measure};
use super::sources::Pictures;
use super::tuning::{History, step_record, training_loader};
use crate::config::{PretrainConfig, RunConfig};
use crate::error::{Error, Result};
use crate::pretrain::{Lesson, Pretrainer};
use crate::progress::{EvaluationReport, Progress, StepReport};
use crate::retrieval::Pairs;
use crate::run::{Record, RunFolder};
use crate::teachers::Teachers;

/// What a pretraining came to.
#[derive(Debug)]
pub struct Pretrained {
    /// The weights after the last step.
    pub backbone: Backbone,
    /// On the validation pairs.
    pub validation: Evaluation,
    /// On the test pairs, of another domain.
    pub test: Evaluation,
    /// The lines of `metrics.jsonl`.
    pub history: Vec<Record>,
    /// Wall time of the whole run.
    pub seconds: f64,
}

/// Pretrain from random weights and write the run folder: `config.toml`, `metrics.jsonl`, `backbone/` (weights in f16,
/// vocabulary beside them).
///
/// # Errors
/// Teachers that are missing or made for another pack, sizes that cannot be, a loss that is not a number.
pub fn pretrain(
    config: &PretrainConfig,
    run: &RunFolder,
    progress: &mut dyn Progress,
) -> Result<Pretrained> {
    let start = Instant::now();
    let device = Device::Cpu;
    run.write_config(&config.to_toml()?)?;
    let teachers = Teachers::read(Path::new(&config.pretrain.teachers), &device)?;
    let tokens = Arc::new(embedded::vocabulary()?);
    let pictures = Pictures::open(&config.data)?;
    let mut model = Pretrainer::new(config, &teachers, &device)?;
    let loader = training_loader(
        &config.data,
        config.seed,
        (&pictures.train, &tokens),
        (config.model.picture, config.model.positions),
    )?;
    let school = School::new(config, &teachers, &tokens, &pictures.train)?;
    let mut history = History::new(run)?;
    let steps = config.schedule.steps;
    for batch in loader.batches(0, Some(steps))? {
        let batch = batch?;
        let begun = Instant::now();
        let texts = school.texts(&batch.indices, batch.step)?;
        let lesson = Lesson {
            pairs: Pairs {
                images: &batch.images,
                token_ids: &texts.token_ids,
                mask: &texts.mask,
                ids: &batch.concepts,
            },
            image_teacher: &texts.image_teacher,
            text_teacher: &texts.text_teacher,
        };
        let learned = model.step(&lesson, batch.step)?;
        let (done, seconds) = (batch.step + 1, begun.elapsed().as_secs_f64());
        history.add(step_record(&learned, done).seconds(seconds))?;
        progress.on_step(&StepReport {
            step: done,
            steps,
            loss: learned.loss,
            values: &learned.parts,
            learning_rate_factor: learned.descended.learning_rate_factor,
            pairs: batch.concepts.len(),
            seconds,
        });
        if done % config.schedule.evaluate_every == 0 && done < steps {
            let found = evaluate(
                &model.backbone()?,
                config,
                &pictures.validation,
                &tokens,
                None,
                progress,
            )?;
            history.add(validation_record(&found, done))?;
            let report = EvaluationReport {
                step: done,
                split: "validation",
                recall: &found.report,
                best: false,
                seconds,
            };
            progress.on_evaluation(&report);
        }
    }
    // What is measured is what is written: weights rounded to f16.
    let mut backbone = model.backbone()?;
    for tensor in backbone.tensors.values_mut() {
        *tensor = tensor.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
    }
    let validation = evaluate(&backbone, config, &pictures.validation, &tokens, None, progress)?;
    history.add(validation_record(&validation, steps))?;
    let test =
        evaluate(&backbone, config, &pictures.test, &tokens, Some(validation.beta), progress)?;
    history.add(Record::new("test", steps).with_recall(&test.report))?;
    run.write_folder("backbone", |folder| -> Result<()> {
        backbone.write(folder, DType::F16)?;
        let path = folder.join("vocab.txt");
        std::fs::write(&path, embedded::VOCABULARY)
            .map_err(|source| Error::io("write", &path, source))
    })?;
    Ok(Pretrained {
        backbone,
        validation,
        test,
        history: history.records,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn validation_record(found: &Evaluation, step: u64) -> Record {
    Record::new("validation", step)
        .with_recall(&found.report)
        .with("similarity_mean_recall", found.by_similarity.mean())
        .with("beta", found.beta)
}

fn evaluate(
    backbone: &Backbone,
    config: &PretrainConfig,
    dataset: &Dataset,
    tokens: &Tokens,
    beta: Option<f64>,
    progress: &mut dyn Progress,
) -> Result<Evaluation> {
    let blip = backbone.model()?;
    let prepared = blip.bare()?;
    let keywords = config.data.evaluation_keywords;
    measure((&blip, &prepared), dataset, tokens, keywords, &config.evaluation, beta, progress)
}

/// Matches batches with what the teachers say.
struct School<'a> {
    config: &'a PretrainConfig,
    teachers: &'a Teachers,
    tokens: &'a Tokens,
    dataset: &'a Dataset,
    /// Row of each sample of the dataset in the teachers' features.
    rows: Vec<u32>,
}

/// The texts of a step and the teachers' rows: first the pictures' captions, then texts without pictures.
struct Texts {
    token_ids: Tensor,
    mask: Tensor,
    image_teacher: Tensor,
    text_teacher: Tensor,
}

impl<'a> School<'a> {
    fn new(
        config: &'a PretrainConfig,
        teachers: &'a Teachers,
        tokens: &'a Tokens,
        dataset: &'a Dataset,
    ) -> Result<Self> {
        let pack = embedded::openclipart()?;
        let (rows, found) = (pack.len(), teachers.image.dim(0)?);
        if rows != found {
            return Err(Error::Count {
                operation: "pretraining",
                name: "pictures in the teachers' file",
                found,
                expected: rows,
            });
        }
        let row_of: HashMap<&str, u32> =
            pack.iter().map(|sample| sample.key.as_str()).zip(0u32..).collect();
        let row = |sample: &aurora_data::Sample| {
            row_of.get(sample.key.as_str()).copied().ok_or_else(|| {
                let reason = "the teachers know the embedded openclipart pack alone".to_owned();
                Error::from(aurora_data::Error::Empty {
                    what: format!("teachers for {}", sample.key),
                    reason,
                })
            })
        };
        let rows = dataset.samples().map(row).collect::<Result<_>>()?;
        Ok(Self { config, teachers, tokens, dataset, rows })
    }

    /// Half of the captions come with their keywords, drawn anew at each step.
    fn texts(&self, indices: &[usize], step: u64) -> Result<Texts> {
        let (seed, settings) = (self.config.seed, &self.config.pretrain);
        let mut stream = Stream::new(seed, "pretraining texts", step, 0);
        let mut texts = Vec::with_capacity(indices.len() + settings.text_only);
        let mut teacher = Vec::with_capacity(texts.capacity());
        let rows: Vec<u32> = indices.iter().map(|&index| self.rows[index]).collect();
        let device = self.teachers.text.device();
        for (&index, &row) in indices.iter().zip(&rows) {
            let full = stream.uniform() < 0.5;
            let keywords =
                if full { aurora_data::Keywords::All } else { aurora_data::Keywords::Never };
            texts.push(self.dataset.caption(index, 0, keywords, &mut stream)?);
            let source = if full { &self.teachers.text_all } else { &self.teachers.text };
            teacher.push(source.get(row as usize)?);
        }
        for _ in 0..settings.text_only {
            let row = stream.below(self.teachers.string_texts.len());
            texts.push(self.teachers.string_texts[row].clone());
            teacher.push(self.teachers.strings.get(row)?);
        }
        let (token_ids, mask) =
            self.tokens.encode_batch(&texts, self.config.model.positions, Padding::Longest)?;
        let token_ids = self.mask(&token_ids, step)?;
        let rows = Tensor::from_vec(rows, indices.len(), device)?;
        Ok(Texts {
            token_ids,
            mask,
            image_teacher: self.teachers.image.index_select(&rows, 0)?,
            text_teacher: Tensor::stack(&teacher, 0)?,
        })
    }

    /// Replace a share of the word pieces by `[MASK]`.
    fn mask(&self, token_ids: &Tensor, step: u64) -> Result<Tensor> {
        let special = self.tokens.special();
        let kept = [special.pad, special.cls, special.sep];
        let mut stream = Stream::new(self.config.seed, "token mask", step, 0);
        let mut ids: Vec<u32> = token_ids.flatten_all()?.to_vec1()?;
        for id in &mut ids {
            if !kept.contains(id) && stream.uniform() < self.config.pretrain.token_mask {
                *id = special.mask;
            }
        }
        Ok(Tensor::from_vec(ids, token_ids.shape(), token_ids.device())?)
    }
}
