//! Reference implementations of every operation: plain f64 loops, without candle.
//!
//! Tests and benches compare against these. All arguments are dense and row-major.

/// Linear layer `x W^T + b`: x (tokens, in), weight (out, in), bias (out); (tokens, out).
pub fn linear(x: &[f64], weight: &[f64], bias: Option<&[f64]>, input: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks_exact(input) {
        for (o, w) in weight.chunks_exact(input).enumerate() {
            let product: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
            y.push(product + bias.map_or(0.0, |bias| bias[o]));
        }
    }
    y
}

/// Merged weight `W + B A`: weight (out, in), a (rank, in), b (out, rank).
pub fn merged_weight(weight: &[f64], a: &[f64], b: &[f64], input: usize) -> Vec<f64> {
    let rank = a.len() / input;
    let mut sum = weight.to_vec();
    for (o, row) in sum.chunks_exact_mut(input).enumerate() {
        for (i, w) in row.iter_mut().enumerate() {
            *w += (0..rank).map(|r| b[o * rank + r] * a[r * input + i]).sum::<f64>();
        }
    }
    sum
}

/// Layer normalization of rows as long as `weight`.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let width = weight.len();
    let mut y = Vec::new();
    for x in x.chunks_exact(width) {
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        for ((x, weight), bias) in x.iter().zip(weight).zip(bias) {
            y.push((x - mean) / (variance + eps).sqrt() * weight + bias);
        }
    }
    y
}

/// GELU: `x Phi(x)`.
pub fn gelu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)).collect()
}

/// Sizes and options of an [`attention`], as in [`AttentionOptions`](crate::AttentionOptions).
#[derive(Debug, Clone, Default)]
pub struct AttentionSpec {
    /// Queries in a row, Tq.
    pub q_len: usize,
    /// Keys in a row, Tk.
    pub k_len: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of all heads together, D.
    pub width: usize,
    /// Additive key mask, (Bq, Tk).
    pub key_mask: Option<Vec<f64>>,
    /// Factor on the scores of each key, (Bq, Tk).
    pub key_scale: Option<Vec<f64>>,
    /// Causal mask: query i sees keys up to i + Tk - Tq.
    pub causal: bool,
    /// Row of keys of each row of queries.
    pub kv_rows: Option<Vec<u32>>,
}

/// Attention of q (Bq, Tq, D) over k and v (Bk, Tk, D); (Bq, Tq, D).
pub fn attention(q: &[f64], k: &[f64], v: &[f64], of: &AttentionSpec) -> Vec<f64> {
    let &AttentionSpec { q_len, k_len, heads, width, .. } = of;
    let head = width / heads;
    let mut out = vec![0.0; q.len()];
    for row in 0..q.len() / (q_len * width) {
        let key_row = of.kv_rows.as_ref().map_or(row, |rows| rows[row] as usize);
        for h in 0..heads {
            for i in 0..q_len {
                let q = &q[(row * q_len + i) * width + h * head..][..head];
                let seen = if of.causal { i + 1 + k_len - q_len } else { k_len };
                let scores: Vec<f64> = (0..seen)
                    .map(|j| {
                        let k = &k[(key_row * k_len + j) * width + h * head..][..head];
                        let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                        let key = row * k_len + j;
                        product / (head as f64).sqrt()
                            * of.key_scale.as_ref().map_or(1.0, |scale| scale[key])
                            + of.key_mask.as_ref().map_or(0.0, |mask| mask[key])
                    })
                    .collect();
                for (j, p) in softmax(&scores).into_iter().enumerate() {
                    for c in 0..head {
                        out[(row * q_len + i) * width + h * head + c] +=
                            p * v[(key_row * k_len + j) * width + h * head + c];
                    }
                }
            }
        }
    }
    out
}

/// Softmax of a row; zeros where everything is minus infinity.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return vec![0.0; x.len()];
    }
    let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
    x.iter().map(|x| (x - top).exp() / sum).collect()
}

/// Soft-target cross-entropy: mean over rows of `classes` of `-sum(targets * ln(softmax(logits)))`.
pub fn soft_cross_entropy(logits: &[f64], targets: &[f64], classes: usize) -> f64 {
    let rows = logits.chunks_exact(classes).zip(targets.chunks_exact(classes));
    let total: f64 = rows
        .map(|(logits, targets)| {
            let log_p = softmax(logits).into_iter().map(f64::ln);
            let wanted = log_p.zip(targets).filter(|(_, target)| **target != 0.0);
            -wanted.map(|(log_p, target)| log_p * target).sum::<f64>()
        })
        .sum();
    total / (logits.len() / classes) as f64
}
