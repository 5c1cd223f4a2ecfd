//! Multi-head scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).
//!
//! Scores exist for one block of query rows of one head at a time; the backward pass recomputes them from the saved
//! log-sum-exp of each row (Dao et al. 2022, arXiv:2205.14135). Queries, keys and values are read in place: a head is
//! a range of columns.

mod backward;
mod forward;
mod operation;

pub(crate) use forward::softmax;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, D, DType, Result, Shape, Tensor};

use crate::Error;
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::float::Float;
use crate::precision::Precision;
use crate::small_gemm::padded;
use crate::tape::{apply1, apply3};
use crate::view::{Batched, Rows, check_device, check_element, check_like};

/// Options of [`attention`]: masks, key scale, shared keys and values, matmul precision.
#[derive(Debug, Clone, Default)]
pub struct AttentionOptions {
    /// Additive key mask, (Bq, Tk): 0 for a visible key, a large negative number or negative infinity for a masked
    /// one. A query that sees no key gives zeros. No gradient.
    pub key_mask: Option<Tensor>,
    /// Causal mask: query i does not see the keys after i + Tk - Tq; the last query sees all keys.
    pub causal: bool,
    /// Factor on the scores of each key, applied before the mask, (Bq, Tk). No gradient.
    pub key_scale: Option<Tensor>,
    /// Row of keys and values of each query row; without it row b attends to row b.
    pub kv_rows: Option<Arc<[u32]>>,
    /// Precision of the matmul operands, forward and backward; the softmax is f32 either way.
    pub precision: Precision,
}

/// Multi-head attention of `q` (Bq, Tq, D) over `k` and `v` (Bk, Tk, D) with `heads` heads of width D / heads:
/// `softmax(q k^T / sqrt(D / heads)) v`, shape (Bq, Tq, D).
///
/// Gradients go to those of the three that are tracked; where several query rows share a row of keys and values, its
/// gradients are summed in the order of the query rows.
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
    const OP: &str = "attention";
    for (name, other) in [("k", k), ("v", v)] {
        check_like(OP, name, other, q)?;
        let fits = q.rank() == 3 && other.rank() == 3 && q.dims().last() == other.dims().last();
        if !fits {
            let rule = "q is (Bq, Tq, D), k and v are (Bk, Tk, D)";
            return Err(shapes(OP, ("q", q.dims()), (name, other.dims()), rule));
        }
    }
    if k.dims() != v.dims() {
        return Err(shapes(OP, ("k", k.dims()), ("v", v.dims()), "both are (Bk, Tk, D)"));
    }
    let ((queries, q_len, width), (keys, k_len, _)) = (q.dims3()?, k.dims3()?);
    let shape = Geometry { queries, keys, q_len, k_len, heads, width };
    let tracked = [q, k, v].map(Tensor::track_op);
    let op = Attention::new(OP, shape, options, q, tracked)?;
    apply3(q, k, v, op)
}

/// Self-attention on a packed projection `qkv` (B, T, 3 D), whose last dimension holds queries, keys and values one
/// after the other; (B, T, D). The gradient is packed the same way, without a split or a concatenation.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn self_attention(qkv: &Tensor, heads: usize, options: &AttentionOptions) -> Result<Tensor> {
    const OP: &str = "self_attention";
    let packed = qkv.dim(D::Minus1)?;
    if qkv.rank() != 3 || packed % 3 != 0 {
        return Err(Error::Argument {
            op: OP,
            name: "qkv",
            shape: qkv.dims().to_vec(),
            expected: "(B, T, 3 D)".to_owned(),
        }
        .into());
    }
    let (batch, length, _) = qkv.dims3()?;
    let shape = Geometry {
        queries: batch,
        keys: batch,
        q_len: length,
        k_len: length,
        heads,
        width: packed / 3,
    };
    let op = Attention::new(OP, shape, options, qkv, [qkv.track_op(); 3])?;
    apply1(qkv, op)
}

