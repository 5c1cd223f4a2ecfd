//! Random streams keyed by seed, purpose, step and index, independent of what was drawn before.
//!
//! A [`Stream`] is a function of these four. Work that is repeated (recomputation in a backward pass), resumed or
//! spread over threads draws the same numbers as long as it names the same four.

use candle_core::{Device, Result, Shape, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Random stream named by seed, purpose, step and index.
///
/// The generator is ChaCha with 8 rounds (Bernstein 2008); the four names fill its 32-byte key (seed, 64-bit FNV-1a
/// hash of the purpose, step, index, each little-endian).
#[derive(Debug, Clone)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// Stream of the four names, at its beginning.
    pub fn new(seed: u64, purpose: &str, step: u64, index: u64) -> Self {
        let mut key = [0u8; 32];
        let words = [seed, fnv1a(purpose.as_bytes()), step, index];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self { rng: ChaCha8Rng::from_seed(key) }
    }

    /// Next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform number in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal number, mean 0 and variance 1 (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Uniform integer below `n`; 0 when `n` is 0.
    ///
    /// Multiply and shift with rejection (Lemire 2019, arXiv:1805.10941).
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= reject_below {
                return (product >> 64) as usize;
            }
        }
    }

    /// Shuffles `items`, each order equally likely (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Index drawn in proportion to `weights`; weights that are negative or not finite count as zero. None when no
    /// weight is above zero. Draws one number in any case.
    pub fn weighted(&mut self, weights: &[f32]) -> Option<usize> {
        let weight = |w: f32| if w > 0.0 && w.is_finite() { f64::from(w) } else { 0.0 };
        let total: f64 = weights.iter().map(|&w| weight(w)).sum();
        let mut left = self.uniform() * total;
        let mut chosen = None;
        for (index, &w) in weights.iter().enumerate() {
            let w = weight(w);
            if w > 0.0 {
                chosen = Some(index);
                if left < w {
                    break;
                }
                left -= w;
            }
        }
        chosen
    }

    /// Normal f32 tensor with mean 0 and standard deviation `std`.
    ///
    /// # Errors
    /// Errors of candle when it cannot make a tensor of that shape.
    pub fn normal_tensor(&mut self, shape: impl Into<Shape>, std: f64) -> Result<Tensor> {
        let shape = shape.into();
        let values = (0..shape.elem_count()).map(|_| (self.normal() * std) as f32).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)
    }

    /// Uniform f32 tensor over `low` to `high`.
    ///
    /// # Errors
    /// Errors of candle when it cannot make a tensor of that shape.
    pub fn uniform_tensor(
        &mut self,
        shape: impl Into<Shape>,
        low: f64,
        high: f64,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let values =
            (0..shape.elem_count()).map(|_| (low + (high - low) * self.uniform()) as f32).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu)
    }
}

/// 64-bit FNV-1a hash: small, fixed for good, and enough to tell purposes apart.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
