//! Launches of `kernels/optim/adamw.cu`.

use candle_core::Result;

use super::multi_tensor::{TensorBlocks, bytes_of};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{AdamW, AdamWTensor};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "adamw";
const THREADS: u32 = 256;

/// AdamW constants of one step for the tensors of one group, each formed in f64 and rounded once (Loshchilov and
/// Hutter 2017, arXiv:1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConstants {
    /// 1 - rate decay.
    pub shrink: f32,
    /// 1 - beta1.
    pub blend1: f32,
    /// beta2.
    pub beta2: f32,
    /// 1 - beta2.
    pub blend2: f32,
    /// sqrt(1 - beta2^t).
    pub root_correction2: f32,
    /// Added to the root.
    pub eps: f32,
    /// rate / (1 - beta1^t).
    pub step_size: f32,
}

/// Buffers of a tensor and its state; see `AdamWTensor`.
#[derive(Debug, Clone, Copy)]
pub struct AdamWBuffers {
    /// Parameter.
    pub parameter: DevicePointer,
    /// Gradient.
    pub gradient: DevicePointer,
    /// First moment: running mean of the gradient.
    pub first: DevicePointer,
    /// Second moment: running mean of its square.
    pub second: DevicePointer,
}

/// AdamW launch plan over tensors whose lengths do not change from step to step.
#[derive(Debug, Clone)]
pub struct AdamWPlan {
    element: Element,
    lengths: Vec<usize>,
    blocks: TensorBlocks,
}

impl AdamWPlan {
    /// Plan for tensors of these lengths, with gradients of an element type.
    ///
    /// # Errors
    /// More elements than a launch can have.
    pub fn new(element: Element, lengths: &[usize]) -> Result<Self> {
        let blocks = TensorBlocks::of(OP, lengths)?;
        Ok(Self { element, lengths: lengths.to_vec(), blocks })
    }

    /// Table of blocks, to be uploaded once.
    pub fn blocks(&self) -> Vec<u8> {
        self.blocks.bytes()
    }

    /// Table of tensors for one step, to be uploaded for it: where each is, and its group's constants.
    ///
    /// # Errors
    /// Another number of tensors.
    pub fn tensors(&self, tensors: &[(AdamWBuffers, AdamWConstants)]) -> Result<Vec<u8>> {
        if tensors.len() != self.lengths.len() {
            return Err(crate::Error::Argument {
                op: OP,
                name: "tensors",
                shape: vec![tensors.len()],
                expected: format!("{} tensors", self.lengths.len()),
            }
            .into());
        }
        let each = tensors.iter().zip(&self.lengths).zip(&self.blocks.first);
        let structs: Vec<AdamWTensor> = each
            .map(|(((memory, constants), &length), &first_block)| AdamWTensor {
                parameter: memory.parameter.floats(),
                gradient: memory.gradient.read(),
                first: memory.first.floats(),
                second: memory.second.floats(),
                length: length as i64,
                first_block,
                shrink: constants.shrink,
                blend1: constants.blend1,
                beta2: constants.beta2,
                blend2: constants.blend2,
                root_correction2: constants.root_correction2,
                eps: constants.eps,
                step_size: constants.step_size,
            })
            .collect();
        Ok(bytes_of(&structs))
    }

    /// Launch of one step, with the two tables in device memory; None where there is nothing to do.
    ///
    /// # Errors
    /// None that the plan's construction has not found.
    pub fn step(&self, tensors: DevicePointer, blocks: DevicePointer) -> Result<Option<Launch>> {
        if self.blocks.tensor.is_empty() {
            return Ok(None);
        }
        let params =
            AdamW { tensors: tensors.read().cast(), tensor_of_block: blocks.read().cast() };
        let grid = [self.blocks.tensor.len(), 1, 1];
        Launch::new(symbol_for!(self.element, "adamw"), grid, THREADS, 0, &params).map(Some)
    }
}
