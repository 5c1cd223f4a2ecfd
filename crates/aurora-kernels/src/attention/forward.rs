//! The forward pass: scores, softmax and weighted sum for a block of queries at a time.

use candle_core::Result;
use rayon::prelude::*;

use super::{Attention, Geometry};
use crate::element::Real;
use crate::product::{Matrix, MatrixMut, Parallelism, multiply};
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
    let terms = attention.key_terms::<T>()?;
    let mut log_sums = vec![T::zero(); queries * heads * q_len];
    // SAFETY: each task writes all queries of one row and head, together all of the output.
    let out = unsafe {
        written(shape.query_elements(), |out| {
            let out = Shared::new(out.as_mut_ptr().cast::<T>());
            log_sums.par_chunks_mut(q_len.max(1)).enumerate().for_each_init(
                || vec![T::zero(); QUERY_BLOCK.min(q_len) * k_len],
                |scores, (task, log_sums)| {
                    let (row, column) = (task / heads, (task % heads) * head);
                    let key_row = attention.key_row(row);
                    let (factor, addend) = terms.of(row);
                    let k = k.block(key_row, (0, k_len), (column, head));
                    let v = v.block(key_row, (0, k_len), (column, head));
                    for start in (0..q_len).step_by(QUERY_BLOCK) {
                        let rows = QUERY_BLOCK.min(q_len - start);
                        let q = q.block(row, (start, rows), (column, head));
                        let scores = &mut scores[..rows * k_len];
                        let mut product = MatrixMut::dense(scores, rows, k_len);
                        multiply(&mut product, false, T::one(), q, k.t(), Parallelism::None);
                        for (i, scores) in scores.chunks_exact_mut(k_len).enumerate() {
                            let visible = attention.visible(start + i);
                            let (seen, hidden) = scores.split_at_mut(visible);
                            hidden.fill(T::zero());
                            log_sums[start + i] =
                                softmax(seen, &factor[..visible], &addend[..visible]);
                        }
                        let p = Matrix::dense(scores, rows, k_len);
                        let first = (row * q_len + start) * width + column;
                        let mut out = MatrixMut::shared(out.at(first), rows, head, width, false);
                        multiply(&mut out, false, T::one(), p, v, Parallelism::None);
                    }
                },
            );
        })
    };
    Ok((out, log_sums))
}

wide! {
    /// Turns dot products into softmax(factor * x + addend) and returns the log-sum-exp. Where
    /// every key is hidden: zeros, and plus infinity, from which the backward pass gets zeros
    /// again.
    fn softmax<T, WIDE>(x: &mut [T], factor: &[T], addend: &[T]) -> T {
        for ((x, &factor), &addend) in x.iter_mut().zip(factor).zip(addend) {
            *x = x.fma::<WIDE>(factor, addend);
        }
        let top = largest(x);
        if top == T::NEG_INFINITY {
            x.fill(T::zero());
            return T::INFINITY;
        }
        for x in x.iter_mut() {
            *x = (*x - top).exp::<WIDE>();
        }
        let sum = sum1(x, |x, sum| sum + x);
        let share = T::one() / sum;
        for x in x.iter_mut() {
            *x *= share;
        }
        top + sum.ln()
    }
}
