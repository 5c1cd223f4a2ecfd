//! Attention forward: scores, softmax and weighted sum, one block of queries at a time.

use candle_core::Result;
use rayon::prelude::*;

use super::{Attention, Geometry};
use crate::float::Float;
use crate::gemm::{Matrix, MatrixMut};
use crate::multiversion::{largest, multiversion, sum1};
use crate::precision::Precision;
use crate::small_gemm::{PackedRhs, padded};
use crate::view::{Batched, SendPtr, fill_uninit};

/// Queries per block: scores of one block exist at a time in a task.
pub(super) const QUERY_BLOCK: usize = 64;

/// Output (Bq, Tq, D) and log-sum-exp of each row of scores (Bq, heads, Tq).
pub(super) fn run<T: Float>(
    attention: &Attention,
    q: &Batched<'_, T>,
    k: &Batched<'_, T>,
    values: &Batched<'_, T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let shape = attention.shape;
    let Geometry { queries, q_len, k_len, heads, width, .. } = shape;
    let head = shape.head();
    let stride = padded(k_len);
    let terms = attention.key_terms::<T>()?;
    let step = usize::from(attention.causal);
    // Ordered by row of keys, so that a task often finds them transposed by the one before.
    let tasks: Vec<(usize, usize)> = attention
        .query_rows()
        .iter()
        .flat_map(|rows| (0..heads).flat_map(move |h| rows.iter().map(move |&row| (row, h))))
        .collect();
    let mut log_sums = vec![T::zero(); queries * heads * q_len];
    let shared_sums = SendPtr::new(log_sums.as_mut_ptr());
    // SAFETY: each task writes all queries of one row and head, together all of the output and
    // of the log-sum-exps.
    let out = unsafe {
        fill_uninit(shape.query_elements(), |out| {
            let out = SendPtr::new(out.as_mut_ptr().cast::<T>());
            tasks.par_iter().for_each_init(
                || Workspace::new(QUERY_BLOCK.min(q_len) * stride, attention.precision),
                |Workspace { scores, k_t, v, holds }, &(row, h)| {
                    let key_row = attention.key_row(row);
                    let columns = (h * head, head);
                    if *holds != Some((key_row, h)) {
                        k_t.take(k.block(key_row, (0, k_len), columns).t());
                        v.take(values.block(key_row, (0, k_len), columns));
                        *holds = Some((key_row, h));
                    }
                    let (factor, addend) = terms.of(row);
                    for start in (0..q_len).step_by(QUERY_BLOCK) {
                        let rows = QUERY_BLOCK.min(q_len - start);
                        let q = q.block(row, (start, rows), columns);
                        let scores = &mut scores[..rows * stride];
                        k_t.multiply(&mut MatrixMut::dense(scores, rows, stride), false, q);
                        let first = (row * heads + h) * q_len + start;
                        let sums = std::slice::from_raw_parts_mut(shared_sums.at(first), rows);
                        softmax(scores, factor, addend, attention.visible(start), step, sums);
                        let p = Matrix::new(scores, rows, k_len, stride, 1);
                        let first = (row * q_len + start) * width + columns.0;
                        let mut out = MatrixMut::shared(out.at(first), rows, head, width, false);
                        v.multiply(&mut out, false, p);
                    }
                },
            );
        })
    };
    Ok((out, log_sums))
}

/// Workspace of a task: scores of a block of queries, and the packed keys and values of one head.
struct Workspace<T> {
    scores: Vec<T>,
    k_t: PackedRhs<T>,
    v: PackedRhs<T>,
    /// Row of keys and head held in `k_t` and `v`.
    holds: Option<(usize, usize)>,
}

impl<T: Float> Workspace<T> {
    fn new(block: usize, precision: Precision) -> Self {
        let right = || PackedRhs::new(precision);
        Self { scores: vec![T::zero(); block], k_t: right(), v: right(), holds: None }
    }
}

multiversion! {
    /// Softmax of `factor * x + addend` in place, over rows of dot products x, and each row's log-sum-exp. Row i sees
    /// the first `visible + i * step` keys. A row without visible keys gets zeros and a log-sum-exp of plus infinity,
    /// which gives zeros again in the backward pass.
    fn softmax<T, HAS_FMA>(
        x: &mut [T], factor: &[T], addend: &[T], visible: usize, step: usize, log_sums: &mut [T],
    ) {
        let rows = x.chunks_exact_mut(factor.len()).zip(log_sums);
        for (i, (x, log_sum)) in rows.enumerate() {
            for ((x, &factor), &addend) in x.iter_mut().zip(factor).zip(addend) {
                *x = x.fma::<HAS_FMA>(factor, addend);
            }
            hide(x, visible + i * step, T::NEG_INFINITY);
            let top = largest(x);
            if top == T::NEG_INFINITY {
                x.fill(T::zero());
                *log_sum = T::INFINITY;
                continue;
            }
            for x in x.iter_mut() {
                *x = (*x - top).exp::<HAS_FMA>();
            }
            let sum = sum1(x, |x, sum| sum + x);
            let share = T::one() / sum;
            for x in x.iter_mut() {
                *x *= share;
            }
            *log_sum = top + sum.ln();
        }
    }
}

/// Overwrites all elements from `visible` on with `value`.
#[inline(always)]
pub(super) fn hide<T: Float>(row: &mut [T], visible: usize, value: T) {
    if visible < row.len() {
        row[visible..].fill(value);
    }
}
