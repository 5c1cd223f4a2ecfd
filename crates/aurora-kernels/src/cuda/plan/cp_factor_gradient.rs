//! Launches of `kernels/cp/factor_gradient.cu`.

use candle_core::Result;

use super::{at_least, int};
use crate::Error;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::CpFactorGradient;
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "cp_factor_gradient";
const THREADS: u32 = 128;
const FINISH_THREADS: u32 = 256;
const TOKENS: usize = 32;
const ROWS: usize = 64;
const RANK: usize = 64;
/// Number of blocks up to which splits are made: two for each multiprocessor of a large GPU. The number is the same
/// everywhere, so that the order of sums is too.
const BLOCKS: usize = 264;
/// Lower limit of the tokens of a split. A multiple of the depth of a tile.
const TOKENS_OF_SPLIT: usize = 256;

/// Memory layout of a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorLayout {
    /// Layout (width, rank), as U, V and LoRA's B.
    ByWidth,
    /// Layout (rank, width), as LoRA's A.
    ByRank,
}

/// Launch plan of the factor gradients of one linear layer, or of one slice of it.
#[derive(Debug, Clone, Copy)]
pub struct CpFactorGradientPlan {
    /// Element type of x and dy, z and g.
    pub element: Element,
    /// Element type of u and v: `element` or f32.
    pub factors: Element,
    /// Element type of du and dv: `element` or f32.
    pub gradients: Element,
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
    /// Row stride of dy.
    pub dy_stride: usize,
    /// Layout of u and du.
    pub u_layout: FactorLayout,
    /// Layout of v and dv.
    pub v_layout: FactorLayout,
    /// True to add to du, dv and dscale: for all sites that share factors but the first.
    pub accumulate: bool,
}

/// Buffers of the factor gradients; see `CpFactorGradient` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct FactorGradientBuffers {
    /// Input of the linear layer.
    pub x: DevicePointer,
    /// Gradient of its output.
    pub dy: DevicePointer,
    /// Input-side factor.
    pub u: DevicePointer,
    /// Output-side factor.
    pub v: DevicePointer,
    /// Output of x U.
    pub z: DevicePointer,
    /// Output of dy V.
    pub g: DevicePointer,
    /// Workspace of [`CpFactorGradientPlan::workspace`] numbers of f32.
    pub workspace: DevicePointer,
    /// Scale s of the slice, or null for ones.
    pub scale: DevicePointer,
    /// Gradient of u.
    pub du: DevicePointer,
    /// Gradient of v.
    pub dv: DevicePointer,
    /// Gradient of s, or null.
    pub dscale: DevicePointer,
}

impl CpFactorGradientPlan {
    /// Tokens of a split, and the number of splits.
    fn splits(&self) -> (usize, usize) {
        let tiles = (self.inputs.div_ceil(ROWS) + self.outputs.div_ceil(ROWS))
            * self.rank.div_ceil(RANK).max(1);
        let wanted = BLOCKS.div_ceil(tiles.max(1));
        let tokens =
            self.tokens.div_ceil(wanted).next_multiple_of(TOKENS_OF_SPLIT / 4).max(TOKENS_OF_SPLIT);
        (tokens, self.tokens.div_ceil(tokens).max(1))
    }

    /// Sizes of the workspace: numbers of the splits, and of the blocks for the scale.
    fn parts(&self) -> Result<(usize, usize)> {
        let (_, splits) = self.splits();
        let sizes = || {
            let height = self.inputs.checked_add(self.outputs)?;
            let parts = splits.checked_mul(height)?.checked_mul(self.rank)?;
            let scale = self.tokens.div_ceil(TOKENS).checked_mul(self.rank)?;
            parts.checked_add(scale)?.checked_mul(4)?;
            Some((parts, scale))
        };
        sizes().ok_or_else(|| {
            Error::Argument {
                op: OP,
                name: "the workspace",
                shape: vec![splits, self.inputs, self.outputs, self.rank],
                expected: "a size in bytes below 2^64".to_owned(),
            }
            .into()
        })
    }

