//! Attention backward: probabilities recomputed block by block from the log-sum-exps (Dao et al. 2022,
//! arXiv:2205.14135), gradients summed per row of keys in an order that does not depend on threads.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::forward::{QUERY_BLOCK, hide};
use super::{Attention, Geometry, KeyTerms, parts};
use crate::float::Float;
use crate::gemm::{Matrix, MatrixMut};
use crate::multiversion::{multiversion, sum2};
use crate::precision::Precision;
use crate::small_gemm::{PackedRhs, padded};
use crate::view::{Batched, SendPtr, fill_uninit, tensor_from_vec};

/// Gradients of q, k and v, each in a tensor of its own.
pub(super) fn separate<T: Float>(
    attention: &Attention,
    tensors: [&Tensor; 3],
    out: &Tensor,
    dout: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let Geometry { queries, keys, q_len, k_len, width, .. } = attention.shape;
    let read = tensors.map(Tensor::storage_and_layout);
    let (out, out_layout) = out.storage_and_layout();
    let (dout, dout_layout) = dout.storage_and_layout();
    let inputs = Inputs {
        q: Batched::<T>::of(&read[0].0, read[0].1)?,
        k: Batched::of(&read[1].0, read[1].1)?,
        v: Batched::of(&read[2].0, read[2].1)?,
        out: Batched::of(&out, out_layout)?,
        dout: Batched::of(&dout, dout_layout)?,
        log_sums: attention.log_sums()?,
        terms: attention.key_terms()?,
    };
    let (q_size, k_size) = (queries * q_len * width, keys * k_len * width);
    let [wants_q, wants_k, wants_v] = attention.tracked;
    let mut buffers = [(wants_q, q_size), (wants_k, k_size), (wants_v, k_size)]
        .map(|(wanted, size)| Vec::<T>::with_capacity(if wanted { size } else { 0 }));
    {
        let [dq, dk, dv] = &mut buffers;
        let target = |wanted: bool, buffer: &mut Vec<T>, rows: usize| {
            wanted.then(|| Target {
                data: SendPtr::new(buffer.as_mut_ptr()),
                batch_stride: rows * width,
                row_stride: width,
            })
        };
        let targets =
            [target(wants_q, dq, q_len), target(wants_k, dk, k_len), target(wants_v, dv, k_len)];
        // SAFETY: the buffers have room for the whole of each gradient.
        unsafe { run(attention, &inputs, &targets) };
    }
    let [dq, dk, dv] = &mut buffers;
    for (wanted, buffer, size) in
        [(wants_q, dq, q_size), (wants_k, dk, k_size), (wants_v, dv, k_size)]
    {
        if wanted {
            // SAFETY: `run` has written all of it.
            unsafe { buffer.set_len(size) };
        }
    }
    let [dq, dk, dv] = buffers;
    let done = |wanted: bool, values: Vec<T>, of: &Tensor| {
        wanted.then(|| tensor_from_vec(values, of.dims())).transpose()
    };
    Ok([
        done(wants_q, dq, tensors[0])?,
        done(wants_k, dk, tensors[1])?,
        done(wants_v, dv, tensors[2])?,
    ])
}

/// Gradient of a packed projection, packed the same way.
pub(super) fn packed<T: Float>(
    attention: &Attention,
    qkv: &Tensor,
    out: &Tensor,
    dout: &Tensor,
) -> Result<Tensor> {
    let Geometry { q_len, width, .. } = attention.shape;
    let (storage, layout) = qkv.storage_and_layout();
    let (out, out_layout) = out.storage_and_layout();
    let (dout, dout_layout) = dout.storage_and_layout();
    let packed = Batched::<T>::of(&storage, layout)?;
    let [q, k, v] = parts(&packed, width);
    let inputs = Inputs {
        q,
        k,
        v,
        out: Batched::of(&out, out_layout)?,
        dout: Batched::of(&dout, dout_layout)?,
        log_sums: attention.log_sums()?,
        terms: attention.key_terms()?,
    };
    // SAFETY: queries, keys and values are together all columns, and `run` writes each.
    let gradient = unsafe {
        fill_uninit(qkv.elem_count(), |gradient: &mut [MaybeUninit<T>]| {
            let start: *mut T = gradient.as_mut_ptr().cast();
            let targets = [0, 1, 2].map(|part| {
                (!gradient.is_empty()).then(|| Target {
                    data: SendPtr::new(start.add(part * width)),
                    batch_stride: q_len * 3 * width,
                    row_stride: 3 * width,
                })
            });
            run(attention, &inputs, &targets);
        })
    };
    tensor_from_vec(gradient, qkv.dims())
}

