//! Collation of a batch: its rows, and the replacements of broken samples.

use aurora_kernels::random::Stream;
use candle_core::{Device, Tensor};

use super::batch::{Batch, BatchAnswers};
use super::options::{Mode, TextField};
use super::{Inner, plan::RowIndex};
use crate::{Error, Result, Sample};

/// Limit of replacement draws for one broken sample. With half of all samples broken, one row in
/// 10^19 would not find a good one.
const REPLACEMENTS: usize = 64;

/// Row without its pixels.
struct Row {
    index: usize,
    valid: bool,
    text: String,
    answers: Vec<(String, f32)>,
    frames: usize,
}

impl Inner {
    /// Frames of a clip; an image has one.
    pub(super) fn frames(&self) -> usize {
        self.options.video.map_or(1, |sampling| sampling.most())
    }

    /// Values of the pixels of one row.
    pub(super) fn row_length(&self) -> usize {
        self.frames() * self.frame_length()
    }

    fn frame_length(&self) -> usize {
        3 * self.transform.size() * self.transform.size()
    }

    /// Batch number `step`.
    pub(super) fn batch(&self, step: u64) -> Result<Batch> {
        let (epoch, _) = self.plan.position(step);
        let order = self.order(epoch);
        let row_indices = self.plan.rows(step);
        let length = self.row_length();
        let mut pixels = vec![0f32; row_indices.len() * length];
        let mut rows = Vec::with_capacity(row_indices.len());
        for (&row_index, out) in row_indices.iter().zip(pixels.chunks_exact_mut(length.max(1))) {
            let RowIndex { place, valid } = row_index;
            let index = order.get(place).copied().unwrap_or(place);
            rows.push(self.row(epoch, index, valid, out)?);
        }
        self.collate(step, epoch, rows, pixels)
    }

    /// Row of sample `index`, or of a replacement where that is broken and may be skipped.
    fn row(&self, epoch: u64, index: usize, mut valid: bool, out: &mut [f32]) -> Result<Row> {
        let mut others = Stream::new(self.options.seed, "replacement", epoch, index as u64);
        let mut tried = index;
        for _ in 0..=REPLACEMENTS {
            let error = match self.filled(epoch, tried, out) {
                Ok(row) => return Ok(Row { valid, ..row }),
                Err(error) => error,
            };
            let sample = self.dataset.sample(tried)?;
            self.skips.handle(format!("{}: {}", sample.shard, sample.key), error)?;
            valid &= self.options.mode == Mode::Train;
            tried = others.below(self.dataset.len());
        }
        Err(Error::Empty {
            what: "what could take the place of a broken sample".to_string(),
            reason: format!(
                "{REPLACEMENTS} others were drawn for sample {index}, and every one is broken too"
            ),
        })
    }

    /// Row of sample `index`, its pixels written to `out`.
    fn filled(&self, epoch: u64, index: usize, out: &mut [f32]) -> Result<Row> {
        let options = &self.options;
        let training = options.mode == Mode::Train;
        let stream = |what| Stream::new(options.seed, what, epoch, index as u64);
        let sample = self.dataset.sample(index)?;
        // Texts first: they are cheap, and without them the image is not needed.
        let (text, answers) = match options.text_field {
            TextField::Captions => {
                let mut stream = stream("caption");
                let caption = if training { stream.below(sample.captions.len()) } else { 0 };
                let keywords = options.keywords;
                (self.dataset.caption(index, caption, keywords, &mut stream)?, Vec::new())
            }
            TextField::Questions => asked(sample, training)?,
        };
        let frames = match options.video {
            None => {
                let image = self.dataset.image(index)?;
                self.transform.apply(&image, &mut stream("augment"), out)?;
                1
            }
            Some(sampling) => {
                let sampling = if training { sampling } else { sampling.evaluation() };
                let length = self.frame_length();
                let mut sink = |place: usize, image: &crate::Image| {
                    let out = out.get_mut(place * length..(place + 1) * length);
                    // Every frame draws the same random numbers, so that a clip is augmented
                    // consistently.
                    self.transform.apply(image, &mut stream("augment"), out.unwrap_or_default())
                };
                let frames =
                    self.dataset.frames(index, sampling, &mut stream("frames"), &mut sink)?;
                // A broken clip tried before may have written more frames.
                out.iter_mut().skip(frames * length).for_each(|value| *value = 0.0);
                frames
            }
        };
        Ok(Row { index, valid: true, text, answers, frames })
    }

    fn collate(&self, step: u64, epoch: u64, rows: Vec<Row>, pixels: Vec<f32>) -> Result<Batch> {
        let (size, count, frames) = (self.transform.size(), rows.len(), self.frames());
        let (images, frame_mask) = match self.options.video {
            None => (Tensor::from_vec(pixels, (count, 3, size, size), &Device::Cpu)?, None),
            Some(_) => {
                let mut mask = vec![0f32; count * frames];
                for (row, mask) in rows.iter().zip(mask.chunks_exact_mut(frames)) {
                    mask.iter_mut().take(row.frames).for_each(|there| *there = 1.0);
                }
                let clips = Tensor::from_vec(pixels, (count, frames, 3, size, size), &Device::Cpu)?;
                (clips, Some(Tensor::from_vec(mask, (count, frames), &Device::Cpu)?))
            }
        };
        let (longest, padding) = (self.options.max_tokens, self.options.padding);
        let answers = rows.iter().map(|row| (row.answers.as_slice(), row.valid));
        let answers = BatchAnswers::new(answers, &self.tokenizer, longest, padding)?;
        let texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
        let concepts = rows.iter().map(|row| self.dataset.concept(row.index));
        let (input_ids, attention_mask) = self.tokenizer.encode_batch(&texts, longest, padding)?;
        Ok(Batch {
            step,
            epoch,
            indices: rows.iter().map(|row| row.index).collect(),
            valid: rows.iter().map(|row| row.valid).collect(),
            concepts: concepts.collect::<Result<_>>()?,
            texts,
            images,
            frame_mask,
            input_ids,
            attention_mask,
            answers,
        })
    }
}

/// Question of a sample and its answers.
fn asked(sample: &Sample, training: bool) -> Result<(String, Vec<(String, f32)>)> {
    let missing =
        |what| Error::NotAsked { shard: sample.shard.to_string(), key: sample.key.clone(), what };
    let question = sample.question.as_ref().ok_or_else(|| missing("question"))?;
    if training && question.answers.is_empty() {
        return Err(missing("answer"));
    }
    Ok((question.text.clone(), question.answers.clone()))
}
