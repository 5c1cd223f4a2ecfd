//! Attention on a GPU: queries, keys and values read in place, packed or apart.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Result, Shape, Tensor};
use cudarc::driver::CudaSlice;

use super::memory::{Held, Operand, Work, element, gpu_storage, tensor};
use crate::cuda::DevicePointer;
use crate::cuda::plan::{
    self, AttentionBackwardBuffers, AttentionForwardBuffers, HeadRows, ScoreBuffers, queries_by_key,
};

const NULL: DevicePointer = DevicePointer::NULL;

/// Options of an attention, as the plans take them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a> {
    /// Name of the operation, for messages.
    pub(crate) op: &'static str,
    /// Rows of queries and of keys, and the lengths of both (Bq, Bk, Tq, Tk).
    pub(crate) sizes: [usize; 4],
    /// Number of heads, and the width of all together.
    pub(crate) heads: (usize, usize),
    /// Causal mask.
    pub(crate) causal: bool,
    /// Additive key mask, (Bq, Tk).
    pub(crate) mask: Option<&'a Tensor>,
    /// Factor on the scores of each key, (Bq, Tk).
    pub(crate) scale: Option<&'a Tensor>,
    /// Row of keys of each row of queries, validated.
    pub(crate) kv_rows: Option<&'a [u32]>,
}

/// State that the forward pass saves for the backward pass.
#[derive(Debug)]
pub(crate) struct AttentionState {
    log_sums: CudaSlice<f32>,
}

/// Inputs: queries, keys and values as three tensors, or as one with all three side by side.
#[derive(Clone, Copy)]
pub(crate) enum Inputs<T> {
    /// Separate q, k and v.
    Apart([T; 3]),
    /// Packed projection, (B, T, 3 D).
    Packed(T),
}

impl Options<'_> {
    fn plan(&self, dtype: DType) -> Result<plan::AttentionPlan> {
        let [queries, keys, q_len, k_len] = self.sizes;
        Ok(plan::AttentionPlan {
            element: element(self.op, dtype)?,
            queries,
            keys,
            q_len,
            k_len,
            heads: self.heads.0,
            head: self.heads.1 / self.heads.0.max(1),
            causal: self.causal,
        })
    }
}

/// Held tensor (batch, rows, columns) with dense rows.
struct Batched<'a> {
    held: Held<'a>,
    batch_stride: usize,
    row_stride: usize,
}

impl<'a> Batched<'a> {
    fn new(work: &Work, name: &'static str, operand: Operand<'a>) -> Result<Self> {
        let (_, rows, columns) = operand.1.shape().dims3()?;
        if let [batch_stride, row_stride, 1] = *operand.1.stride() {
            work.check(name, operand.0)?;
            return Ok(Self { held: work.as_it_lies(operand), batch_stride, row_stride });
        }
        let held = work.dense(name, operand)?;
        Ok(Self { held, batch_stride: rows * columns, row_stride: columns })
    }

    /// Rows of heads from the column `first` on.
    fn from(&self, work: &Work, first: usize) -> Result<HeadRows> {
        let bytes = self.held.storage().dtype().size_in_bytes();
        let start = work.pointer(&self.held)?;
        Ok(HeadRows {
            pointer: DevicePointer(start.0 + (first * bytes) as u64),
            batch_stride: self.batch_stride,
            row_stride: self.row_stride,
        })
    }
}

/// Rows of heads of a new dense storage, from the column `first` on.
fn rows_of(
    work: &Work,
    storage: &CudaStorage,
    (rows, columns): (usize, usize),
    first: usize,
) -> Result<HeadRows> {
    let bytes = storage.dtype().size_in_bytes();
    let start = work.start(storage)?;
    Ok(HeadRows {
        pointer: DevicePointer(start.0 + (first * bytes) as u64),
        batch_stride: rows * columns,
        row_stride: columns,
    })
}

/// Per-key tensor in f32 and dense.
fn per_key(tensor: Option<&Tensor>) -> Result<Option<Tensor>> {
    tensor.map(|tensor| tensor.detach().to_dtype(DType::F32)?.contiguous()).transpose()
}

