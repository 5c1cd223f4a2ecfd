//! Launch of `kernels/cp/apply.cu`.

use candle_core::Result;

use super::{at_least, int};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::CpApply;
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "cp_apply";
const THREADS: u32 = 128;
const TOKENS: usize = 32;
const OUTPUTS: usize = 64;
const RANK: usize = 64;
/// Number of blocks below which blocks take fewer outputs each.
const BLOCKS: usize = 256;

/// Launch plan of the low-rank delta for few tokens, `y += (x A^T) B^T`.
#[derive(Debug, Clone, Copy)]
pub struct CpApplyPlan {
    /// Element type of all tensors.
    pub element: Element,
    /// Number of tokens.
    pub tokens: usize,
    /// Width of the linear layer's input.
    pub inputs: usize,
    /// Width of the linear layer's output.
    pub outputs: usize,
    /// Number of components.
    pub rank: usize,
    /// Row stride of x.
    pub x_stride: usize,
    /// Row stride of y.
    pub y_stride: usize,
}

/// Buffers of the low-rank delta.
#[derive(Debug, Clone, Copy)]
pub struct ApplyBuffers {
    /// Inputs, (tokens, inputs).
    pub x: DevicePointer,
    /// Input-side factor, (rank, inputs), dense.
    pub a: DevicePointer,
    /// Output-side factor, (outputs, rank), dense.
    pub b: DevicePointer,
    /// Outputs, (tokens, outputs); added to.
    pub y: DevicePointer,
}

impl CpApplyPlan {
    /// Launch of the delta; None where there is nothing to add.
    ///
    /// # Errors
    /// Rows that overlap, or sizes past what a launch can have.
    pub fn launch(&self, memory: &ApplyBuffers) -> Result<Option<Launch>> {
        if [self.tokens, self.inputs, self.outputs, self.rank].contains(&0) {
            return Ok(None);
        }
        at_least(OP, "x_stride", self.x_stride, self.inputs)?;
        at_least(OP, "y_stride", self.y_stride, self.outputs)?;
        let down = self.tokens.div_ceil(TOKENS);
        let tiles = self.outputs.div_ceil(OUTPUTS);
        // Beyond RANK a block forms z for every tile of outputs, so nothing is gained by more tiles.
        let across = if self.rank > RANK { tiles } else { tiles.min(BLOCKS.div_ceil(down)) };
        let outputs_of_block = tiles.div_ceil(across) * OUTPUTS;
        let params = CpApply {
            x: memory.x.read(),
            a: memory.a.read(),
            b: memory.b.read(),
            y: memory.y.write(),
            tokens: self.tokens as i64,
            x_stride: self.x_stride as i64,
            y_stride: self.y_stride as i64,
            input: int(OP, "inputs", self.inputs)?,
            output: int(OP, "outputs", self.outputs)?,
            rank: int(OP, "rank", self.rank)?,
            outputs_of_block: int(OP, "outputs", outputs_of_block)?,
        };
        let grid = [down, self.outputs.div_ceil(outputs_of_block), 1];
        Launch::new(symbol_for!(self.element, "cp_apply"), grid, THREADS, 0, &params).map(Some)
    }
}
