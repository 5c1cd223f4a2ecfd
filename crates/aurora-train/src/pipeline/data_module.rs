//! Data module: the loaders of training and evaluation.

use aurora_data::{
    AffineAugment, Batch, BatchAnswers, Dataset, Error as DataError, Loader, LoaderOptions,
    RandAugmentTransform, SkipLog, TextField, Tokenizer, Transform, transform,
};
use aurora_layers::BlipConfig;
use candle_core::{Device, Tensor};
use std::sync::Arc;

use aurora_data::video::Sampling;

use crate::config::{self, Config, Keywords, Task};
use crate::error::Result;
use crate::retrieval::{ImageBatch, ImageTextBatch};
use crate::trainer::TaskBatch;
use crate::vqa::{Answers, Texts, VqaBatch};

/// Images, or frames, per evaluation batch.
const CHUNK: usize = 64;

/// Data module of a run.
#[derive(Debug, Clone)]
pub struct DataModule {
    /// Tokenizer of the backbone.
    pub tokens: Arc<Tokenizer>,
    /// Task, which decides which texts of a sample are read.
    pub task: Task,
    /// Keywords in evaluated captions.
    pub keywords: Keywords,
    /// Frame sampling of clips.
    pub clips: Sampling,
    /// Image size (square side) in pixels.
    pub size: usize,
    /// Longest text, in tokens.
    pub max_tokens: usize,
    /// Loader threads, 0 for one per core.
    pub num_workers: usize,
    /// Policy and log of skipped images.
    pub skips: Arc<SkipLog>,
}

impl DataModule {
    /// Builds the data module of a configuration, for a backbone of these sizes.
    pub fn new(
        config: &Config,
        backbone: &BlipConfig,
        tokens: &Arc<Tokenizer>,
        skips: &Arc<SkipLog>,
    ) -> Self {
        let data = &config.data;
        Self {
            tokens: tokens.clone(),
            task: config.task,
            keywords: data.eval_caption_keywords,
            clips: data.clips(),
            size: backbone.vision.image_size,
            max_tokens: backbone.text.max_position_embeddings,
            num_workers: data.num_workers,
            skips: skips.clone(),
        }
    }

    /// Options that both loaders share. A dataset with a clip in it makes batches of clips.
    fn options(&self, dataset: &Dataset, base: LoaderOptions) -> LoaderOptions {
        LoaderOptions {
            max_tokens: self.max_tokens,
            text_field: match self.task {
                Task::Retrieval => TextField::Captions,
                Task::Vqa => TextField::Questions,
            },
            video: has_clips(dataset).then_some(self.clips),
            num_workers: if self.num_workers > 0 { self.num_workers } else { base.num_workers },
            ..base
        }
    }

    /// Training loader.
    pub(super) fn train_loader(&self, config: &Config, dataset: &Dataset) -> Result<Loader> {
        let data = &config.data;
        let base = LoaderOptions {
            keywords: data.caption_keywords.into(),
            shuffle: data.order(),
            ..LoaderOptions::training(data.batch_size, config.seed)
        };
        let options = self.options(dataset, base);
        let (transform, small): (Arc<dyn Transform>, bool) = match data.augment {
            config::Augment::Affine => (Arc::new(AffineAugment::new(self.size)), true),
            config::Augment::RandAugment => (Arc::new(RandAugmentTransform::new(self.size)), false),
            config::Augment::None => (Arc::new(transform::EvalTransform { size: self.size }), true),
        };
        // Drawings are small: they are scaled once to the model's size, and only cropped and rotated afterwards.
        let dataset = match small && options.video.is_none() && dataset.is_decoded() {
            true => dataset.resized(self.size)?,
            false => dataset.clone(),
        };
        let loader = Loader::new(dataset, transform, self.tokens.clone(), options)?;
        Ok(loader.with_skips(self.skips.clone()))
    }

