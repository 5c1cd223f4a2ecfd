//! Launches of `kernels/attention/`.

use candle_core::Result;

use crate::Error;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{
    AttentionBackward, AttentionDelta, AttentionForward, AttentionRows, AttentionScores,
};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "attention";
const WARPS: usize = 4;
const THREADS: u32 = 32 * WARPS as u32;
/// Queries, or keys, per block.
const ROWS: usize = 64;
/// Limit of the rows of queries and of keys, and of the lengths of both: a tile past the end is still an int.
const MOST: usize = 1 << 30;
/// Head sizes that there are kernels for.
const HEADS: [usize; 5] = [32, 64, 80, 96, 128];

/// Attention launch plan, of rows of queries over rows of keys and values.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPlan {
    /// Element type of q, k, v, the output and their gradients; all else is f32.
    pub element: Element,
    /// Rows of queries, Bq.
    pub queries: usize,
    /// Rows of keys and values, Bk.
    pub keys: usize,
    /// Queries in a row, Tq.
    pub q_len: usize,
    /// Keys in a row, Tk.
    pub k_len: usize,
    /// Number of heads, side by side in a row.
    pub heads: usize,
    /// Width of one head.
    pub head: usize,
    /// Causal mask: query i does not see the keys after i + Tk - Tq.
    pub causal: bool,
}

/// Rows of all heads in memory: (batch, length, heads * head), heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct HeadRows {
    /// Pointer to the first element.
    pub pointer: DevicePointer,
    /// Batch stride in elements.
    pub batch_stride: usize,
    /// Row stride in elements.
    pub row_stride: usize,
}

/// Buffers that change the scores; null where there is none.
#[derive(Debug, Clone, Copy)]
pub struct ScoreBuffers {
    /// Additive key mask, (Bq, Tk) f32.
    pub mask: DevicePointer,
    /// Factor on the scores of each key, applied before the mask, (Bq, Tk) f32.
    pub scale: DevicePointer,
    /// Row of keys of each row of queries, (Bq) u32, each checked to be below Bk.
    pub kv_rows: DevicePointer,
}

/// Buffers of the forward pass.
#[derive(Debug, Clone, Copy)]
pub struct AttentionForwardBuffers {
    /// Queries, (Bq, Tq, D).
    pub q: HeadRows,
    /// Keys, (Bk, Tk, D).
    pub k: HeadRows,
    /// Values, (Bk, Tk, D).
    pub v: HeadRows,
    /// Output, (Bq, Tq, D), written.
    pub out: HeadRows,
    /// Log-sum-exp of each row of scores, (Bq, heads, Tq) f32, written; or null.
    pub log_sums: DevicePointer,
    /// Masks and scales of the scores.
    pub scores: ScoreBuffers,
}

/// Buffers of the backward pass.
#[derive(Debug, Clone, Copy)]
pub struct AttentionBackwardBuffers {
    /// Queries, (Bq, Tq, D).
    pub q: HeadRows,
    /// Keys, (Bk, Tk, D).
    pub k: HeadRows,
    /// Values, (Bk, Tk, D).
    pub v: HeadRows,
    /// Output of the forward pass, (Bq, Tq, D).
    pub out: HeadRows,
    /// Gradient of the output, (Bq, Tq, D).
    pub dout: HeadRows,
    /// Log-sum-exps of the forward pass, (Bq, heads, Tq) f32.
    pub log_sums: DevicePointer,
    /// Workspace for rowsum(out * dout), (Bq, heads, Tq) f32.
    pub deltas: DevicePointer,
    /// Masks and scales of the scores, as in the forward pass.
    pub scores: ScoreBuffers,
    /// First list of [`queries_by_key`], (Bk + 1) u32; null where `kv_rows` is.
    pub query_offsets: DevicePointer,
    /// Second list of [`queries_by_key`], (Bq) u32; null where `kv_rows` is.
    pub query_rows: DevicePointer,
    /// Gradient of q, (Bq, Tq, D), written; None where not wanted.
    pub dq: Option<HeadRows>,
    /// Gradient of k, (Bk, Tk, D), written; None where not wanted.
    pub dk: Option<HeadRows>,
    /// Gradient of v, (Bk, Tk, D), written; None where not wanted.
    pub dv: Option<HeadRows>,
}

