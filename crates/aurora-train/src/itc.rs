//! Image-text contrastive loss (ITC), with momentum features, a queue and soft targets (Li et al.
//! 2021, arXiv:2107.07651).
//!
//! The online feature of every image is compared with the momentum features of all texts of the
//! batch and of the queue, and the other way round:
//!
//! ```text
//! scores  = online image . [momentum text | text queue] / temperature
//! hard    = (ids equal) / number of equal ids in the row
//! soft    = softmax(momentum image . [momentum text | text queue] / temperature)
//! targets = alpha soft + (1 - alpha) hard
//! loss    = mean over rows of -sum(targets log_softmax(scores)), and the mean of both directions
//! ```
//!
//! Pairs with equal ids are positives of each other. Targets, momentum features and queue get no
//! gradient; the temperature does, if it is a variable.

use aurora_kernels::{linear, soft_cross_entropy};
use candle_core::{D, DType, Tensor, Var};

use crate::error::{Error, Result};
use crate::queue::QueueView;

/// Smallest and largest temperature in use.
pub const TEMPERATURE_RANGE: [f64; 2] = [0.001, 0.5];

/// Inputs of the ITC loss. Features are (batch, dim), of unit length, f32.
#[derive(Debug, Clone, Copy)]
pub struct ItcInput<'a> {
    /// Online features of the images.
    pub image: &'a Tensor,
    /// Online features of the texts.
    pub text: &'a Tensor,
    /// Momentum features of images and texts. `None`: the online features stand on both sides, with
    /// gradient, as in a model without a momentum copy.
    pub momentum: Option<[&'a Tensor; 2]>,
    /// Queued features. `None`: negatives come from the batch alone.
    pub queue: Option<&'a QueueView>,
    /// Id of each pair; equal ids are positives.
    pub ids: &'a [i64],
    /// Weight of the soft targets, 0 to 1.
    pub alpha: f64,
    /// Temperature, one value; see [`clamped_temperature`].
    pub temperature: &'a Tensor,
}

/// ITC loss, and the similarities for drawing hard negatives.
#[derive(Debug, Clone)]
pub struct ItcOutput {
    /// The loss, a scalar.
    pub loss: Tensor,
    /// Similarity of online images and online texts over the temperature, (batch, batch), without gradient.
    pub similarity: Tensor,
}

/// Computes the ITC loss.
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
    let hard = HardTargets::new(ids, input.queue.map_or(&[], |q| &q.ids));
    let directions = [
        (image, image_side, text_side, input.queue.map(|q| &q.text)),
        (text, text_side, image_side, input.queue.map(|q| &q.image)),
    ];
    for (online, query, keys, queue) in directions {
        // Dividing the few features is cheaper than dividing the many scores.
        scores.push(compare(&online.broadcast_div(&temperature)?, keys, queue)?); // (B, B + queue)
        targets.push(if alpha == 0.0 {
            hard.dense(image)?
        } else {
            let query = query.detach().broadcast_div(&frozen_temperature)?;
            hard.mix(&compare(&query, &keys.detach(), queue)?, alpha)?
        });
    }
    let i2t = soft_cross_entropy(&scores[0], &targets[0])?;
    let t2i = soft_cross_entropy(&scores[1], &targets[1])?;
    let loss = ((i2t + t2i)? * 0.5)?;
    let similarity = image.detach().matmul(&text.detach().t()?)?; // (B, B)
    let similarity = similarity.broadcast_div(&frozen_temperature)?;
    Ok(ItcOutput { loss, similarity })
}

/// Clamps `temperature` to [`TEMPERATURE_RANGE`] with a straight-through gradient, so that a value
/// outside can come back.
///
/// # Errors
/// Any candle error.
pub fn clamped_temperature(temperature: &Tensor) -> Result<Tensor> {
    let [low, high] = TEMPERATURE_RANGE;
    let value = temperature.detach();
    let correction = (value.clamp(low, high)? - &value)?;
    Ok((temperature + correction)?)
}

/// Clamps a trainable temperature to [`TEMPERATURE_RANGE`] in place, as the reference code does
/// before each step.
///
/// # Errors
/// Any candle error.
pub fn clamp_temperature(temperature: &Var) -> Result<()> {
    let [low, high] = TEMPERATURE_RANGE;
    Ok(temperature.set(&temperature.as_detached_tensor().clamp(low, high)?)?)
}

/// Logits `rows . [keys | queue]`, (B, B + queue). The queue has a GEMM of its own: concatenating it
/// to the batch would copy it at every step. Untracked operands get no gradient, which for a queue
/// would be as large as it is.
fn compare(rows: &Tensor, keys: &Tensor, queue: Option<&Tensor>) -> Result<Tensor> {
    let batch = linear(rows, keys, None)?; // (B, B)
    match queue {
        Some(queue) if queue.dim(0)? > 0 => {
            Ok(Tensor::cat(&[&batch, &linear(rows, queue, None)?], 1)?)
        }
        _ => Ok(batch),
    }
}

/// Hard targets, sparse: (B, B + queue), where equal ids share a row's weight evenly and all else is
/// zero.
pub(crate) struct HardTargets {
    rows: usize,
    columns: usize,
    places: Vec<u32>, // indices into the flat matrix
    shares: Vec<f64>,
}

impl HardTargets {
    pub(crate) fn new(ids: &[i64], queued: &[i64]) -> Self {
        let (rows, columns) = (ids.len(), ids.len() + queued.len());
        let (mut places, mut shares) = (Vec::new(), Vec::new());
        for (row, id) in ids.iter().enumerate() {
            let before = places.len();
            let all = ids.iter().chain(queued).enumerate();
            let equal = all.filter(|(_, other)| *other == id);
            places.extend(equal.map(|(column, _)| (row * columns + column) as u32));
            let count = places.len() - before;
            shares.resize(places.len(), 1.0 / count as f64);
        }
        Self { rows, columns, places, shares }
    }

    /// `targets` (B, B + queue) plus `weight` times the hard targets.
    fn add_to(&self, targets: &Tensor, weight: f64) -> Result<Tensor> {
        let (count, device) = (self.places.len(), targets.device());
        let places = Tensor::from_slice(&self.places, count, device)?;
        let shares: Vec<f64> = self.shares.iter().map(|share| weight * share).collect();
        let shares = Tensor::from_vec(shares, count, device)?.to_dtype(targets.dtype())?;
        let sum = targets.flatten_all()?.index_add(&places, &shares, 0)?;
        Ok(sum.reshape((self.rows, self.columns))?)
    }

    /// Dense matrix, with the element type and device of `like`.
    pub(crate) fn dense(&self, like: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::zeros((self.rows, self.columns), like.dtype(), like.device())?;
        self.add_to(&zeros, 1.0)
    }

    /// Soft targets: `alpha softmax(scores) + (1 - alpha) hard`; scores (B, B + queue), no gradient.
    fn mix(&self, scores: &Tensor, alpha: f64) -> Result<Tensor> {
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let factor = (weights.sum_keepdim(D::Minus1)?.recip()? * alpha)?; // (B, 1)
        self.add_to(&weights.broadcast_mul(&factor)?, 1.0 - alpha)
    }
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
