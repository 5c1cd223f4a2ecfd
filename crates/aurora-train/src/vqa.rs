//! Visual question answering (VQA): the question is encoded with the image, the answer decoded from the question (BLIP,
//! Li et al. 2022, arXiv:2201.12086).
//!
//! Training adds up the language-model losses of the answers, each with its weight. An answer is found by ranking
//! candidates (first by their first token, then in full) or generated token by token. The question's states become keys
//! and values once, however many answers attend to them.

use aurora_kernels::negative_log_likelihood;
use aurora_layers::{Blip, BoundModel, CrossAttention, EncoderKv, flatten_frames};
use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::retrieval::{ImageBatch, image_keys};

/// Batch of texts: token ids (rows, length), u32, and mask (rows, length), 1 for tokens and 0 for padding.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// Token ids.
    pub token_ids: &'a Tensor,
    /// Attention mask.
    pub mask: &'a Tensor,
}

/// Answers with weights, each to one of the questions.
#[derive(Debug, Clone, Copy)]
pub struct Answers<'a> {
    /// The answers, `[DEC]` or any other token first, `[SEP]` last.
    pub texts: Texts<'a>,
    /// Row of each answer's question.
    pub questions: &'a [u32],
    /// Weight of each answer: the share of annotators who gave it.
    pub weights: &'a [f32],
}

/// VQA training batch: images, questions and answers.
#[derive(Debug, Clone, Copy)]
pub struct VqaBatch<'a> {
    /// Images or clips.
    pub images: ImageBatch<'a>,
    /// One question per image or clip.
    pub questions: Texts<'a>,
    /// Answers to the questions.
    pub answers: Answers<'a>,
}

/// Cross-attention keys and values of images or clips for their questions.
fn seen_keys(blip: &Blip, bound: &BoundModel, images: ImageBatch) -> Result<EncoderKv> {
    let ImageBatch { pixels, frame_mask } = images;
    let states = match pixels.rank() {
        5 => flatten_frames(&blip.encode_clips(pixels, bound)?)?,
        _ => blip.encode_image(pixels, bound)?,
    };
    image_keys(blip, bound, &states, frame_mask)
}

/// Question states, (batch, length, text width), one question per image or clip. For a clip a question attends to the
/// tokens of all frames alike.
///
/// # Errors
/// Shapes that do not fit the model, a model without text encoder.
pub fn question_states<'a>(
    blip: &Blip,
    bound: &BoundModel,
    images: impl Into<ImageBatch<'a>>,
    questions: &Texts,
) -> Result<Tensor> {
    let keys = seen_keys(blip, bound, images.into())?;
    let Texts { token_ids, mask } = questions;
    Ok(blip.fuse(token_ids, mask, &CrossAttention::new(&keys), bound)?)
}

/// Decoder keys and values of questions about images: [`question_states`] with the padding masked.
///
/// The original code masks the padding in training and ranking but not in generation; transformers never does. For
/// their numbers give [`Blip::encode_decoder_kv`] the states without a mask.
///
/// # Errors
/// Shapes that do not fit the model, a model without encoder or decoder.
pub fn encode_questions<'a>(
    blip: &Blip,
    bound: &BoundModel,
    images: impl Into<ImageBatch<'a>>,
    questions: &Texts,
) -> Result<EncoderKv> {
    let keys = seen_keys(blip, bound, images.into())?;
    let Texts { token_ids, mask } = questions;
    // The decoder masks the padding, so its states need not be computed.
    let states = blip.fuse_tokens(token_ids, mask, &CrossAttention::new(&keys), bound)?;
    Ok(blip.encode_decoder_kv(&states, Some(mask), bound)?)
}

/// Language-model loss of each text, summed over its tokens: (texts). Text b attends as `seen` says; all tokens but the
/// first are predicted.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn text_losses(
    (blip, bound): (&Blip, &BoundModel),
    texts: &Texts,
    seen: &CrossAttention,
    label_smoothing: f64,
) -> Result<Tensor> {
    let states = blip.decode_tokens(texts.token_ids, texts.mask, seen, bound)?; // (texts, length, width)
    let (count, length, width) = states.dims3()?;
    let mask: Vec<Vec<f32>> = texts.mask.to_dtype(DType::F32)?.to_vec2()?;
    // Only positions whose next token counts go through the head: (tokens, width).
    let places: Vec<u32> = (0..count)
        .flat_map(|text| (1..length).map(move |place| (text, place)))
        .filter(|&(text, place)| mask[text][place] != 0.0)
        .map(|(text, place)| (text * length + place) as u32)
        .collect();
    if places.is_empty() {
        return Ok(Tensor::zeros(count, states.dtype(), states.device())?);
    }
    let device = states.device();
    let words = places.len();
    let before: Vec<u32> = places.iter().map(|place| place - 1).collect();
    let owners: Vec<u32> = places.iter().map(|place| place / length as u32).collect();
    let before = Tensor::from_vec(before, words, device)?;
    let logits = blip.predict_words(
        &states.reshape((count * length, width))?.index_select(&before, 0)?, // (words, width)
    )?;
    let ids = texts.token_ids.flatten_all()?;
    let labels = ids.index_select(&Tensor::from_vec(places, words, device)?, 0)?;
    let losses = negative_log_likelihood(&logits, &labels, label_smoothing)?; // (words)
    let owners = Tensor::from_vec(owners, words, device)?;
    Ok(Tensor::zeros(count, losses.dtype(), device)?.index_add(&owners, &losses, 0)?)
}

