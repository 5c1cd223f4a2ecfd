//! Launches of `kernels/norm/layer_norm.cu`.

use candle_core::Result;

use super::column_sum::{COLUMN_THREADS, RowPartition};
use super::int;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{LayerNormBackward, LayerNormForward, LayerNormParameters};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "layer_norm";
const THREADS: u32 = 128;
/// Rows per block: a warp takes a row.
const ROWS_OF_BLOCK: usize = THREADS as usize / 32;

/// Layer norm launch plan over rows.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormPlan {
    /// Element type of all tensors but the mean and rstd, which are f32.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
    /// Row stride of x.
    pub x_stride: usize,
    /// Epsilon, added to the variance.
    pub eps: f32,
}

/// Buffers of the forward pass; see `LayerNormForward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormForwardBuffers {
    /// Normalized input.
    pub x: DevicePointer,
    /// Residual, added to x first, or null.
    pub residual: DevicePointer,
    /// Scale.
    pub weight: DevicePointer,
    /// Shift.
    pub bias: DevicePointer,
    /// Output.
    pub y: DevicePointer,
    /// Sum of x and residual, written, or null.
    pub sum: DevicePointer,
    /// Mean of each row, written, or null.
    pub mean: DevicePointer,
    /// Reciprocal standard deviation of each row, written, or null.
    pub rstd: DevicePointer,
}

/// Buffers of the backward pass; see `LayerNormBackward` and `LayerNormParameters` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormBackwardBuffers {
    /// Normalized input: x, or the sum that the forward pass wrote.
    pub x: DevicePointer,
    /// Scale.
    pub weight: DevicePointer,
    /// Gradient of y.
    pub dy: DevicePointer,
    /// Gradient that reaches the sum by other ways, or null.
    pub dsum: DevicePointer,
    /// Mean of each row, from the forward pass.
    pub mean: DevicePointer,
    /// Reciprocal standard deviation of each row, from the forward pass.
    pub rstd: DevicePointer,
    /// Gradient of x and residual, or null.
    pub dx: DevicePointer,
    /// Gradient of the weight, or null.
    pub dweight: DevicePointer,
    /// Gradient of the bias, or null.
    pub dbias: DevicePointer,
    /// Workspace of [`LayerNormPlan::workspace`] numbers of f32; null where neither of the two is wanted.
    pub workspace: DevicePointer,
}

impl LayerNormPlan {
    /// Launch of the forward pass; None where there is nothing to do.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn forward(&self, memory: &LayerNormForwardBuffers) -> Result<Option<Launch>> {
        if self.rows == 0 || self.columns == 0 {
            return Ok(None);
        }
        let params = LayerNormForward {
            x: memory.x.read(),
            residual: memory.residual.read(),
            weight: memory.weight.read(),
            bias: memory.bias.read(),
            y: memory.y.write(),
            sum: memory.sum.write(),
            mean: memory.mean.floats(),
            rstd: memory.rstd.floats(),
            x_stride: self.x_stride as i64,
            rows: self.rows as i64,
            columns: int(OP, "x", self.columns)?,
            eps: self.eps,
        };
        let symbol = symbol_for!(self.element, "layer_norm_forward");
        let grid = [self.rows.div_ceil(ROWS_OF_BLOCK), 1, 1];
        Launch::new(symbol, grid, THREADS, 0, &params).map(Some)
    }

    /// Number of f32 in the workspace of the gradients of weight and bias.
    pub fn workspace(&self) -> usize {
        if self.rows == 0 { 0 } else { RowPartition::of(self.rows).count * 2 * self.columns }
    }

    /// Launches of the backward pass: up to three, one after the other. None for an empty batch, where the caller
    /// fills gradients of weight and bias with zeros.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn backward(&self, memory: &LayerNormBackwardBuffers) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        if self.rows == 0 || self.columns == 0 {
            return Ok(launches);
        }
        let columns = int(OP, "x", self.columns)?;
        if memory.dx != DevicePointer::NULL {
            let params = LayerNormBackward {
                x: memory.x.read(),
                weight: memory.weight.read(),
                dy: memory.dy.read(),
                dsum: memory.dsum.read(),
                mean: memory.mean.floats(),
                rstd: memory.rstd.floats(),
                dx: memory.dx.write(),
                x_stride: self.x_stride as i64,
                rows: self.rows as i64,
                columns,
                unused: 0,
            };
            let symbol = symbol_for!(self.element, "layer_norm_backward");
            let grid = [self.rows.div_ceil(ROWS_OF_BLOCK), 1, 1];
            launches.push(Launch::new(symbol, grid, THREADS, 0, &params)?);
        }
        let vectors = [memory.dweight, memory.dbias];
        if vectors != [DevicePointer::NULL; 2] {
            let parts = RowPartition::of(self.rows);
            let params = LayerNormParameters {
                x: memory.x.read(),
                dy: memory.dy.read(),
                mean: memory.mean.floats(),
                rstd: memory.rstd.floats(),
                partial: memory.workspace.floats(),
                x_stride: self.x_stride as i64,
                rows: self.rows as i64,
                columns,
                rows_of_part: int(OP, "x", parts.rows)?,
            };
            let symbol = symbol_for!(self.element, "layer_norm_backward_parameters");
            let grid = parts.grid(self.element, self.columns);
            launches.push(Launch::new(symbol, grid, COLUMN_THREADS, 0, &params)?);
            let (element, columns) = (self.element, self.columns);
            launches.push(parts.finish(OP, element, columns, memory.workspace, vectors)?);
        }
        Ok(launches)
    }
}
