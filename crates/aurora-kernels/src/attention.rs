//! Scaled dot-product attention over several heads.

use std::sync::Arc;

use candle_core::{D, Result, Tensor};

/// What changes the scores of [`attention`].
#[derive(Debug, Clone, Default)]
pub struct AttentionOptions {
    /// Added to the scores of each key, (Bq, Tk): 0 for a key to see, a large negative number or
    /// negative infinity for one to hide. No gradient.
    pub key_mask: Option<Tensor>,
    /// Hides from query i the keys after i + Tk - Tq.
    pub causal: bool,
    /// Multiplies the scores of each key before the mask is added, (Bq, Tk). No gradient.
    pub key_scale: Option<Tensor>,
    /// For each query row the row of keys and values it attends to; without it row b attends to
    /// row b.
    pub kv_rows: Option<Arc<[u32]>>,
}

/// Attention of `q` (Bq, Tq, D) over `k` and `v` (Bk, Tk, D) in `heads` heads of width D / heads:
/// `softmax(q k^T / sqrt(D / heads)) v`, shape (Bq, Tq, D).
///
/// # Errors
/// Shapes or element types that do not fit, a row of `kv_rows` that does not exist.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let (batch, tq, width) = q.dims3()?;
    let tk = k.dim(1)?;
    let head = width / heads;
    let (k, v) = match &options.kv_rows {
        Some(rows) => {
            let rows = Tensor::new(&rows[..], q.device())?;
            (k.index_select(&rows, 0)?, v.index_select(&rows, 0)?)
        }
        None => (k.clone(), v.clone()),
    };
    let q = q.reshape((batch, tq, heads, head))?.transpose(1, 2)?.contiguous()?;
    let k = k.reshape((batch, tk, heads, head))?.transpose(1, 2)?.contiguous()?;
    let v = v.reshape((batch, tk, heads, head))?.transpose(1, 2)?.contiguous()?;
    // (B, heads, Tq, Tk)
    let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (head as f64).powf(-0.5))?;
    if let Some(scale) = &options.key_scale {
        scores = scores.broadcast_mul(&scale.detach().reshape((batch, 1, 1, tk))?)?;
    }
    if let Some(mask) = &options.key_mask {
        scores = scores.broadcast_add(&mask.detach().reshape((batch, 1, 1, tk))?)?;
    }
    if options.causal {
        let mask: Vec<f32> = (0..tq)
            .flat_map(|i| (0..tk).map(move |j| if j + tq > i + tk { -1e30 } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, 1, tq, tk), q.device())?.to_dtype(q.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    let top = scores.max_keepdim(D::Minus1)?.detach();
    let e = scores.broadcast_sub(&top)?.exp()?;
    let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(1, 2)?.reshape((batch, tq, width))
}

/// [`attention`] of a packed projection `qkv` (B, T, 3 D) over itself: its last dimension holds
/// queries, keys and values one after the other. The gradient is packed alike, so that nothing is
/// cut apart or put together again.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn self_attention(qkv: &Tensor, heads: usize, options: &AttentionOptions) -> Result<Tensor> {
    let width = qkv.dim(D::Minus1)? / 3;
    let part = |i| qkv.narrow(D::Minus1, i * width, width);
    attention(&part(0)?, &part(1)?, &part(2)?, heads, options)
}
