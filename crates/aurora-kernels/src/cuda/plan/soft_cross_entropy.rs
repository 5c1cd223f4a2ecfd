//! Launches of `kernels/loss/soft_cross_entropy.cu`.

use candle_core::Result;

use super::{int, product};
use crate::Error;
use crate::cuda::launch::symbol_for;
use crate::cuda::params::{LossMean, SoftCrossEntropyBackward, SoftCrossEntropyForward};
use crate::cuda::{DevicePointer, Element, Launch};

const OP: &str = "soft_cross_entropy";
const THREADS: u32 = 256;
/// Number of blocks that fill a large GPU a few times over.
const BLOCKS: usize = 512;
/// Lower limit of the classes of a slice: a pack of 16 bytes a thread in 16 bits.
const SHORTEST: usize = 2048;

/// Cross-entropy launch plan over rows of logits.
#[derive(Debug, Clone, Copy)]
pub struct SoftCrossEntropyPlan {
    /// Element type of logits, targets and the gradient.
    pub element: Element,
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub classes: usize,
    /// Row stride of logits.
    pub logits_stride: usize,
    /// Label smoothing: share of a label's weight that goes to all classes alike; 0 with soft targets.
    pub smoothing: f32,
}

/// Targets of the rows.
#[derive(Debug, Clone, Copy)]
pub enum CrossEntropyTargets {
    /// Soft targets: weights (rows, classes).
    Soft {
        /// Pointer to the weights.
        targets: DevicePointer,
        /// Row stride.
        stride: usize,
    },
    /// Labels, one class per row: (rows), u32, each below the number of classes.
    Labels(DevicePointer),
}

/// Buffers of the forward pass; see `SoftCrossEntropyForward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct SoftCrossEntropyForwardBuffers {
    /// Logits.
    pub logits: DevicePointer,
    /// Targets.
    pub targets: CrossEntropyTargets,
    /// Loss of each row, written.
    pub loss: DevicePointer,
    /// Log-sum-exp of each row, written.
    pub log_sum: DevicePointer,
    /// Sum of the targets of each row, written; may be null where there are labels.
    pub weight: DevicePointer,
    /// Workspace of [`SoftCrossEntropyPlan::workspace`] numbers of f32.
    pub workspace: DevicePointer,
}

/// Buffers of the backward pass; see `SoftCrossEntropyBackward` for the shapes.
#[derive(Debug, Clone, Copy)]
pub struct SoftCrossEntropyBackwardBuffers {
    /// Logits.
    pub logits: DevicePointer,
    /// Targets.
    pub targets: CrossEntropyTargets,
    /// Log-sum-exp of each row, from the forward pass.
    pub log_sum: DevicePointer,
    /// Sum of the targets of each row, from the forward pass; null where there are labels.
    pub weight: DevicePointer,
    /// Gradient of each row's loss, or of all.
    pub dloss: DevicePointer,
    /// True if `dloss` is one number, that of the mean over rows.
    pub of_mean: bool,
    /// Gradient of the logits, written.
    pub dlogits: DevicePointer,
}

impl SoftCrossEntropyPlan {
    /// Blocks of a row and classes of each: a function of the shape alone, so that sums have one order.
    fn slices(&self) -> (usize, usize) {
        let wanted = BLOCKS.div_ceil(self.rows.max(1));
        let count = wanted.min(self.classes.div_ceil(SHORTEST)).max(1);
        // Whole packs, so that slices of aligned rows are aligned.
        let length = self.classes.div_ceil(count).next_multiple_of(8);
        (self.classes.div_ceil(length).max(1), length)
    }

    /// Number of f32 in the workspace of the forward pass; none where a row is one slice.
    pub fn workspace(&self) -> usize {
        match self.slices().0 {
            1 => 0,
            slices => self.rows * slices * 4,
        }
    }

    fn targets(&self, targets: CrossEntropyTargets) -> Result<[(DevicePointer, usize); 2]> {
        let null = (DevicePointer::NULL, 0);
        match targets {
            CrossEntropyTargets::Soft { targets, stride } if self.smoothing == 0.0 => {
                Ok([(targets, stride), null])
            }
            CrossEntropyTargets::Soft { .. } => Err(Error::Argument {
                op: OP,
                name: "targets",
                shape: vec![self.rows, self.classes],
                expected: "labels, where there is smoothing".to_owned(),
            }
            .into()),
            CrossEntropyTargets::Labels(labels) => Ok([null, (labels, 0)]),
        }
    }