    /// Evaluation loader: every sample once, in order.
    pub(super) fn eval_loader(&self, dataset: &Dataset) -> Result<Loader> {
        let options = self.options(dataset, LoaderOptions::evaluation(CHUNK));
        let frames = options.video.map_or(1, |clips| clips.most().max(1));
        let options = LoaderOptions { batch_size: (CHUNK / frames).max(1), ..options };
        let transform = Arc::new(transform::EvalTransform { size: self.size });
        let loader = Loader::new(dataset.clone(), transform, self.tokens.clone(), options)?;
        Ok(loader.with_skips(self.skips.clone()))
    }
}

fn has_clips(dataset: &Dataset) -> bool {
    dataset.samples().any(|sample| sample.media.is_clip())
}

/// Images or clips of a batch. Clips that are all of full length need no mask.
fn images(batch: &Batch) -> Result<ImageBatch<'_>> {
    let full = match &batch.frame_mask {
        Some(mask) => mask.min_all()?.to_scalar::<f32>()? > 0.0,
        None => true,
    };
    let frame_mask = batch.frame_mask.as_ref().filter(|_| !full);
    Ok(ImageBatch { pixels: &batch.images, frame_mask })
}

/// Training batch of a task.
pub(super) fn task_batch(batch: &Batch, task: Task) -> Result<TaskBatch<'_>> {
    let images = images(batch)?;
    let texts = Texts { token_ids: &batch.input_ids, mask: &batch.attention_mask };
    match task {
        Task::Retrieval => Ok(TaskBatch::Retrieval(ImageTextBatch {
            images,
            token_ids: texts.token_ids,
            mask: texts.mask,
            ids: &batch.concepts,
        })),
        Task::Vqa => {
            let BatchAnswers { input_ids, attention_mask, questions, weights, .. } =
                batch.answers.as_ref().ok_or_else(|| DataError::Empty {
                    what: format!("the list of answers of batch {}", batch.step),
                    reason: "no question of it has an answer".to_owned(),
                })?;
            let answers = Texts { token_ids: input_ids, mask: attention_mask };
            let answers = Answers { texts: answers, questions, weights };
            Ok(TaskBatch::Vqa(VqaBatch { images, questions: texts, answers }))
        }
    }
}

/// Valid rows of a batch, on the model's device.
pub(super) struct ValidBatch {
    batch: Batch,
    /// Dataset index of each row's sample.
    pub(super) indices: Vec<usize>,
}

impl ValidBatch {
    /// `None` if no row is valid.
    pub(super) fn new(batch: Batch, device: &Device) -> Result<Option<Self>> {
        let rows: Vec<u32> =
            (0u32..).zip(&batch.valid).filter(|(_, counts)| **counts).map(|(row, _)| row).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = match rows.len() == batch.valid.len() {
            true => batch,
            false => select(batch, &rows)?,
        };
        let indices = batch.indices.clone();
        Ok(Some(Self { batch: batch.to_device(device)?, indices }))
    }

    pub(super) fn images(&self) -> Result<ImageBatch<'_>> {
        images(&self.batch)
    }

    /// Captions or questions.
    pub(super) fn texts(&self) -> Texts<'_> {
        Texts { token_ids: &self.batch.input_ids, mask: &self.batch.attention_mask }
    }
}

/// Selected rows of a batch, without answers.
fn select(batch: Batch, rows: &[u32]) -> Result<Batch> {
    let chosen = Tensor::from_slice(rows, rows.len(), batch.images.device())?;
    let of = |tensor: &Tensor| tensor.index_select(&chosen, 0);
    let keep = |row: &u32| *row as usize;
    Ok(Batch {
        indices: rows.iter().filter_map(|row| batch.indices.get(keep(row)).copied()).collect(),
        valid: vec![true; rows.len()],
        concepts: rows.iter().filter_map(|row| batch.concepts.get(keep(row)).copied()).collect(),
        texts: rows.iter().filter_map(|row| batch.texts.get(keep(row)).cloned()).collect(),
        images: of(&batch.images)?,
        frame_mask: batch.frame_mask.as_ref().map(of).transpose()?,
        input_ids: of(&batch.input_ids)?,
        attention_mask: of(&batch.attention_mask)?,
        answers: None,
        ..batch
    })
}
