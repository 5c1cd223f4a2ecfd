//! Batches: tensors and texts of one step.

use candle_core::{Device, Tensor};

use crate::tokenizer::Padding;
use crate::{Result, Tokenizer};

/// Batch of one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Step since the beginning of the run.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Dataset indices of the samples.
    pub indices: Vec<usize>,
    /// Rows that count. The others are padding, at the end of an epoch or for a broken sample in
    /// evaluation, and must be excluded from every metric.
    pub valid: Vec<bool>,
    /// Concept ids of the samples: equal ids are positives of each other.
    pub concepts: Vec<i64>,
    /// Tokenized captions or questions.
    pub texts: Vec<String>,
    /// Images (batch, 3, size, size) or clips (batch, frames, 3, size, size), f32, normalized.
    pub images: Tensor,
    /// Frame mask of clips, (batch, frames) f32: 1 at frames, 0 at the padding of a short clip.
    pub frame_mask: Option<Tensor>,
    /// Token ids, (batch, length) u32.
    pub input_ids: Tensor,
    /// Attention mask, (batch, length) f32: 1 at tokens.
    pub attention_mask: Tensor,
    /// Answers to the questions, if any.
    pub answers: Option<BatchAnswers>,
}

/// Answers to the questions of a batch, concatenated.
#[derive(Debug, Clone)]
pub struct BatchAnswers {
    /// Tokenized answers.
    pub texts: Vec<String>,
    /// Token ids, (answers, length) u32, `[DEC]` first.
    pub input_ids: Tensor,
    /// Attention mask, (answers, length) f32: 1 at tokens.
    pub attention_mask: Tensor,
    /// Row of each answer's question.
    pub questions: Vec<u32>,
    /// Number of answers of each question.
    pub counts: Vec<u32>,
    /// Weight of each answer; 0 where its row does not count.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Batch with its tensors on `device`.
    ///
    /// # Errors
    /// Errors of candle.
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
    /// Answers of each row with their weights; `None` if no row has one.
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
        // The decoder's begin-of-text token replaces [CLS].
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