/// Runs `with` on the masks and scales of the scores, which are held until it is done.
fn with_scores<R>(
    work: &Work,
    options: &Options<'_>,
    kv_rows: Option<&CudaSlice<u32>>,
    with: impl FnOnce(ScoreBuffers) -> Result<R>,
) -> Result<R> {
    let (mask, scale) = (per_key(options.mask)?, per_key(options.scale)?);
    let pointer = |name: &'static str, tensor: &Option<Tensor>| -> Result<DevicePointer> {
        let Some(tensor) = tensor else { return Ok(NULL) };
        let (read, layout) = tensor.storage_and_layout();
        let held = work.dense(name, (gpu_storage(options.op, name, &read)?, layout))?;
        work.pointer(&held)
    };
    with(ScoreBuffers {
        mask: pointer("key_mask", &mask)?,
        scale: pointer("key_scale", &scale)?,
        kv_rows: kv_rows.map_or(NULL, |rows| work.at(rows)),
    })
}

fn uploaded(work: &Work, rows: Option<&[u32]>) -> Result<Option<CudaSlice<u32>>> {
    rows.map(|rows| work.upload(rows)).transpose()
}

/// Attention forward: the outputs (Bq, Tq, D), and the state for the backward pass.
pub(crate) fn forward(
    options: &Options<'_>,
    inputs: Inputs<Operand<'_>>,
) -> Result<(CudaStorage, Shape, AttentionState)> {
    let first = match inputs {
        Inputs::Apart([q, ..]) => q,
        Inputs::Packed(packed) => packed,
    };
    let work = Work::on(options.op, &first.0.device)?;
    let plan = options.plan(first.0.dtype())?;
    let width = options.heads.1;
    let shape = Shape::from((plan.queries, plan.q_len, width));
    let out = work.uninit(&shape, first.0.dtype())?;
    let log_sums = work.floats(plan.queries * plan.heads * plan.q_len)?;
    let kv_rows = uploaded(&work, options.kv_rows)?;
    let (held, columns) = held(&work, inputs, width)?;
    let [q, k, v] = placed(&work, &held, columns)?;
    with_scores(&work, options, kv_rows.as_ref(), |scores| {
        let out = rows_of(&work, &out, (plan.q_len, width), 0)?;
        let memory = AttentionForwardBuffers { q, k, v, out, log_sums: work.at(&log_sums), scores };
        let launch = plan.forward(&memory)?;
        // SAFETY: all memory is as large as the plan's sizes, and held until here; rows of keys
        // were checked.
        unsafe { work.run(launch) }
    })?;
    Ok((out, shape, AttentionState { log_sums }))
}

/// Held input and first column of each of q, k and v.
type Columns = [(usize, usize); 3];

fn held<'a>(
    work: &Work,
    inputs: Inputs<Operand<'a>>,
    width: usize,
) -> Result<(Vec<Batched<'a>>, Columns)> {
    Ok(match inputs {
        Inputs::Apart([q, k, v]) => {
            let named = [("q", q), ("k", k), ("v", v)];
            let held = named.map(|(name, operand)| Batched::new(work, name, operand));
            (held.into_iter().collect::<Result<_>>()?, [(0, 0), (1, 0), (2, 0)])
        }
        Inputs::Packed(packed) => {
            (vec![Batched::new(work, "qkv", packed)?], [(0, 0), (0, width), (0, 2 * width)])
        }
    })
}

