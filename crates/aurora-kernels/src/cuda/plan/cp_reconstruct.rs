//! Launch of `kernels/cp/reconstruct.cu`.

use std::mem::{size_of, size_of_val};

use candle_core::Result;

use super::{at_least, int};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{CpPair, CpReconstruct, CpSlice};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "cp_reconstruct";
const THREADS: u32 = 256;
const OUTPUTS: usize = 64;
const INPUTS: usize = 128;
/// Upper limit of the slices per block; the kernel has room for the modes of as many.
const SLICES_OF_BLOCK: usize = 8;
/// Number of blocks below which a block takes fewer slices, so that a large GPU is not half empty.
const BLOCKS: usize = 512;

/// Factors that slices share: f32, dense.
#[derive(Debug, Clone, Copy)]
pub struct FactorPair {
    /// Input-side factor U (inputs, rank).
    pub u: DevicePointer,
    /// Output-side factor V (outputs, rank).
    pub v: DevicePointer,
    /// Width of the slices' inputs.
    pub inputs: usize,
    /// Width of the slices' outputs.
    pub outputs: usize,
}

/// Slice of a site.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Index of the pair of factors of its delta.
    pub pair: usize,
    /// Frozen weight, (outputs, inputs).
    pub weight: DevicePointer,
    /// Merged weight, (outputs, inputs), written.
    pub merged: DevicePointer,
    /// Mode p (rank), or with cores G (rank, rank); f32.
    pub modes: DevicePointer,
    /// Row stride of the weight.
    pub weight_stride: usize,
    /// Row stride of the merged weight.
    pub merged_stride: usize,
}

/// Launch plan of the merged weights of all slices: `W + V diag(lambda * p) U^T` (CP, arXiv:2305.08381), or `W + V
/// G^T U^T` with full cores (Tucker).
#[derive(Debug, Clone)]
pub struct CpReconstructPlan {
    /// Element type of the weights.
    pub element: Element,
    /// Number of components.
    pub rank: usize,
    /// True if slices have full cores.
    pub cores: bool,
    /// Pairs of factors.
    pub pairs: Vec<FactorPair>,
    /// Slices, in any order.
    pub slices: Vec<Slice>,
}

/// Table of slices that the launch reads besides its parameters: uploaded once, and good for as long as no pointer or
/// size in it changes.
#[derive(Debug, Clone)]
pub struct CpReconstructTable {
    /// Bytes of the table, for memory aligned to eight bytes.
    pub bytes: Vec<u8>,
    symbol: &'static str,
    rank: i32,
    pairs: i32,
    pairs_offset: u64,
    blocks: usize,
}

impl CpReconstructPlan {
    /// Table of pairs and slices; None where there is nothing to do.
    ///
    /// # Errors
    /// A slice of a pair that is not there, rows that overlap, or sizes past what a launch can have.
    pub fn table(&self) -> Result<Option<CpReconstructTable>> {
        let (mut slices, mut pairs) = (Vec::<CpSlice>::new(), Vec::<CpPair>::new());
        if let Some(slice) = self.slices.iter().find(|slice| slice.pair >= self.pairs.len()) {
            at_least(OP, "pairs", self.pairs.len(), slice.pair.saturating_add(1))?;
        }
        // Tiles of all slices decide how many slices a block takes.
        let tiles = |pair: &FactorPair| -> usize {
            pair.inputs.div_ceil(INPUTS).saturating_mul(pair.outputs.div_ceil(OUTPUTS))
        };
        let all = self.slices.iter().fold(0usize, |all, slice| {
            all.saturating_add(self.pairs.get(slice.pair).map_or(0, tiles))
        });
        let of_block = all.div_ceil(BLOCKS).clamp(1, SLICES_OF_BLOCK);
        let mut blocks = 0usize;
        for (index, pair) in self.pairs.iter().enumerate() {
            let of_pair: Vec<_> = self.slices.iter().filter(|slice| slice.pair == index).collect();
            if of_pair.is_empty() || pair.inputs == 0 || pair.outputs == 0 {
                continue;
            }
            pairs.push(CpPair {
                u: pair.u.floats(),
                v: pair.v.floats(),
                input: int(OP, "inputs", pair.inputs)?,
                output: int(OP, "outputs", pair.outputs)?,
                first_slice: int(OP, "slices", slices.len())?,
                slices: int(OP, "slices", of_pair.len())?,
                first_block: int(OP, "blocks", blocks)?,
                slices_of_block: of_block as i32,
            });
            blocks =
                tiles(pair).saturating_mul(of_pair.len().div_ceil(of_block)).saturating_add(blocks);
            for slice in of_pair {
                at_least(OP, "weight_stride", slice.weight_stride, pair.inputs)?;
                at_least(OP, "merged_stride", slice.merged_stride, pair.inputs)?;
                slices.push(CpSlice {
                    weight: slice.weight.read(),
                    merged: slice.merged.write(),
                    modes: slice.modes.floats(),
                    weight_stride: slice.weight_stride as i64,
                    merged_stride: slice.merged_stride as i64,
                });
            }
        }
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(size_of_val(&*slices) + size_of_val(&*pairs));
        bytes.extend(bytes_of(&slices));
        let pairs_offset = bytes.len() as u64;
        bytes.extend(bytes_of(&pairs));
        let symbol = if self.cores {
            symbol_for!(self.element, "cp_reconstruct_core")
        } else {
            symbol_for!(self.element, "cp_reconstruct")
        };
        Ok(Some(CpReconstructTable {
            bytes,
            symbol,
            rank: int(OP, "rank", self.rank)?,
            pairs: int(OP, "pairs", pairs.len())?,
            pairs_offset,
            blocks,
        }))
    }
}

impl CpReconstructTable {
    /// Launch of the reconstruction, with the table's bytes at `table` on the device and `lambda` (rank), f32, or
    /// null for ones; with cores lambda is ignored.
    ///
    /// # Errors
    /// More blocks than a launch can have.
    pub fn launch(&self, table: DevicePointer, lambda: DevicePointer) -> Result<Launch> {
        let pairs = DevicePointer(table.0 + self.pairs_offset);
        let params = CpReconstruct {
            slices: table.read().cast(),
            pairs: pairs.read().cast(),
            lambda: lambda.floats(),
            pair_count: self.pairs,
            rank: self.rank,
        };
        Launch::new(self.symbol, [self.blocks, 1, 1], THREADS, 0, &params)
    }
}

/// Bytes of structs, as they lie in memory.
fn bytes_of<T: Copy>(values: &[T]) -> &[u8] {
    const { assert!(size_of::<CpSlice>() == 40 && size_of::<CpPair>() == 40, "padding") };
    // SAFETY: called with the two structs above alone, which are as large as the sum of their
    // fields: every byte is initialized.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