/// Query rows of each row of keys, in order: where those of each row of keys begin in the list (one more for the
/// end), and the list.
///
/// # Errors
/// A row of keys that is not below `keys`.
pub fn queries_by_key(kv_rows: &[u32], keys: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut offsets = vec![0u32; keys + 1];
    for (position, &row) in kv_rows.iter().enumerate() {
        if row as usize >= keys {
            let (name, value) = ("kv_rows", row as usize);
            return Err(Error::Index { op: OP, name, position, value, limit: keys }.into());
        }
        offsets[row as usize + 1] += 1;
    }
    for row in 0..keys {
        offsets[row + 1] += offsets[row];
    }
    let mut next = offsets.clone();
    let mut list = vec![0; kv_rows.len()];
    for (query, &row) in (0..).zip(kv_rows) {
        list[next[row as usize] as usize] = query;
        next[row as usize] += 1;
    }
    Ok((offsets, list))
}

impl AttentionPlan {
    /// Launch of the forward pass; None where there is nothing to do.
    ///
    /// # Errors
    /// A head size that there is no kernel for, no key at all, causal with more queries than keys,
    /// rows of keys that do not fit, sizes past what a launch can have.
    pub fn forward(&self, memory: &AttentionForwardBuffers) -> Result<Option<Launch>> {
        let size = self.check(&memory.scores)?;
        if self.queries == 0 || self.q_len == 0 {
            return Ok(None);
        }
        let params = AttentionForward {
            q: memory.q.params(),
            k: memory.k.params(),
            v: memory.v.params(),
            out: memory.out.params(),
            kv_rows: memory.scores.kv_rows.read().cast(),
            log_sums: memory.log_sums.floats(),
            scores: self.scores(&memory.scores),
        };
        let symbol = match size {
            32 => symbol_for!(self.element, "attention_forward_32"),
            64 => symbol_for!(self.element, "attention_forward_64"),
            80 => symbol_for!(self.element, "attention_forward_80"),
            96 => symbol_for!(self.element, "attention_forward_96"),
            _ => symbol_for!(self.element, "attention_forward_128"),
        };
        let grid = self.grid(self.q_len.div_ceil(ROWS), self.queries);
        Launch::new(symbol, grid, THREADS, self.shared(size, 1), &params).map(Some)
    }

    /// Launches of the backward pass, to run one after the other.
    ///
    /// # Errors
    /// As [`AttentionPlan::forward`].
    pub fn backward(&self, memory: &AttentionBackwardBuffers) -> Result<Vec<Launch>> {
        let size = self.check(&memory.scores)?;
        let AttentionBackwardBuffers { dq, dk, dv, .. } = *memory;
        let mut launches = Vec::new();
        let nowhere = HeadRows { pointer: DevicePointer::NULL, batch_stride: 0, row_stride: 0 };
        let params = AttentionBackward {
            q: memory.q.params(),
            k: memory.k.params(),
            v: memory.v.params(),
            dout: memory.dout.params(),
            dq: dq.unwrap_or(nowhere).params(),
            dk: dk.unwrap_or(nowhere).params(),
            dv: dv.unwrap_or(nowhere).params(),
            log_sums: memory.log_sums.floats(),
            deltas: memory.deltas.floats(),
            kv_rows: memory.scores.kv_rows.read().cast(),
            query_offsets: memory.query_offsets.read().cast(),
            query_rows: memory.query_rows.read().cast(),
            scores: self.scores(&memory.scores),
        };
        let shared = self.shared(size, 2);
        if self.queries > 0 && self.q_len > 0 {
            if dq.is_some() || dk.is_some() || dv.is_some() {
                launches.push(self.delta(memory)?);
            }
            if dq.is_some() {
                let symbol = match size {
                    32 => symbol_for!(self.element, "attention_backward_query_32"),
                    64 => symbol_for!(self.element, "attention_backward_query_64"),
                    80 => symbol_for!(self.element, "attention_backward_query_80"),
                    96 => symbol_for!(self.element, "attention_backward_query_96"),
                    _ => symbol_for!(self.element, "attention_backward_query_128"),
                };
                let grid = self.grid(self.q_len.div_ceil(ROWS), self.queries);
                launches.push(Launch::new(symbol, grid, THREADS, shared, &params)?);
            }
        }
        if (dk.is_some() || dv.is_some()) && self.keys > 0 {
            let symbol = match size {
                32 => symbol_for!(self.element, "attention_backward_key_32"),
                64 => symbol_for!(self.element, "attention_backward_key_64"),
                80 => symbol_for!(self.element, "attention_backward_key_80"),
                96 => symbol_for!(self.element, "attention_backward_key_96"),
                _ => symbol_for!(self.element, "attention_backward_key_128"),
            };
            let grid = self.grid(self.k_len.div_ceil(ROWS), self.keys);
            launches.push(Launch::new(symbol, grid, THREADS, shared, &params)?);
        }
        Ok(launches)
    }