    /// Launches of the losses and log-sum-exps of rows: one, or two where rows are cut into slices, or none where
    /// there are no rows.
    ///
    /// # Errors
    /// Rows without classes, sizes past what a launch can have, smoothing of soft targets.
    pub fn forward(&self, memory: &SoftCrossEntropyForwardBuffers) -> Result<Vec<Launch>> {
        if self.rows == 0 {
            return Ok(Vec::new());
        }
        self.check()?;
        let (slices, slice_length) = self.slices();
        let [(targets, targets_stride), (labels, _)] = self.targets(memory.targets)?;
        let params = SoftCrossEntropyForward {
            logits: memory.logits.read(),
            targets: targets.read(),
            labels: labels.read().cast(),
            partial: memory.workspace.floats(),
            loss: memory.loss.floats(),
            log_sum: memory.log_sum.floats(),
            weight: memory.weight.floats(),
            logits_stride: self.logits_stride as i64,
            targets_stride: targets_stride as i64,
            rows: self.rows as i64,
            classes: int(OP, "logits", self.classes)?,
            slices: int(OP, "logits", slices)?,
            slice_length: int(OP, "logits", slice_length)?,
            smoothing: self.smoothing,
        };
        let symbol = symbol_for!(self.element, "soft_cross_entropy_forward");
        let grid = [product(OP, "logits", &[self.rows, slices])?, 1, 1];
        let mut launches = vec![Launch::new(symbol, grid, THREADS, 0, &params)?];
        if slices > 1 {
            let symbol = symbol_for!(self.element, "soft_cross_entropy_combine");
            let grid = [self.rows.div_ceil(THREADS as usize), 1, 1];
            launches.push(Launch::new(symbol, grid, THREADS, 0, &params)?);
        }
        Ok(launches)
    }

    /// Launch of the mean over rows of losses (rows, f32) to one f32.
    ///
    /// # Errors
    /// No rows.
    pub fn mean(&self, loss: DevicePointer, mean: DevicePointer) -> Result<Launch> {
        if self.rows == 0 {
            self.check()?;
        }
        let params = LossMean { loss: loss.floats(), mean: mean.floats(), rows: self.rows as i64 };
        Launch::new("loss_mean_f32", [1, 1, 1], THREADS, 0, &params)
    }

    /// Launch of the gradient of the logits, dense; None where there are no rows.
    ///
    /// # Errors
    /// As for the forward pass.
    pub fn backward(&self, memory: &SoftCrossEntropyBackwardBuffers) -> Result<Option<Launch>> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.check()?;
        let (slices, slice_length) = self.slices();
        let [(targets, targets_stride), (labels, _)] = self.targets(memory.targets)?;
        let (dloss_stride, scale) =
            if memory.of_mean { (0, (1.0 / self.rows as f64) as f32) } else { (1, 1.0) };
        let params = SoftCrossEntropyBackward {
            logits: memory.logits.read(),
            targets: targets.read(),
            labels: labels.read().cast(),
            log_sum: memory.log_sum.floats(),
            weight: memory.weight.floats(),
            dloss: memory.dloss.floats(),
            dlogits: memory.dlogits.write(),
            logits_stride: self.logits_stride as i64,
            targets_stride: targets_stride as i64,
            dloss_stride,
            classes: int(OP, "logits", self.classes)?,
            slices: int(OP, "logits", slices)?,
            slice_length: int(OP, "logits", slice_length)?,
            smoothing: self.smoothing,
            scale,
            unused: 0,
        };
        let symbol = symbol_for!(self.element, "soft_cross_entropy_backward");
        let grid = [product(OP, "logits", &[self.rows, slices])?, 1, 1];
        Launch::new(symbol, grid, THREADS, 0, &params).map(Some)
    }

    fn check(&self) -> Result<()> {
        if self.rows > 0 && self.classes > 0 {
            return Ok(());
        }
        Err(Error::Argument {
            op: OP,
            name: "logits",
            shape: vec![self.rows, self.classes],
            expected: "(rows, classes), at least one of each".to_owned(),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_rows_and_fill_the_grid() {
        for (rows, classes, slices) in
            [(16, 57_616, 29), (2, 57_616, 29), (640, 30_524, 1), (1, 2, 1)]
        {
            let element = Element::Bf16;
            let logits_stride = classes;
            let plan =
                SoftCrossEntropyPlan { element, rows, classes, logits_stride, smoothing: 0.0 };
            let (count, length) = plan.slices();
            assert_eq!(count, slices);
            assert!(count * length >= classes && (count - 1) * length < classes);
            assert_eq!(plan.workspace(), if count == 1 { 0 } else { rows * count * 4 });
        }
    }
}
