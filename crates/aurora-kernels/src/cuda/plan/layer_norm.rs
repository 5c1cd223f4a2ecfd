//! Launches of `kernels/norm/layer_norm.cu`.

use candle_core::Result;

use super::column_sum::{COLUMN_THREADS, RowPartition};
use super::int;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{LayerNormBackward, LayerNormForward, LayerNormParameters};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "layer_norm";
const THREADS: u32 = 128;
/// A warp takes a row.
const ROWS_OF_BLOCK: usize = THREADS as usize / 32;

/// Layer normalization of rows.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormPlan {
    /// Of all tensors but the mean and rstd, which are f32.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
    /// Distance between rows of x.
    pub x_stride: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// Where the forward pass reads and writes; see `LayerNormForward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormForwardBuffers {
    /// What is normalized.
    pub x: DevicePointer,
    /// Added to x first, or null.
    pub residual: DevicePointer,
    /// Scale.
    pub weight: DevicePointer,
    /// Shift.
    pub bias: DevicePointer,
    /// The result.
    pub y: DevicePointer,
    /// Where the sum of x and residual goes, or null.
    pub sum: DevicePointer,
    /// Where each row's mean goes, or null.
    pub mean: DevicePointer,
    /// Where one over each row's standard deviation goes, or null.
    pub rstd: DevicePointer,
}

/// Where the backward pass reads and writes; see `LayerNormBackward` and `LayerNormParameters` for
/// the shapes.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormBackwardBuffers {
    /// What was normalized: x, or the sum that the forward pass wrote.
    pub x: DevicePointer,
    /// Scale.
    pub weight: DevicePointer,
    /// Gradient of y.
    pub dy: DevicePointer,
    /// Gradient that comes to the sum by other ways, or null.
    pub dsum: DevicePointer,
    /// As the forward pass wrote it.
    pub mean: DevicePointer,
    /// Likewise.
    pub rstd: DevicePointer,
    /// Where the gradient of x and residual goes, or null.
    pub dx: DevicePointer,
    /// Where the gradient of the weight goes, or null.
    pub dweight: DevicePointer,
    /// Where the gradient of the bias goes, or null.
    pub dbias: DevicePointer,
    /// [`LayerNormPlan::workspace`] numbers of f32; null where neither of the two is wanted.
    pub workspace: DevicePointer,
}

impl LayerNormPlan {
    /// The forward pass; None where there is nothing to do.
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

    /// Numbers of f32 that the gradients of weight and bias need room for.
    pub fn workspace(&self) -> usize {
        if self.rows == 0 { 0 } else { RowPartition::of(self.rows).count * 2 * self.columns }
    }

    /// The backward pass: up to three launches, one after the other. Of an empty batch there is
    /// none, and whoever wants its gradients of weight and bias fills them with zeros.
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
