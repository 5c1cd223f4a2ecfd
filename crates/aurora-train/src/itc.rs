//! The image-text contrastive loss (ITC), with momentum features, a queue and soft targets.
//!
//! The live feature of every picture is compared with the momentum features of all texts of the
//! batch and of the queue, and the other way round:
//!
//! ```text
//! scores  = live image . [momentum text | text queue] / temperature
//! hard    = (ids equal) / number of equal ids in the row
//! soft    = softmax(momentum image . [momentum text | text queue] / temperature)
//! targets = alpha soft + (1 - alpha) hard
//! loss    = mean over rows of -sum(targets log_softmax(scores)), and the mean of both directions
//! ```
//!
//! Several pairs with one id are all right for each other. Targets, momentum features and queue
//! get no gradient; the temperature does, when it is a variable.

use aurora_kernels::soft_cross_entropy;
use candle_core::{D, DType, Tensor, Var};

use crate::error::{Error, Result};
use crate::queue::QueueView;

/// Smallest and largest temperature that is used.
pub const TEMPERATURE_RANGE: [f64; 2] = [0.001, 0.5];

/// What the loss is computed from. Features are (batch, dim), of unit length, f32.
#[derive(Debug, Clone, Copy)]
pub struct ItcInput<'a> {
    /// Live features of the pictures.
    pub image: &'a Tensor,
    /// Live features of the texts.
    pub text: &'a Tensor,
    /// Momentum features of pictures and texts. None: the live features stand on both sides, with
    /// gradient, as in a model without a momentum copy.
    pub momentum: Option<[&'a Tensor; 2]>,
    /// Earlier features; none: negatives come from the batch alone.
    pub queue: Option<&'a QueueView>,
    /// Id of each pair: equal ids are right for each other.
    pub ids: &'a [i64],
    /// Weight of the soft targets, 0 to 1.
    pub alpha: f64,
    /// Temperature, one value; see [`clamped_temperature`].
    pub temperature: &'a Tensor,
}

/// The loss and what hard negatives are drawn by.
#[derive(Debug, Clone)]
pub struct ItcOutput {
    /// The loss, a scalar.
    pub loss: Tensor,
    /// Live pictures by live texts over the temperature, (batch, batch), without gradient.
    pub similarity: Tensor,
}

/// Computes the loss.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn itc_loss(input: &ItcInput<'_>) -> Result<ItcOutput> {
    check(input)?;
    let ItcInput { image, text, ids, alpha, .. } = *input;
    let temperature = clamped_temperature(input.temperature)?;
    let frozen_temperature = temperature.detach();
    let (mut targets, mut scores) = (Vec::with_capacity(2), Vec::with_capacity(2));
    let [image_side, text_side] = input.momentum.unwrap_or([image, text]);
    let hard = hard_targets(ids, input.queue.map_or(&[], |q| &q.ids), image)?;
    let directions = [
        (image, image_side, text_side, input.queue.map(|q| &q.text)),
        (text, text_side, image_side, input.queue.map(|q| &q.image)),
    ];
    for (live, query, keys, queue) in directions {
        scores.push(compare(live, keys, queue)?.broadcast_div(&temperature)?); // (B, B + queue)
        let target = if alpha == 0.0 {
            hard.clone()
        } else {
            let momentum = compare(&query.detach(), &keys.detach(), queue)?;
            let soft = softmax(&momentum.broadcast_div(&frozen_temperature)?)?;
            ((soft * alpha)? + (&hard * (1.0 - alpha))?)?
        };
        targets.push(target.detach());
    }
    let i2t = soft_cross_entropy(&scores[0], &targets[0])?;
    let t2i = soft_cross_entropy(&scores[1], &targets[1])?;
    let loss = ((i2t + t2i)? * 0.5)?;
    let similarity = image.detach().matmul(&text.detach().t()?)?; // (B, B)
    let similarity = similarity.broadcast_div(&frozen_temperature)?;
    Ok(ItcOutput { loss, similarity })
}

