//! The forward pass: scores, softmax and weighted sum for a block of queries at a time.

use candle_core::Result;
use rayon::prelude::*;

use super::{Attention, Geometry};
use crate::element::Real;
use crate::product::{Matrix, MatrixMut};
use crate::small::{in_panels, multiply, padded, transposed};
use crate::view::{Batched, Shared, written};
use crate::wide::{largest, sum1, wide};

/// Queries whose scores exist at the same time in one task.
pub(super) const QUERY_BLOCK: usize = 64;

/// The output (Bq, Tq, D) and the log-sum-exp of each row of scores (Bq, heads, Tq).
pub(super) fn run<T: Real>(
    attention: &Attention,
    q: &Batched<'_, T>,
    k: &Batched<'_, T>,
    v: &Batched<'_, T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let shape = attention.shape;
    let Geometry { queries, q_len, k_len, heads, width, .. } = shape;
    let head = shape.head();
    let stride = padded(k_len);
    let terms = attention.key_terms::<T>()?;
    let step = usize::from(attention.causal);
    let mut log_sums = vec![T::zero(); queries * heads * q_len];
    // SAFETY: each task writes all queries of one row and head, together all of the output.
    let out = unsafe {
        written(shape.query_elements(), |out| {
            let out = Shared::new(out.as_mut_ptr().cast::<T>());
            log_sums.par_chunks_mut(q_len.max(1)).enumerate().for_each_init(
                || (vec![T::zero(); QUERY_BLOCK.min(q_len) * stride], Vec::new(), Vec::new()),
                |(scores, k_room, v_room), (task, log_sums)| {
                    let (row, column) = (task / heads, (task % heads) * head);
                    let key_row = attention.key_row(row);
                    let (factor, addend) = terms.of(row);
                    let k_t = transposed(k.block(key_row, (0, k_len), (column, head)), k_room);
                    let v = in_panels(v.block(key_row, (0, k_len), (column, head)), v_room);
                    for start in (0..q_len).step_by(QUERY_BLOCK) {
                        let rows = QUERY_BLOCK.min(q_len - start);
                        let q = q.block(row, (start, rows), (column, head));
                        let scores = &mut scores[..rows * stride];
                        multiply(&mut MatrixMut::dense(scores, rows, stride), false, q, k_t);
                        let log_sums = &mut log_sums[start..start + rows];
                        softmax(scores, factor, addend, attention.visible(start), step, log_sums);
                        let p = Matrix::new(scores, rows, k_len, stride, 1);
                        let first = (row * q_len + start) * width + column;
                        let mut out = MatrixMut::shared(out.at(first), rows, head, width, false);
                        multiply(&mut out, false, p, v);
                    }
                },
            );
        })
    };
    Ok((out, log_sums))
}

wide! {
    /// Turns rows of dot products into softmax(factor * x + addend) and writes each one's
    /// log-sum-exp. Row i sees the first `visible + i * step` keys. Where every key is hidden:
    /// zeros, and plus infinity, from which the backward pass gets zeros again.
    fn softmax<T, WIDE>(
        x: &mut [T], factor: &[T], addend: &[T], visible: usize, step: usize, log_sums: &mut [T],
    ) {
        let rows = x.chunks_exact_mut(factor.len()).zip(log_sums);
        for (i, (x, log_sum)) in rows.enumerate() {
            for ((x, &factor), &addend) in x.iter_mut().zip(factor).zip(addend) {
                *x = x.fma::<WIDE>(factor, addend);
            }
            hide(x, visible + i * step, T::NEG_INFINITY);
            let top = largest(x);
            if top == T::NEG_INFINITY {
                x.fill(T::zero());
                *log_sum = T::INFINITY;
                continue;
            }
            for x in x.iter_mut() {
                *x = (*x - top).exp::<WIDE>();
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

/// Puts `value` in place of everything from `visible` on.
#[inline(always)]
pub(super) fn hide<T: Real>(row: &mut [T], visible: usize, value: T) {
    if visible < row.len() {
        row[visible..].fill(value);
    }
}
