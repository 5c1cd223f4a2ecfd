//! Partition of column sums into parts; see `kernels/include/column_sum.cuh`.

use candle_core::Result;

use super::int;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::ColumnSumFinish;
use crate::cuda::{DevicePointer, Element, Launch};

/// Threads per block of kernels that add up columns.
pub(crate) const COLUMN_THREADS: u32 = 256;
/// Columns per block of the last step.
const FINISH_COLUMNS: usize = 32;
/// Upper limit of the parts, so that the last step stays short.
const MOST_PARTS: usize = 256;
/// Lower limit of the rows of a part: with fewer, the partial sums weigh more than what is added up.
const FEWEST_ROWS: usize = 16;

/// Partition of rows into parts: a function of their number alone, so that sums have one order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowPartition {
    /// Number of parts.
    pub(crate) count: usize,
    /// Rows of each part but the last.
    pub(crate) rows: usize,
}

impl RowPartition {
    /// Partition of `rows` rows, at least one.
    pub(crate) fn of(rows: usize) -> Self {
        let each = rows.div_ceil(MOST_PARTS).next_multiple_of(8).max(FEWEST_ROWS);
        Self { count: rows.div_ceil(each), rows: each }
    }

    /// Grid of the first step.
    pub(crate) fn grid(self, element: Element, columns: usize) -> [usize; 3] {
        [columns.div_ceil(32 * 16 / element.bytes()), self.count, 1]
    }

    /// Grid of a last step.
    pub(crate) fn finish_grid(columns: usize) -> [usize; 3] {
        [columns.div_ceil(FINISH_COLUMNS), 1, 1]
    }

    /// Launch of `column_sum_finish` over `partial` (parts, 1 or 2, columns).
    pub(crate) fn finish<const SUMS: usize>(
        self,
        op: &'static str,
        element: Element,
        columns: usize,
        partial: DevicePointer,
        out: [DevicePointer; SUMS],
    ) -> Result<Launch> {
        const { assert!(SUMS == 1 || SUMS == 2) };
        let mut all = [DevicePointer::NULL; 2];
        all[..SUMS].copy_from_slice(&out);
        let params = ColumnSumFinish {
            partial: partial.floats(),
            out: all.map(DevicePointer::write),
            parts: int(op, "parts", self.count)?,
            sums: SUMS as i32,
            columns: int(op, "columns", columns)?,
            unused: 0,
        };
        let symbol = symbol_for!(element, "column_sum_finish");
        Launch::new(symbol, Self::finish_grid(columns), COLUMN_THREADS, 0, &params)
    }
}

/// Blocks for contiguous elements, with sixteen bytes of them per thread.
pub(crate) fn pack_blocks(element: Element, count: usize, threads: u32) -> usize {
    count.div_ceil(threads as usize * 16 / element.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_and_stay_few() {
        for rows in [1, 15, 16, 17, 560, 4096, 4097, 9232, 1_000_003] {
            let parts = RowPartition::of(rows);
            assert!(parts.count <= MOST_PARTS, "{rows}");
            assert!(parts.count * parts.rows >= rows && (parts.count - 1) * parts.rows < rows);
        }
    }
}