fn placed(work: &Work, held: &[Batched<'_>], columns: Columns) -> Result<[HeadRows; 3]> {
    let [q, k, v] = columns.map(|(which, first)| held[which].from(work, first));
    Ok([q?, k?, v?])
}

/// Attention backward: gradients of the inputs, of each of the three that is tracked, or one packed as they are.
pub(crate) fn backward(
    options: &Options<'_>,
    inputs: Inputs<&Tensor>,
    wanted: [bool; 3],
    (out, dout): (&Tensor, &Tensor),
    state: &AttentionState,
) -> Result<[Option<Tensor>; 3]> {
    let tensors = match inputs {
        Inputs::Apart(tensors) => tensors.to_vec(),
        Inputs::Packed(packed) => vec![packed],
    };
    let op = options.op;
    let reads: Vec<_> = tensors.iter().map(|tensor| tensor.storage_and_layout()).collect();
    let operands = reads
        .iter()
        .map(|(read, layout)| Ok((gpu_storage(op, "q", read)?, *layout)))
        .collect::<Result<Vec<Operand<'_>>>>()?;
    let operands = match operands.as_slice() {
        [q, k, v] => Inputs::Apart([*q, *k, *v]),
        [packed, ..] => Inputs::Packed(*packed),
        [] => return Err(candle_core::Error::BackwardNotSupported { op }),
    };
    let dtype = out.dtype();
    let device = match operands {
        Inputs::Apart([q, ..]) => &q.0.device,
        Inputs::Packed(packed) => &packed.0.device,
    };
    let work = Work::on(op, device)?;
    let plan = options.plan(dtype)?;
    let width = options.heads.1;
    let (held, columns) = held(&work, operands, width)?;
    let [q, k, v] = placed(&work, &held, columns)?;
    let ((out_read, out_layout), (dout_read, dout_layout)) =
        (out.storage_and_layout(), dout.storage_and_layout());
    let out_held = Batched::new(&work, "out", (gpu_storage(op, "out", &out_read)?, out_layout))?;
    let dout_held =
        Batched::new(&work, "dout", (gpu_storage(op, "dout", &dout_read)?, dout_layout))?;
    let gradients = Gradients::new(&work, &inputs, wanted, dtype)?;
    let [dq, dk, dv] = gradients.rows(&work, width)?;
    let deltas = work.floats(plan.queries * plan.heads * plan.q_len)?;
    let kv_rows = uploaded(&work, options.kv_rows)?;
    let lists = options.kv_rows.map(|rows| queries_by_key(rows, plan.keys)).transpose()?;
    let offsets = uploaded(&work, lists.as_ref().map(|(offsets, _)| offsets.as_slice()))?;
    let list = uploaded(&work, lists.as_ref().map(|(_, list)| list.as_slice()))?;
    let at = |slice: &Option<CudaSlice<u32>>| slice.as_ref().map_or(NULL, |slice| work.at(slice));
    with_scores(&work, options, kv_rows.as_ref(), |scores| {
        let launches = plan.backward(&AttentionBackwardBuffers {
            q,
            k,
            v,
            out: out_held.from(&work, 0)?,
            dout: dout_held.from(&work, 0)?,
            log_sums: work.at(&state.log_sums),
            deltas: work.at(&deltas),
            scores,
            query_offsets: at(&offsets),
            query_rows: at(&list),
            dq,
            dk,
            dv,
        })?;
        // SAFETY: as in the forward pass.
        unsafe { work.run(launches) }
    })?;
    Ok(gradients.tensors(&inputs))
}

/// Destination of the gradients.
enum Gradients {
    Apart([Option<(CudaStorage, usize)>; 3]), // with the rows of a batch
    Packed(CudaStorage, usize),
}

impl Gradients {
    fn new(work: &Work, inputs: &Inputs<&Tensor>, wanted: [bool; 3], dtype: DType) -> Result<Self> {
        // Zeros where there is no query: nothing is launched for such a key's gradient.
        let make = |tensor: &Tensor| -> Result<(CudaStorage, usize)> {
            Ok((work.zeros(tensor.shape(), dtype)?, tensor.dim(1)?))
        };
        Ok(match inputs {
            Inputs::Packed(packed) => {
                let (storage, rows) = make(packed)?;
                Self::Packed(storage, rows)
            }
            Inputs::Apart([q, k, v]) => {
                let each = |of: &Tensor, wanted: bool| wanted.then(|| make(of)).transpose();
                Self::Apart([each(q, wanted[0])?, each(k, wanted[1])?, each(v, wanted[2])?])
            }
        })
    }

    fn rows(&self, work: &Work, width: usize) -> Result<[Option<HeadRows>; 3]> {
        match self {
            Self::Packed(storage, rows) => {
                let at = |part: usize| rows_of(work, storage, (*rows, 3 * width), part * width);
                Ok([Some(at(0)?), Some(at(1)?), Some(at(2)?)])
            }
            Self::Apart(parts) => {
                let at = |part: &Option<(CudaStorage, usize)>| {
                    let place = |(storage, rows): &(CudaStorage, usize)| {
                        rows_of(work, storage, (*rows, width), 0)
                    };
                    part.as_ref().map(place).transpose()
                };
                Ok([at(&parts[0])?, at(&parts[1])?, at(&parts[2])?])
            }
        }
    }

    fn tensors(self, inputs: &Inputs<&Tensor>) -> [Option<Tensor>; 3] {
        match (self, inputs) {
            (Self::Packed(storage, _), Inputs::Packed(packed)) => {
                [Some(tensor(storage, packed.shape())), None, None]
            }
            (Self::Apart([dq, dk, dv]), Inputs::Apart([q, k, v])) => {
                let done = |part: Option<(CudaStorage, usize)>, of: &Tensor| {
                    part.map(|(storage, _)| tensor(storage, of.shape()))
                };
                [done(dq, q), done(dk, k), done(dv, v)]
            }
            _ => [None, None, None],
        }
    }
}
