//! Absorbed cross-attention: key and value projections folded into queries and outputs ("weight absorption",
//! DeepSeek-V2, arXiv:2405.04434).
//!
//! With K = X W_k^T + b_k and V = X W_v^T + b_v of one head, `q K^T = (q W_k) X^T + q b_k`, whose last term is equal
//! for every key and cancels in the softmax; and `p V = (p X) W_v^T + b_v`, because probabilities sum to one. So
//! neither keys nor values need to exist. For Tk keys of width D that costs 4 H Tq Tk D operations for Tq queries of
//! H heads, plus 4 H Tq D D / H, where projecting keys and values costs 4 Tk D D: less while H Tq is below D.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::attention::softmax;
use crate::float::Float;
use crate::gemm::{Matrix, MatrixMut, gemm, gemm_by_columns};
use crate::linear::{add_assign, strided};
use crate::precision::Precision;
use crate::view::{
    Batched, Rows, SendPtr, by_element, check_element, check_like, cpu, fill_uninit,
    tensor_from_vec,
};

const OP: &str = "absorbed_attention";

/// Rows of queries per chunk: absorbed queries exist for this many at a time.
const TEXTS: usize = 32;

/// Keys and values of [`absorbed_attention`] before projection: states and projection weights.
#[derive(Debug, Clone, Copy)]
pub struct AbsorbedKv<'a> {
    /// States that keys and values are projected from, (Bk, Tk, D).
    pub states: &'a Tensor,
    /// Weight of the key projection, (width, D); its bias cancels in the softmax.
    pub key: &'a Tensor,
    /// Weight of the value projection, (width, D).
    pub value: &'a Tensor,
    /// Bias of the value projection, (width).
    pub value_bias: &'a Tensor,
    /// Row of states of each row of queries; without it row b attends to row b.
    pub rows: Option<&'a [u32]>,
    /// Precision of the matmul operands; the softmax is f32 either way.
    pub precision: Precision,
}

/// Attention of `q` (Bq, Tq, width) with `heads` heads over keys and values that are never materialized; (Bq, Tq,
/// width). Equal to [`attention`](crate::attention()) over the projected keys and values, up to rounding. CPU only,
/// without gradient.
///
/// # Errors
/// Shapes or element types that do not fit, a row of states that does not exist, a tracked argument.
pub fn absorbed_attention(q: &Tensor, of: &AbsorbedKv<'_>, heads: usize) -> Result<Tensor> {
    check_element(OP, q)?;
    let arguments = [
        ("states", of.states),
        ("key", of.key),
        ("value", of.value),
        ("value_bias", of.value_bias),
    ];
    for (name, other) in arguments {
        check_like(OP, name, other, q)?;
    }
    let ((queries, _, width), (keys, k_len, depth)) = (q.dims3()?, of.states.dims3()?);
    let fits = heads > 0
        && width % heads == 0
        && k_len > 0
        && of.key.dims() == [width, depth]
        && of.value.dims() == [width, depth]
        && of.value_bias.dims() == [width];
    if !fits {
        return Err(Error::Shape {
            op: OP,
            left: "q",
            left_shape: q.dims().to_vec(),
            right: "states",
            right_shape: of.states.dims().to_vec(),
            rule: "q is (Bq, Tq, width) in whole heads, states (Bk, Tk, D), both weights (width, D), the bias (width)",
        }
        .into());
    }
    let rows = of.rows.map_or_else(|| (0..queries as u32).collect(), <[u32]>::to_vec);
    if rows.len() != queries {
        let (name, shape) = ("rows", vec![rows.len()]);
        let expected = format!("a row of states for each of {queries} rows of queries");
        return Err(Error::Argument { op: OP, name, shape, expected }.into());
    }
    if let Some(position) = rows.iter().position(|&row| row as usize >= keys) {
        let (name, value) = ("rows", rows[position] as usize);
        return Err(Error::Index { op: OP, name, position, value, limit: keys }.into());
    }
    if arguments.iter().any(|(_, tensor)| tensor.track_op()) || q.track_op() {
        return Err(candle_core::Error::BackwardNotSupported { op: OP });
    }
    by_element!(OP, q.dtype(), T => run::<T>(q, of, &rows, heads))
}

