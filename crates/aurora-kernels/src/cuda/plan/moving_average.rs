//! Launches of `kernels/optim/moving_average.cu`.

use candle_core::Result;

use super::multi_tensor::{TensorBlocks, bytes_of};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{AveragedTensor, MovingAverage};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "moving_average";
const THREADS: u32 = 256;

/// Buffers of an average and of the tensor that it follows; see `AveragedTensor`.
#[derive(Debug, Clone, Copy)]
pub struct AveragedBuffers {
    /// Average, f32.
    pub average: DevicePointer,
    /// Live tensor.
    pub live: DevicePointer,
}

/// Launch plan of exponential moving averages of tensors that stay where they are.
#[derive(Debug, Clone)]
pub struct MovingAveragePlan {
    element: Element,
    tensors: Vec<AveragedTensor>,
    blocks: TensorBlocks,
}

// SAFETY: the pointers in the tensors are addresses on a machine, which nothing here follows.
unsafe impl Send for MovingAveragePlan {}
// SAFETY: likewise.
unsafe impl Sync for MovingAveragePlan {}

impl MovingAveragePlan {
    /// Plan for tensors with their lengths; `element` is that of the live ones.
    ///
    /// # Errors
    /// More elements than a launch can have.
    pub fn new(element: Element, tensors: &[(AveragedBuffers, usize)]) -> Result<Self> {
        let lengths: Vec<usize> = tensors.iter().map(|&(_, length)| length).collect();
        let blocks = TensorBlocks::of(OP, &lengths)?;
        let tensors = tensors
            .iter()
            .zip(&blocks.first)
            .map(|(&(memory, length), &first_block)| AveragedTensor {
                average: memory.average.floats(),
                live: memory.live.read(),
                length: length as i64,
                first_block,
                unused: 0,
            })
            .collect();
        Ok(Self { element, tensors, blocks })
    }

    /// Table of blocks, to be uploaded once.
    pub fn blocks(&self) -> Vec<u8> {
        self.blocks.bytes()
    }

    /// Table of tensors, to be uploaded once.
    pub fn tensors(&self) -> Vec<u8> {
        bytes_of(&self.tensors)
    }

    /// Launch of one step, with the two tables in device memory; None where there is nothing to do.
    ///
    /// # Errors
    /// None that the plan's construction has not found.
    pub fn step(
        &self,
        tensors: DevicePointer,
        blocks: DevicePointer,
        decay: f64,
    ) -> Result<Option<Launch>> {
        if self.blocks.tensor.is_empty() {
            return Ok(None);
        }
        let params = MovingAverage {
            tensors: tensors.read().cast(),
            tensor_of_block: blocks.read().cast(),
            decay: decay as f32,
            rest: (1.0 - decay) as f32,
        };
        let grid = [self.blocks.tensor.len(), 1, 1];
        Launch::new(symbol_for!(self.element, "moving_average"), grid, THREADS, 0, &params)
            .map(Some)
    }
}