/// Inputs of the backward pass.
struct Inputs<'a, T: Float> {
    q: Batched<'a, T>,
    k: Batched<'a, T>,
    v: Batched<'a, T>,
    out: Batched<'a, T>,
    dout: Batched<'a, T>,
    log_sums: Vec<T>,
    terms: KeyTerms<T>,
}

/// Destination of a gradient.
struct Target<T> {
    data: SendPtr<T>,
    batch_stride: usize,
    row_stride: usize,
}

impl<T: Float> Target<T> {
    /// Submatrix of `rows` rows from `row` on and `columns` columns from `column` on.
    ///
    /// # Safety
    /// As [`MatrixMut::shared`].
    unsafe fn block(
        &self,
        batch: usize,
        (row, rows): (usize, usize),
        (column, columns): (usize, usize),
        initialized: bool,
    ) -> MatrixMut<'_, T> {
        let first = batch * self.batch_stride + row * self.row_stride + column;
        // SAFETY: vouched for by the caller.
        unsafe {
            let data = self.data.at(first);
            MatrixMut::shared(data, rows, columns, self.row_stride, initialized)
        }
    }
}

/// Workspace of a task: probabilities and score gradients of a block of queries, transposes, and copies in whole
/// panels.
struct Workspace<T> {
    p: Vec<T>,
    ds: Vec<T>,
    k_t: PackedRhs<T>,
    k: PackedRhs<T>,
    v_t: PackedRhs<T>,
    q: PackedRhs<T>,
    g: PackedRhs<T>,
}

impl<T: Float> Workspace<T> {
    fn new(block: usize, precision: Precision) -> Self {
        let [p, ds] = [(); 2].map(|()| vec![T::zero(); block]);
        let [k_t, k, v_t, q, g] = [(); 5].map(|()| PackedRhs::new(precision));
        Self { p, ds, k_t, k, v_t, q, g }
    }
}