/// `temperature` within [`TEMPERATURE_RANGE`]; the gradient passes as if nothing were clamped, so
/// that a value outside can come back.
///
/// # Errors
/// What candle reports.
pub fn clamped_temperature(temperature: &Tensor) -> Result<Tensor> {
    let [low, high] = TEMPERATURE_RANGE;
    let value = temperature.detach();
    let correction = (value.clamp(low, high)? - &value)?;
    Ok((temperature + correction)?)
}

/// Moves a trainable temperature into [`TEMPERATURE_RANGE`], as the released code does before each
/// step.
///
/// # Errors
/// What candle reports.
pub fn clamp_temperature(temperature: &Var) -> Result<()> {
    let [low, high] = TEMPERATURE_RANGE;
    Ok(temperature.set(&temperature.as_detached_tensor().clamp(low, high)?)?)
}

/// `rows . [keys | queue]`, (B, B + queue). The queue is multiplied on its own: gluing it to the
/// batch would copy it at every step.
fn compare(rows: &Tensor, keys: &Tensor, queue: Option<&Tensor>) -> Result<Tensor> {
    let batch = rows.matmul(&keys.t()?)?; // (B, B)
    match queue {
        Some(queue) if queue.dim(0)? > 0 => {
            Ok(Tensor::cat(&[&batch, &rows.matmul(&queue.t()?)?], 1)?)
        }
        _ => Ok(batch),
    }
}

/// (B, B + queue): equal ids share the row's weight evenly.
pub(crate) fn hard_targets(ids: &[i64], queued: &[i64], like: &Tensor) -> Result<Tensor> {
    let columns = ids.len() + queued.len();
    let mut values = vec![0f64; ids.len() * columns];
    for (row, id) in values.chunks_exact_mut(columns.max(1)).zip(ids) {
        let equal = || ids.iter().chain(queued).map(|other| other == id);
        let share = 1.0 / equal().filter(|e| *e).count() as f64;
        for (value, equal) in row.iter_mut().zip(equal()) {
            *value = if equal { share } else { 0.0 };
        }
    }
    Ok(Tensor::from_vec(values, (ids.len(), columns), like.device())?.to_dtype(like.dtype())?)
}

/// Softmax over the last dimension; for targets, which carry no gradient.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
}

fn check(input: &ItcInput<'_>) -> Result<()> {
    let error = |name: &str, tensor: &Tensor, expected: String| Error::Shape {
        operation: "itc_loss",
        name: name.to_owned(),
        found: tensor.dims().to_vec(),
        expected,
    };
    let batch = input.ids.len();
    let &[rows, dim] = input.image.dims() else {
        return Err(error("image", input.image, "(batch, dim)".to_owned()));
    };
    if rows != batch || batch == 0 {
        return Err(error("image", input.image, format!("one row for each of {batch} ids")));
    }
    let mut same = vec![("text", input.text)];
    if let Some([image, text]) = input.momentum {
        same.extend([("momentum image", image), ("momentum text", text)]);
    }
    for (name, tensor) in same {
        if tensor.dims() != [batch, dim] {
            return Err(error(name, tensor, format!("[{batch}, {dim}] as image")));
        }
    }
    if let Some(queue) = input.queue {
        for (name, tensor) in [("image queue", &queue.image), ("text queue", &queue.text)] {
            if tensor.dims() != [queue.ids.len(), dim] {
                return Err(error(name, tensor, format!("[{}, {dim}]", queue.ids.len())));
            }
        }
    }
    if input.temperature.elem_count() != 1 {
        return Err(error("temperature", input.temperature, "one value".to_owned()));
    }
    if !matches!(input.image.dtype(), DType::F32 | DType::F64) {
        let found = input.image.dtype().as_str();
        let name = "image".to_owned();
        return Err(Error::DType { operation: "itc_loss", name, found, expected: "f32 or f64" });
    }
    Ok(())
}

#[cfg(test)]
#[path = "itc_tests.rs"]
mod tests;
