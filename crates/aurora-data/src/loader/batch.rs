//! What one step takes.

use candle_core::{Device, Tensor};

use crate::tokenizer::Padding;
use crate::{Result, Tokenizer};

/// What one step takes.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Number of the batch since the beginning of the run.
    pub step: u64,
    /// The pass over the dataset it belongs to, from 0.
    pub epoch: u64,
    /// Indices of the samples in the dataset.
    pub indices: Vec<usize>,
    /// Which rows count. The others fill the batch up, at the end of an epoch or in evaluation
    /// where a broken sample is left out: they have to be left out of every figure.
    pub valid: Vec<bool>,
    /// Their concepts: equal ids are positives of each other.
    pub concepts: Vec<i64>,
    /// The captions or questions that were tokenized.
    pub texts: Vec<String>,
    /// Images, (batch, 3, size, size), or clips, (batch, frames, 3, size, size): f32, normalized.
    pub images: Tensor,
    /// Of clips, (batch, frames) f32: 1 where there is a frame, 0 behind the last of a short clip.
    pub frame_mask: Option<Tensor>,
    /// (batch, length) u32.
    pub input_ids: Tensor,
    /// (batch, length) f32, 1 where there is a token.
    pub attention_mask: Tensor,
    /// The answers to questions, if there are any.
    pub answers: Option<BatchAnswers>,
}

/// The answers to the questions of a batch, one question's after the other's.
#[derive(Debug, Clone)]
pub struct BatchAnswers {
    /// The answers that were tokenized.
    pub texts: Vec<String>,
    /// (answers, length) u32, `[DEC]` first.
    pub input_ids: Tensor,
    /// (answers, length) f32, 1 where there is a token.
    pub attention_mask: Tensor,
    /// The row of each answer's question.
    pub questions: Vec<u32>,
    /// How many answers each question has.
    pub counts: Vec<u32>,
    /// How much each answer weighs; 0 where its row does not count.
    pub weights: Vec<f32>,
}

impl Batch {
    /// The same with its tensors on another device.
    ///
    /// # Errors
    /// What candle reports.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let frame_mask = self.frame_mask.map(|mask| mask.to_device(device)).transpose()?;
        let answers = self.answers.map(|answers| answers.moved(device)).transpose()?;
        Ok(Self {
            images: self.images.to_device(device)?,
            input_ids: self.input_ids.to_device(device)?,
            attention_mask: self.attention_mask.to_device(device)?,
            frame_mask,
            answers,
            ..self
        })
    }
}

impl BatchAnswers {
    /// The answers of each row with their weights, or none if there is not one.
    pub(super) fn new<'a>(
        rows: impl IntoIterator<Item = (&'a [(String, f32)], bool)>,
        tokenizer: &Tokenizer,
        max_tokens: usize,
        padding: Padding,
    ) -> Result<Option<Self>> {
        let (mut texts, mut weights) = (Vec::new(), Vec::new());
        let (mut questions, mut counts) = (Vec::new(), Vec::new());
        for (row, (answers, counted)) in (0u32..).zip(rows) {
            counts.push(answers.len() as u32);
            for (answer, weight) in answers {
                questions.push(row);
                texts.push(answer.clone());
                weights.push(if counted { *weight } else { 0.0 });
            }
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let (ids, attention_mask) = tokenizer.encode_batch(&texts, max_tokens, padding)?;
        let (count, length) = ids.dims2()?;
        // What a decoder begins with, in the place of [CLS].
        let begin = Tensor::full(tokenizer.special().dec, (count, 1), ids.device())?;
        let input_ids = Tensor::cat(&[&begin, &ids.narrow(1, 1, length - 1)?], 1)?;
        Ok(Some(Self { texts, input_ids, attention_mask, questions, counts, weights }))
    }

    fn moved(self, device: &Device) -> Result<Self> {
        Ok(Self {
            input_ids: self.input_ids.to_device(device)?,
            attention_mask: self.attention_mask.to_device(device)?,
            ..self
        })
    }
}
