//! Launches of `kernels/norm/gelu.cu`.

use candle_core::Result;

use super::column_sum::{COLUMN_THREADS, RowPartition, pack_blocks};
use super::{int, product};
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{GeluBackward, GeluForward};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "gelu";
const THREADS: u32 = 256;

/// GELU launch plan over rows, all dense.
#[derive(Debug, Clone, Copy)]
pub struct GeluPlan {
    /// Element type of all tensors.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
}

/// Buffers of the backward pass; see `GeluBackward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct GeluBackwardBuffers {
    /// Input of the forward pass.
    pub x: DevicePointer,
    /// Bias of the forward pass, or null.
    pub bias: DevicePointer,
    /// Gradient of y.
    pub dy: DevicePointer,
    /// Gradient of x.
    pub dx: DevicePointer,
    /// Gradient of the bias, or null.
    pub dbias: DevicePointer,
    /// Workspace of [`GeluPlan::workspace`] numbers of f32; null where no gradient of the bias is wanted.
    pub workspace: DevicePointer,
}

impl GeluPlan {
    /// Number of elements, and the length of a row where that matters.
    fn sizes(&self, rows_matter: bool) -> Result<(usize, i32)> {
        let count = product(OP, "x", &[self.rows, self.columns])?;
        let columns = if rows_matter { int(OP, "x", self.columns)? } else { 1 };
        Ok((count, columns))
    }

    /// Launch of the forward pass, on x, or on x + bias where bias is not null; None where there is nothing to do.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn forward(
        &self,
        x: DevicePointer,
        bias: DevicePointer,
        y: DevicePointer,
    ) -> Result<Option<Launch>> {
        let (count, columns) = self.sizes(bias != DevicePointer::NULL)?;
        if count == 0 {
            return Ok(None);
        }
        let params = GeluForward {
            x: x.read(),
            bias: bias.read(),
            y: y.write(),
            count: count as i64,
            columns,
            unused: 0,
        };
        let grid = [pack_blocks(self.element, count, THREADS), 1, 1];
        Launch::new(symbol_for!(self.element, "gelu_forward"), grid, THREADS, 0, &params).map(Some)
    }

    /// Number of f32 in the workspace of the bias gradient.
    pub fn workspace(&self) -> usize {
        if self.rows == 0 { 0 } else { RowPartition::of(self.rows).count * self.columns }
    }

    /// Launches of the backward pass: one, with a gradient of the bias two. None for an empty batch, where the
    /// gradient of the bias is zeros.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn backward(&self, memory: &GeluBackwardBuffers) -> Result<Vec<Launch>> {
        let null = DevicePointer::NULL;
        let wanted = memory.dbias != null;
        let (count, columns) = self.sizes(wanted || memory.bias != null)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let parts = RowPartition::of(self.rows);
        let params = GeluBackward {
            x: memory.x.read(),
            bias: memory.bias.read(),
            dy: memory.dy.read(),
            dx: memory.dx.write(),
            partial: memory.workspace.floats(),
            count: count as i64,
            columns,
            rows_of_part: if wanted { int(OP, "x", parts.rows)? } else { 0 },
        };
        let element = self.element;
        if !wanted {
            let grid = [pack_blocks(element, count, THREADS), 1, 1];
            let symbol = symbol_for!(element, "gelu_backward");
            return Ok(vec![Launch::new(symbol, grid, THREADS, 0, &params)?]);
        }
        let symbol = symbol_for!(element, "gelu_backward_columns");
        let grid = parts.grid(element, self.columns);
        Ok(vec![
            Launch::new(symbol, grid, COLUMN_THREADS, 0, &params)?,
            parts.finish(OP, element, self.columns, memory.workspace, [memory.dbias])?,
        ])
    }
}