    fn delta(&self, memory: &AttentionBackwardBuffers) -> Result<Launch> {
        let params = AttentionDelta {
            out: memory.out.params(),
            dout: memory.dout.params(),
            deltas: memory.deltas.floats(),
            queries: self.queries as i32,
            q_len: self.q_len as i32,
            heads: self.heads as i32,
            head: self.head as i32,
        };
        let symbol = symbol_for!(self.element, "attention_delta");
        let [vectors, ..] = self.grid(self.q_len, self.queries);
        let grid = [vectors.div_ceil(WARPS), 1, 1];
        Launch::new(symbol, grid, THREADS, 0, &params)
    }

    /// Grid for so many tiles of every head of every batch: all along x, where most fit.
    fn grid(&self, tiles: usize, batches: usize) -> [usize; 3] {
        [tiles.saturating_mul(self.heads).saturating_mul(batches), 1, 1]
    }

    /// Checks the sizes against the limits of the kernels; returns the head size of the kernel to use.
    fn check(&self, scores: &ScoreBuffers) -> Result<usize> {
        let wrong = |name, shape: Vec<usize>, expected: String| {
            Err(Error::Argument { op: OP, name, shape, expected }.into())
        };
        let Self { queries, keys, q_len, k_len, heads, head, causal, .. } = *self;
        let Some(&size) = HEADS.iter().find(|&&size| (1..=size).contains(&head)) else {
            let expected = "heads of 1 to 128 numbers on a GPU (fastest: 32, 64, 80, 96, 128)";
            return wrong("the head size", vec![head], expected.to_owned());
        };
        if heads == 0 || k_len == 0 {
            let expected = "at least one head and one key".to_owned();
            return wrong("k", vec![keys, k_len, heads * head], expected);
        }
        let sizes = [queries, keys, q_len, k_len, heads];
        if let Some(&most) = sizes.iter().find(|&&size| size > MOST) {
            return wrong("q or k", vec![most], format!("at most {MOST} of anything"));
        }
        if causal && q_len > k_len {
            let expected = "at least as many keys as queries, because it is causal".to_owned();
            return wrong("k", vec![keys, k_len, heads * head], expected);
        }
        if scores.kv_rows == DevicePointer::NULL && queries != keys {
            let expected = format!("{queries} rows, as q has, unless kv_rows says which to use");
            return wrong("k", vec![keys, k_len, heads * head], expected);
        }
        Ok(size)
    }

    fn scores(&self, memory: &ScoreBuffers) -> AttentionScores {
        AttentionScores {
            mask: memory.mask.read().cast(),
            scale: memory.scale.read().cast(),
            queries: self.queries as i32,
            keys: self.keys as i32,
            q_len: self.q_len as i32,
            k_len: self.k_len as i32,
            heads: self.heads as i32,
            head: self.head as i32,
            causal: i32::from(self.causal),
            factor: (self.head as f64).powf(-0.5) as f32,
        }
    }

    /// Dynamic shared memory in bytes: `own` tiles that a block owns, two stages of two tiles of the other side with
    /// a pair of floats a row, and for f32 a left operand of the second product.
    fn shared(&self, size: usize, own: usize) -> usize {
        let bytes = self.element.bytes();
        let walked = if bytes == 2 && size <= 64 { 64 } else { 32 };
        let row = size * bytes + 16;
        let scratch = if bytes == 4 { ROWS * (walked * 4 + 16) } else { 0 };
        scratch + (own * ROWS + 4 * walked) * row + 2 * walked * 8
    }
}

impl HeadRows {
    fn params(&self) -> AttentionRows {
        AttentionRows {
            data: self.pointer.write(),
            batch_stride: self.batch_stride as i64,
            row_stride: self.row_stride as i64,
        }
    }
}
