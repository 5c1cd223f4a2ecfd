//! Informative context enhancement: a context vector from other texts, added to the fused `[CLS]` (Wang et al. 2023,
//! arXiv:2305.08381).

use crate::tensors::{Tensors, get};
use crate::{Result, Variant};
use candle_core::{D, DType, Tensor};

/// Weight of the batch mean in the reference code.
const REFERENCE_SHARE: f64 = 0.1;
/// Momentum of a bank slot: the share of its old value that it keeps when texts are assigned to it.
const BANK_MOMENTUM: f64 = 0.99;
/// Name of the learned gate, a scalar.
pub(crate) const GATE: &str = "aurora_context.gate";
/// Name of the bank of text `[CLS]` vectors, (slots, width); a buffer, never trained.
pub(crate) const BANK: &str = "aurora_context.bank";

/// Context term of a model, ready to apply.
#[derive(Debug, Clone)]
pub(crate) enum Context {
    /// Gated attention over a bank of text vectors; the same for every pair, in training and evaluation.
    Bank {
        gate: Tensor, // tanh(a), (1)
        bank: Tensor, // (slots, width)
    },
    /// Reference rule: the batch mean, for the positive pairs of a training step only.
    BatchMean,
}

impl Context {
    pub(crate) fn new(variant: Variant, tensors: &Tensors) -> Result<Self> {
        Ok(match variant {
            Variant::Reference => Self::BatchMean,
            Variant::Paper => {
                Self::Bank { gate: get(tensors, GATE)?.tanh()?, bank: get(tensors, BANK)?.detach() }
            }
        })
    }
}

/// Attention of text `[CLS]` vectors q (texts, width) over the bank M: `softmax(q M^T / sqrt(width)) M`, (texts,
/// width).
pub(crate) fn attend(text_cls: &Tensor, bank: &Tensor) -> Result<Tensor> {
    let width = text_cls.dim(D::Minus1)? as f64;
    // The bank carries no gradient, and neither does the query: only the gate learns.
    let scores = (text_cls.detach().matmul(&bank.t()?)? / width.sqrt())?; // (texts, slots)
    let top = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&top)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    Ok(weights.matmul(bank)?)
}

/// Reference context of positive pairs: 0.1 x the mean `[CLS]` of the batch's texts, (width).
pub(crate) fn batch_mean(text_cls: &Tensor) -> Result<Tensor> {
    Ok((text_cls.mean(0)? * REFERENCE_SHARE)?)
}

/// Bank after a batch of text `[CLS]` vectors: each text fills an empty (all zero) slot while there is one, else it
/// goes to the nearest slot, which moves a hundredth of the way to the mean of its texts.
pub(crate) fn update(bank: &Tensor, text_cls: &Tensor) -> Result<Tensor> {
    let mut slots = bank.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let texts = text_cls.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let width = texts.first().map_or(0, Vec::len);
    let mut sums = vec![(0usize, vec![0f32; width]); slots.len()];
    for text in texts {
        if let Some(slot) = slots.iter_mut().find(|slot| slot.iter().all(|&value| value == 0.0)) {
            *slot = text;
            continue;
        }
        let distance =
            |slot: &[f32]| -> f32 { slot.iter().zip(&text).map(|(a, b)| (a - b) * (a - b)).sum() };
        let nearest =
            (0..slots.len()).min_by(|&a, &b| distance(&slots[a]).total_cmp(&distance(&slots[b])));
        if let Some((count, sum)) = nearest.and_then(|slot| sums.get_mut(slot)) {
            *count += 1;
            sum.iter_mut().zip(&text).for_each(|(sum, value)| *sum += value);
        }
    }
    for (slot, (count, sum)) in slots.iter_mut().zip(&sums) {
        if *count == 0 {
            continue;
        }
        let share = (1.0 - BANK_MOMENTUM) as f32 / *count as f32;
        for (value, sum) in slot.iter_mut().zip(sum) {
            *value = BANK_MOMENTUM as f32 * *value + share * sum;
        }
    }
    Ok(Tensor::new(slots, bank.device())?.to_dtype(bank.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn empty_slots_fill_first_and_full_ones_move() {
        let bank = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let texts = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu).unwrap();
        let bank = update(&bank, &texts).unwrap();
        assert_eq!(bank.to_vec2::<f32>().unwrap(), [[1., 0.], [0., 1.]]);
        let bank = update(&bank, &Tensor::new(&[[0f32, 3.]], &Device::Cpu).unwrap()).unwrap();
        let moved = bank.to_vec2::<f32>().unwrap();
        assert_eq!(moved[0], [1., 0.]);
        assert!((moved[1][1] - (0.99 + 0.03)).abs() < 1e-6);
    }

    #[test]
    fn an_empty_bank_adds_nothing() {
        let bank = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let text = Tensor::new(&[[1f32, -5.]], &Device::Cpu).unwrap();
        assert_eq!(attend(&text, &bank).unwrap().to_vec2::<f32>().unwrap(), [[0., 0.]]);
    }
}