/// VQA loss: the weighted sum of the answers' losses, over the number of questions.
///
/// # Errors
/// As [`text_losses`]; answers, questions and weights that differ in number.
pub fn answer_loss(
    (blip, bound): (&Blip, &BoundModel),
    questions: &EncoderKv,
    answers: &Answers,
) -> Result<Tensor> {
    let count = answers.texts.token_ids.dim(0)?;
    for (name, found) in
        [("questions", answers.questions.len()), ("weights", answers.weights.len())]
    {
        if found != count {
            return Err(Error::Count { operation: "answer_loss", name, found, expected: count });
        }
    }
    let seen = CrossAttention::new(questions).rows(answers.questions);
    let losses = text_losses((blip, bound), &answers.texts, &seen, 0.0)?;
    let weights = Tensor::from_slice(answers.weights, count, losses.device())?;
    let weights = weights.to_dtype(losses.dtype())?;
    Ok(((losses * weights)?.sum_all()? / questions.images() as f64)?)
}

/// Ranks `candidates` for each question and returns the index of the best.
///
/// The `k` candidates whose first token is likeliest are compared by the loss of the whole answer; `k` is clamped to
/// their number. Equal ones are taken in order of index.
///
/// # Errors
/// Shapes that do not fit the model, no candidates, a loss that is not a number.
pub fn rank_answers(
    (blip, bound): (&Blip, &BoundModel),
    questions: &EncoderKv,
    candidates: &Texts,
    k: usize,
) -> Result<Vec<usize>> {
    let (count, length) = candidates.token_ids.dims2()?;
    if count == 0 || length < 2 || k == 0 {
        return Err(Error::Shape {
            operation: "rank_answers",
            name: format!("candidates (with k = {k})"),
            found: vec![count, length],
            expected: "at least one candidate of at least one word, and k of at least 1".into(),
        });
    }
    let device = candidates.token_ids.device();
    let asked = questions.images();
    // Distribution of the token after [DEC], for each question.
    let start = candidates.token_ids.narrow(0, 0, 1)?.narrow(1, 0, 1)?.repeat((asked, 1))?;
    let mask = Tensor::ones((asked, 1), DType::F32, device)?;
    let states = blip.decode(&start, &mask, &CrossAttention::new(questions), bound)?.squeeze(1)?;
    let first: Vec<Vec<f32>> = blip.predict_words(&states)?.to_dtype(DType::F32)?.to_vec2()?;
    let words: Vec<u32> = candidates.token_ids.narrow(1, 1, 1)?.flatten_all()?.to_vec1()?;
    let mut best = Vec::with_capacity(asked);
    for (question, scores) in (0u32..).zip(&first) {
        let mut order: Vec<usize> = (0..count).collect();
        let score = |candidate: usize| scores[words[candidate] as usize];
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        order.truncate(k);
        let rows: Vec<u32> = order.iter().map(|&candidate| candidate as u32).collect();
        let rows = Tensor::from_vec(rows, order.len(), device)?;
        let chosen =
            (candidates.token_ids.index_select(&rows, 0)?, candidates.mask.index_select(&rows, 0)?);
        let texts = Texts { token_ids: &chosen.0, mask: &chosen.1 };
        let seen = CrossAttention::new(questions).rows(vec![question; order.len()]);
        let losses: Vec<f32> =
            text_losses((blip, bound), &texts, &seen, 0.0)?.detach().to_vec1()?;
        if let Some(place) = losses.iter().position(|loss| loss.is_nan()) {
            let what = format!("the loss of candidate {} for question {question}", order[place]);
            return Err(Error::NotFinite { what, value: f64::NAN });
        }
        let ranked = order.iter().zip(&losses);
        best.extend(ranked.min_by(|a, b| a.1.total_cmp(b.1)).map(|(&candidate, _)| candidate));
    }
    Ok(best)
}

/// Captioning loss: the mean language-model loss over the tokens of all captions, caption b of image b.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn caption_loss(
    (blip, bound): (&Blip, &BoundModel),
    images: &Tensor,
    captions: &Texts,
    label_smoothing: f64,
) -> Result<Tensor> {
    let states = blip.encode_image(images, bound)?;
    let keys = blip.encode_decoder_kv(&states, None, bound)?;
    mean_text_loss((blip, bound), captions, &CrossAttention::new(&keys), label_smoothing)
}

/// Mean language-model loss over the tokens of texts; the first of each is not predicted.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn mean_text_loss(
    model: (&Blip, &BoundModel),
    texts: &Texts,
    seen: &CrossAttention,
    label_smoothing: f64,
) -> Result<Tensor> {
    let losses = text_losses(model, texts, seen, label_smoothing)?;
    let mask = texts.mask.to_dtype(DType::F32)?;
    let words = mask.narrow(1, 1, mask.dim(1)? - 1)?.sum_all()?.to_scalar::<f32>()?;
    Ok((losses.sum_all()? / f64::from(words.max(1.0)))?)
}