fn run<T: Float>(q: &Tensor, of: &AbsorbedKv<'_>, rows: &[u32], heads: usize) -> Result<Tensor> {
    let ((queries, q_len, width), (_, k_len, depth)) = (q.dims3()?, of.states.dims3()?);
    let (head, precision) = (width / heads, of.precision);
    let read = [of.states, of.key, of.value, of.value_bias].map(Tensor::storage_and_layout);
    let states = Batched::<T>::of(&read[0].0, read[0].1)?;
    let key = strided::<T>(cpu(&read[1].0)?, read[1].1)?;
    let value = strided::<T>(cpu(&read[2].0)?, read[2].1)?;
    let bias = Rows::<T>::of(&read[3].0, read[3].1)?;
    let (q_storage, q_layout) = q.storage_and_layout();
    let q_rows = Rows::<T>::of(&q_storage, q_layout)?;
    let factor = vec![T::from_f64((head as f64).powf(-0.5)); k_len];
    let addend = vec![T::zero(); k_len];
    let row = heads * depth; // of a token: its heads one after the other
    let mut absorbed = vec![T::zero(); TEXTS.min(queries) * q_len * row];
    let mut seen = absorbed.clone();
    // SAFETY: each head writes its columns of all rows of a chunk, and chunks follow each other to the end.
    let out = unsafe {
        fill_uninit(queries * q_len * width, |out: &mut [MaybeUninit<T>]| {
            let out = SendPtr::new(out.as_mut_ptr().cast::<T>());
            for first in (0..queries).step_by(TEXTS) {
                let texts = TEXTS.min(queries - first);
                let tokens = texts * q_len;
                let q = q_rows.matrix().from(first * q_len, tokens);
                for h in 0..heads {
                    let of_head = key.from(h * head, head); // (head, depth)
                    let place = SendPtr::new(absorbed.as_mut_ptr()).at(h * depth);
                    let mut to = MatrixMut::shared(place, tokens, depth, row, true);
                    gemm(&mut to, false, q.t().from(h * head, head).t(), of_head, precision, None);
                }
                let each = absorbed[..tokens * row].par_chunks(q_len * row);
                let to = seen[..tokens * row].par_chunks_mut(q_len * row);
                each.zip(to).zip(&rows[first..first + texts]).for_each_init(
                    || (vec![T::zero(); q_len * heads * k_len], vec![T::zero(); q_len * heads]),
                    |(scores, log_sums), ((absorbed, seen), &text_row)| {
                        let rows = q_len * heads;
                        let x = states.block(text_row as usize, (0, k_len), (0, depth));
                        let q = Matrix::dense(absorbed, rows, depth);
                        let mut to = MatrixMut::dense(scores, rows, k_len);
                        gemm_by_columns(&mut to, q, x.t(), precision);
                        softmax(scores, &factor, &addend, k_len, 0, log_sums);
                        let p = Matrix::dense(scores, rows, k_len);
                        let mut to = MatrixMut::dense(seen, rows, depth);
                        gemm_by_columns(&mut to, p, x, precision);
                    },
                );
                for h in 0..heads {
                    let of_head = value.from(h * head, head);
                    let seen = Matrix::new(&seen[h * depth..], tokens, depth, row, 1);
                    let bias = &bias.row(0)[h * head..][..head];
                    let add = |_: usize, column: usize, y: &mut [T]| {
                        add_assign(y, &bias[column..][..y.len()])
                    };
                    let place = out.at(first * q_len * width + h * head);
                    let mut to = MatrixMut::shared(place, tokens, head, width, false);
                    gemm(&mut to, false, seen, of_head.t(), precision, Some(&add));
                }
            }
        })
    };
    tensor_from_vec(out, q.dims())
}
