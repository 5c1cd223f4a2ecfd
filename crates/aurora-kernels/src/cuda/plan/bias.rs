//! Launches of `kernels/norm/bias.cu`.

use candle_core::Result;

use super::column_sum::{COLUMN_THREADS, RowPartition, pack_blocks};
use super::int;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{AddBias, ColumnSum};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "bias";
const THREADS: u32 = 256;

/// Launch plan of a bias on rows, and of sums over them.
#[derive(Debug, Clone, Copy)]
pub struct BiasPlan {
    /// Element type of all tensors.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
}

/// Buffers of a sum over rows.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSumBuffers {
    /// Summed rows, (rows, columns).
    pub x: DevicePointer,
    /// Row stride of x.
    pub x_stride: usize,
    /// Output, (columns).
    pub sum: DevicePointer,
    /// Workspace of [`BiasPlan::workspace`] numbers of f32.
    pub workspace: DevicePointer,
}

impl BiasPlan {
    /// Launch of the bias addition y (rows, columns), dense, += bias (columns); None where there is nothing to do.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn add(&self, y: DevicePointer, bias: DevicePointer) -> Result<Option<Launch>> {
        if self.rows == 0 || self.columns == 0 {
            return Ok(None);
        }
        let count = super::product(OP, "y", &[self.rows, self.columns])?;
        let params = AddBias {
            y: y.write(),
            bias: bias.read(),
            count: count as i64,
            columns: int(OP, "y", self.columns)?,
            unused: 0,
        };
        let grid = [pack_blocks(self.element, count, THREADS), 1, 1];
        Launch::new(symbol_for!(self.element, "add_bias"), grid, THREADS, 0, &params).map(Some)
    }

    /// Number of f32 in the workspace of a sum over rows.
    pub fn workspace(&self) -> usize {
        if self.rows == 0 { 0 } else { RowPartition::of(self.rows).count * self.columns }
    }

    /// Launches of the sum over rows, a bias's gradient: two, or none for an empty batch, whose sums are zeros.
    ///
    /// # Errors
    /// Sizes past what a launch can have.
    pub fn column_sum(&self, memory: &ColumnSumBuffers) -> Result<Vec<Launch>> {
        if self.rows == 0 || self.columns == 0 {
            return Ok(Vec::new());
        }
        let parts = RowPartition::of(self.rows);
        let params = ColumnSum {
            x: memory.x.read(),
            partial: memory.workspace.floats(),
            x_stride: memory.x_stride as i64,
            rows: self.rows as i64,
            columns: int(OP, "x", self.columns)?,
            rows_of_part: int(OP, "x", parts.rows)?,
        };
        let (element, columns) = (self.element, self.columns);
        let symbol = symbol_for!(element, "column_sum");
        let grid = parts.grid(element, columns);
        Ok(vec![
            Launch::new(symbol, grid, COLUMN_THREADS, 0, &params)?,
            parts.finish(OP, element, columns, memory.workspace, [memory.sum])?,
        ])
    }
}