fn shapes(
    op: &'static str,
    left: (&'static str, &[usize]),
    right: (&'static str, &[usize]),
    rule: &'static str,
) -> candle_core::Error {
    Error::Shape {
        op,
        left: left.0,
        left_shape: left.1.to_vec(),
        right: right.0,
        right_shape: right.1.to_vec(),
        rule,
    }
    .into()
}

/// Sizes of one attention.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Rows of queries, Bq.
    queries: usize,
    /// Rows of keys and values, Bk.
    keys: usize,
    /// Queries in a row, Tq.
    q_len: usize,
    /// Keys in a row, Tk.
    k_len: usize,
    heads: usize,
    /// Width of all heads together, D.
    width: usize,
}

impl Geometry {
    /// Width of one head.
    fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Elements of the queries, and of the output.
    fn query_elements(&self) -> usize {
        self.queries * self.q_len * self.width
    }
}

/// Attention with validated options.
struct Attention {
    op: &'static str,
    shape: Geometry,
    mask: Option<Tensor>,
    scale: Option<Tensor>,
    causal: bool,
    /// Row of keys of each query row; None: its own.
    kv_rows: Option<Arc<[u32]>>,
    precision: Precision,
    /// True for those of q, k, v that are tracked.
    tracked: [bool; 3],
    /// Log-sum-exp of each row of scores, (Bq, heads, Tq), saved by the forward pass as f64 (exact for both types).
    log_sums: OnceLock<Vec<f64>>,
    /// State saved by the forward pass on a GPU.
    #[cfg(feature = "cuda")]
    state: OnceLock<bridge::AttentionState>,
}

impl Attention {
    fn new(
        op: &'static str,
        shape: Geometry,
        options: &AttentionOptions,
        like: &Tensor,
        tracked: [bool; 3],
    ) -> Result<Self> {
        check_element(op, like)?;
        let Geometry { queries, keys, q_len, k_len, heads, width } = shape;
        if heads == 0 || width == 0 || width % heads != 0 || k_len == 0 {
            return Err(Error::Argument {
                op,
                name: "q",
                shape: vec![queries, q_len, width],
                expected: format!("a width of {heads} heads of equal size, and at least one key"),
            }
            .into());
        }
        if options.causal && q_len > k_len {
            let rule = "a causal attention needs at least as many keys as queries";
            let (q, k) = ([queries, q_len, width], [keys, k_len, width]);
            return Err(shapes(op, ("q", &q), ("k", &k), rule));
        }
        match &options.kv_rows {
            Some(rows) => {
                if rows.len() != queries {
                    let rule = "one row of keys for each row of queries";
                    let q = [queries, q_len, width];
                    return Err(shapes(op, ("kv_rows", &[rows.len()]), ("q", &q), rule));
                }
                if let Some(position) = rows.iter().position(|&row| row as usize >= keys) {
                    let (name, value) = ("kv_rows", rows[position] as usize);
                    return Err(Error::Index { op, name, position, value, limit: keys }.into());
                }
            }
            None if queries != keys => {
                let rule = "as many rows of keys as of queries, unless kv_rows says which to use";
                let (q, k) = ([queries, q_len, width], [keys, k_len, width]);
                return Err(shapes(op, ("q", &q), ("k", &k), rule));
            }
            None => {}
        }
        let per_key = |name, tensor: &Option<Tensor>| match tensor {
            Some(tensor) if tensor.dims() != [queries, k_len] => {
                let rule = "(Bq, Tk): a number for every key of every row of queries";
                let k = [keys, k_len, width];
                Err(shapes(op, (name, tensor.dims()), ("k", &k), rule))
            }
            Some(tensor) => {
                check_device(op, name, tensor, like)?;
                // On a GPU masks and scales are read as f32, whatever the queries are.
                let dtype = if like.device().is_cuda() { DType::F32 } else { like.dtype() };
                tensor.detach().to_dtype(dtype).map(Some)
            }
            None => Ok(None),
        };
        Ok(Self {
            op,
            shape,
            mask: per_key("key_mask", &options.key_mask)?,
            scale: per_key("key_scale", &options.key_scale)?,
            causal: options.causal,
            kv_rows: options.kv_rows.clone(),
            precision: options.precision,
            tracked,
            log_sums: OnceLock::new(),
            #[cfg(feature = "cuda")]
            state: OnceLock::new(),
        })
    }

    /// Row of keys of a query row.
    fn key_row(&self, query: usize) -> usize {
        match &self.kv_rows {
            Some(rows) => rows[query] as usize,
            None => query,
        }
    }

    /// Query rows of each row of keys, in order.
    fn query_rows(&self) -> Vec<Vec<usize>> {
        let mut of_key = vec![Vec::new(); self.shape.keys];
        for query in 0..self.shape.queries {
            of_key[self.key_row(query)].push(query);
        }
        of_key
    }

    /// Number of keys visible to a query.
    fn visible(&self, query: usize) -> usize {
        let Geometry { q_len, k_len, .. } = self.shape;
        if self.causal { query + 1 + k_len - q_len } else { k_len }
    }

    /// Factor and addend of the scores for every row of queries and key: (Bq, Tk) twice, each row padded to whole
    /// panels with masked keys.
    fn key_terms<T: Float>(&self) -> Result<KeyTerms<T>> {
        let Geometry { queries, k_len, .. } = self.shape;
        let base = T::from_f64((self.shape.head() as f64).powf(-0.5));
        let stride = padded(k_len);
        let mut factor = vec![T::zero(); queries * stride];
        let mut addend = vec![T::NEG_INFINITY; queries * stride];
        let rows = factor.chunks_exact_mut(stride).zip(addend.chunks_exact_mut(stride));
        for (factor, addend) in rows {
            factor[..k_len].fill(base);
            addend[..k_len].fill(T::zero());
        }
        if let Some(scale) = &self.scale {
            let (storage, layout) = scale.storage_and_layout();
            let scale = Rows::<T>::of(&storage, layout)?;
            for (row, factor) in factor.chunks_exact_mut(stride).enumerate() {
                for (factor, &scale) in factor.iter_mut().zip(scale.row(row)) {
                    *factor *= scale;
                }
            }
        }
        if let Some(mask) = &self.mask {
            let (storage, layout) = mask.storage_and_layout();
            let mask = Rows::<T>::of(&storage, layout)?;
            for (row, addend) in addend.chunks_exact_mut(stride).enumerate() {
                addend[..k_len].copy_from_slice(mask.row(row));
            }
        }
        Ok(KeyTerms { factor, addend, stride })
    }

    fn outputs<T: Float>(
        &self,
        q: &Batched<'_, T>,
        k: &Batched<'_, T>,
        v: &Batched<'_, T>,
    ) -> Result<(CpuStorage, Shape)> {
        let (out, log_sums) = forward::run(self, q, k, v)?;
        if self.tracked.contains(&true) {
            let _ = self.log_sums.set(log_sums.into_iter().map(T::to_f64).collect());
        }
        let Geometry { queries, q_len, width, .. } = self.shape;
        Ok((T::to_cpu_storage_owned(out), Shape::from((queries, q_len, width))))
    }

    /// Log-sum-exps of the rows, saved by the forward pass.
    fn log_sums<T: Float>(&self) -> Result<Vec<T>> {
        match self.log_sums.get() {
            Some(log_sums) => Ok(log_sums.iter().map(|&x| T::from_f64(x)).collect()),
            None => Err(candle_core::Error::BackwardNotSupported { op: self.op }),
        }
    }
}

/// Per-key terms of the scores: `factor * (q . k) + addend`.
struct KeyTerms<T> {
    factor: Vec<T>,
    addend: Vec<T>,
    stride: usize,
}

impl<T> KeyTerms<T> {
    fn of(&self, query_row: usize) -> (&[T], &[T]) {
        let range = query_row * self.stride..(query_row + 1) * self.stride;
        (&self.factor[range.clone()], &self.addend[range])
    }
}

/// Queries, keys and values as views of a packed projection.
fn parts<'a, T: Float>(packed: &'a Batched<'a, T>, width: usize) -> [Batched<'a, T>; 3] {
    [0, 1, 2].map(|part| Batched {
        data: packed.data.get(part * width..).unwrap_or_default().into(),
        batch_stride: packed.batch_stride,
        row_stride: packed.row_stride,
    })
}
