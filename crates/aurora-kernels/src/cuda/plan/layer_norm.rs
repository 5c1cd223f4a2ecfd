//! Launches of `kernels/norm/layer_norm.cu`.

use candle_core::Result;

use super::int;
use crate::cuda::launch::by_element;
use crate::cuda::params::LayerNormForward;
use crate::cuda::{DevicePointer, Element, Launch};

const THREADS: u32 = 128;
/// A warp takes a row.
const ROWS_OF_BLOCK: usize = THREADS as usize / 32;

/// Layer normalisation of rows.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
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
pub struct LayerNormForwardMemory {
    /// What is normalised.
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

impl LayerNorm {
    /// The forward pass; None where there is nothing to do.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn forward(&self, memory: &LayerNormForwardMemory) -> Result<Option<Launch>> {
        const OP: &str = "layer_norm";
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
        let symbol = by_element!(self.element, "layer_norm_forward");
        let grid = [self.rows.div_ceil(ROWS_OF_BLOCK), 1, 1];
        Launch::new(symbol, grid, THREADS, 0, &params).map(Some)
    }
}