    /// Number of f32 in the workspace.
    ///
    /// # Errors
    /// A size past what can be addressed.
    pub fn workspace(&self) -> Result<usize> {
        self.parts().map(|(parts, scale)| parts + scale)
    }

    /// Launches of the gradients, three, to be run in order; none where there are no factors. No tokens make
    /// gradients of zero.
    ///
    /// # Errors
    /// Types or rows that do not fit, or sizes past what a launch can have.
    pub fn launches(&self, memory: &FactorGradientBuffers) -> Result<Vec<Launch>> {
        if self.rank == 0 || (self.inputs == 0 && self.outputs == 0) {
            return Ok(Vec::new());
        }
        at_least(OP, "x_stride", self.x_stride, self.inputs)?;
        at_least(OP, "dy_stride", self.dy_stride, self.outputs)?;
        for (name, element) in [("the factors", self.factors), ("the gradients", self.gradients)] {
            if element != self.element && element != Element::F32 {
                return Err(Error::Argument {
                    op: OP,
                    name,
                    shape: Vec::new(),
                    expected: format!("elements of {} or f32", self.element.name()),
                }
                .into());
            }
        }
        let (tokens_of_split, splits) = self.splits();
        let (parts, _) = self.parts()?;
        let token_blocks = self.tokens.div_ceil(TOKENS);
        let scales = memory.workspace.offset(parts, Element::F32);
        let wants_scale = memory.dscale != DevicePointer::NULL;
        let flag = i32::from;
        let params = CpFactorGradient {
            x: memory.x.read(),
            dy: memory.dy.read(),
            u: memory.u.read(),
            v: memory.v.read(),
            z: memory.z.write(),
            g: memory.g.write(),
            parts: memory.workspace.floats(),
            scale_parts: if wants_scale { scales } else { DevicePointer::NULL }.floats(),
            scale: memory.scale.floats(),
            du: memory.du.write(),
            dv: memory.dv.write(),
            dscale: memory.dscale.floats(),
            tokens: self.tokens as i64,
            x_stride: self.x_stride as i64,
            dy_stride: self.dy_stride as i64,
            tokens_of_split: tokens_of_split as i64,
            input: int(OP, "inputs", self.inputs)?,
            output: int(OP, "outputs", self.outputs)?,
            rank: int(OP, "rank", self.rank)?,
            splits: int(OP, "splits", splits)?,
            token_blocks: int(OP, "tokens", token_blocks)?,
            u_by_rank: flag(self.u_layout == FactorLayout::ByRank),
            v_by_rank: flag(self.v_layout == FactorLayout::ByRank),
            factors_f32: flag(self.factors == Element::F32),
            gradients_f32: flag(self.gradients == Element::F32),
            accumulate: flag(self.accumulate),
        };
        let components = self.rank.div_ceil(RANK);
        let tiles = self.inputs.div_ceil(ROWS) + self.outputs.div_ceil(ROWS);
        let elements = (self.inputs + self.outputs + 1).saturating_mul(self.rank);
        let launch = |symbol, grid, threads| Launch::new(symbol, grid, threads, 0, &params);
        let mut launches = Vec::with_capacity(3);
        if self.tokens > 0 {
            let symbol = symbol_for!(self.element, "cp_factor_project");
            launches.push(launch(symbol, [token_blocks, components, 1], THREADS)?);
        }
        let symbol = symbol_for!(self.element, "cp_factor_products");
        launches.push(launch(symbol, [tiles, components, splits], THREADS)?);
        let symbol = symbol_for!(self.element, "cp_factor_finish");
        let grid = [elements.div_ceil(FINISH_THREADS as usize), 1, 1];
        launches.push(launch(symbol, grid, FINISH_THREADS)?);
        Ok(launches)
    }
}