/// Attention backward. With p = softmax(s), s = factor (q . k) + addend, o = p v and g = do:
/// dv = p^T g; ds = p (g v^T - rowsum(g o)) factor; dq = ds k; dk = ds^T q.
///
/// A task handles one head of one row of keys: it alone writes that part of dk and dv, and dq of the query rows that
/// use those keys.
///
/// # Safety
/// The targets have room for whole gradients.
unsafe fn run<T: Float>(
    attention: &Attention,
    inputs: &Inputs<'_, T>,
    targets: &[Option<Target<T>>; 3],
) {
    let Geometry { keys, q_len, k_len, heads, .. } = attention.shape;
    let head = attention.shape.head();
    let query_rows = attention.query_rows();
    let [dq, dk, dv] = targets;
    let step = usize::from(attention.causal);
    let stride = padded(k_len);
    let block = QUERY_BLOCK.min(q_len) * stride;
    (0..keys * heads).into_par_iter().for_each_init(
        || Workspace::new(block, attention.precision),
        |Workspace { p, ds, k_t, k, v_t, q, g }, task| {
            let (key_row, h) = (task / heads, task % heads);
            let columns = (h * head, head);
            let k_block = inputs.k.block(key_row, (0, k_len), columns);
            k_t.take(k_block.t());
            k.take(k_block);
            v_t.take(inputs.v.block(key_row, (0, k_len), columns).t());
            // SAFETY: this task alone touches these columns of this row.
            let mut dk =
                dk.as_ref().map(|dk| unsafe { dk.block(key_row, (0, k_len), columns, false) });
            // SAFETY: as above.
            let mut dv =
                dv.as_ref().map(|dv| unsafe { dv.block(key_row, (0, k_len), columns, false) });
            let mut add = false;
            for &row in &query_rows[key_row] {
                let (factor, addend) = inputs.terms.of(row);
                for start in (0..q_len).step_by(QUERY_BLOCK) {
                    let rows = QUERY_BLOCK.min(q_len - start);
                    let q_block = inputs.q.block(row, (start, rows), columns);
                    let g_block = inputs.dout.block(row, (start, rows), columns);
                    let p = &mut p[..rows * stride];
                    k_t.multiply(&mut MatrixMut::dense(p, rows, stride), false, q_block);
                    let first = (row * heads + h) * q_len + start;
                    let log_sums = &inputs.log_sums[first..first + rows];
                    probabilities(p, factor, addend, attention.visible(start), step, log_sums);
                    if let Some(dv) = &mut dv {
                        let p = Matrix::new(p, rows, k_len, stride, 1);
                        g.take(g_block);
                        g.multiply(dv, add, p.t());
                    }
                    if dq.is_some() || dk.is_some() {
                        let ds = &mut ds[..rows * stride];
                        v_t.multiply(&mut MatrixMut::dense(ds, rows, stride), false, g_block);
                        let out = inputs.out.block(row, (start, rows), columns);
                        score_gradient(ds, p, factor, out, g_block);
                        let ds = Matrix::new(ds, rows, k_len, stride, 1);
                        if let Some(dq) = dq {
                            // SAFETY: this row of queries uses this row of keys alone.
                            let mut dq = unsafe { dq.block(row, (start, rows), columns, false) };
                            k.multiply(&mut dq, false, ds);
                        }
                        if let Some(dk) = &mut dk {
                            q.take(q_block);
                            q.multiply(dk, add, ds.t());
                        }
                    }
                    add = true;
                }
            }
            if !add {
                // Keys that no query uses.
                dk.iter_mut().chain(&mut dv).for_each(MatrixMut::clear);
            }
        },
    );
}

multiversion! {
    /// Probabilities in place of rows of dot products, from each row's log-sum-exp; row i sees the first
    /// `visible + i * step` keys.
    fn probabilities<T, HAS_FMA>(
        x: &mut [T], factor: &[T], addend: &[T], visible: usize, step: usize, log_sums: &[T],
    ) {
        let rows = x.chunks_exact_mut(factor.len()).zip(log_sums);
        for (i, (x, &log_sum)) in rows.enumerate() {
            for ((x, &factor), &addend) in x.iter_mut().zip(factor).zip(addend) {
                *x = (x.fma::<HAS_FMA>(factor, addend) - log_sum).exp::<HAS_FMA>();
            }
            hide(x, visible + i * step, T::zero());
        }
    }
}

multiversion! {
    /// Score gradients in place: dp = g v^T becomes ds = p (dp - g . o) factor.
    fn score_gradient<T, HAS_FMA>(
        dp: &mut [T], p: &[T], factor: &[T], out: Matrix<'_, T>, g: Matrix<'_, T>,
    ) {
        let width = factor.len();
        for (i, (dp, p)) in dp.chunks_exact_mut(width).zip(p.chunks_exact(width)).enumerate() {
            let pair = (g.dense_row(i), out.dense_row(i));
            let shift = sum2(pair.0, pair.1, |g, out, sum| g.fma::<HAS_FMA>(out, sum));
            for ((dp, &p), &factor) in dp.iter_mut().zip(p).zip(factor) {
                *dp = p * (*dp - shift) * factor;
            }
        }
    }
}
