//! Partition of each epoch's order into the batches of one rank.

use super::options::{LastBatch, LoaderOptions};

/// Batch plan of an epoch. Step n of all ranks together takes the samples of the epoch's order from
/// n times `world_size * batch` on, and each rank its own `batch` of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    samples: usize,
    batch: usize,
    rank: usize,
    world_size: usize,
    last_batch: LastBatch,
}

/// Row of a batch: a position in the epoch's order, and whether it counts or is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowIndex {
    pub(super) place: usize,
    pub(super) valid: bool,
}

impl Plan {
    /// Plan of options validated for that many samples.
    pub(super) fn new(options: &LoaderOptions, samples: usize) -> Self {
        let &LoaderOptions { batch_size: batch, rank, world_size, last_batch, .. } = options;
        Self { samples, batch, rank, world_size, last_batch }
    }

    /// Samples per step over all ranks (global batch size).
    pub(super) fn together(&self) -> usize {
        self.batch * self.world_size
    }

    /// Steps per epoch, equal on every rank.
    pub(super) fn steps(&self) -> u64 {
        let steps = match self.last_batch {
            LastBatch::Drop => self.samples / self.together(),
            LastBatch::Keep | LastBatch::Pad => self.samples.div_ceil(self.together()),
        };
        steps as u64
    }

    /// Epoch of a step, and the samples of it taken before.
    pub(super) fn position(&self, step: u64) -> (u64, usize) {
        let steps = self.steps();
        (step / steps, (step % steps) as usize * self.together())
    }

    /// Rows of a step, within its epoch.
    pub(super) fn rows(&self, step: u64) -> Vec<RowIndex> {
        let first = self.position(step).1 + self.rank * self.batch;
        let all = (first..first + self.batch)
            .map(|place| RowIndex { place: place % self.samples, valid: place < self.samples });
        match self.last_batch {
            LastBatch::Keep => all.filter(|row_index| row_index.valid).collect(),
            LastBatch::Drop | LastBatch::Pad => all.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(
        samples: usize,
        batch: usize,
        (rank, world_size): (usize, usize),
        last_batch: LastBatch,
    ) -> Plan {
        Plan { samples, batch, rank, world_size, last_batch }
    }

    /// Counting positions of an epoch over all ranks, and the number of rows.
    fn epoch(
        samples: usize,
        batch: usize,
        world_size: usize,
        last_batch: LastBatch,
    ) -> (Vec<usize>, usize) {
        let (mut counting, mut rows) = (Vec::new(), 0);
        let steps = plan(samples, batch, (0, world_size), last_batch).steps();
        for rank in 0..world_size {
            let plan = plan(samples, batch, (rank, world_size), last_batch);
            assert_eq!(plan.steps(), steps);
            for step in 2 * steps..3 * steps {
                assert_eq!(plan.position(step).0, 2);
                let row_indices = plan.rows(step);
                assert!(last_batch == LastBatch::Keep || row_indices.len() == batch);
                rows += row_indices.len();
                counting.extend(
                    row_indices
                        .iter()
                        .filter(|row_index| row_index.valid)
                        .map(|row_index| row_index.place),
                );
            }
        }
        counting.sort_unstable();
        (counting, rows)
    }

    #[test]
    fn a_small_epoch_is_padded_from_its_beginning() {
        let places = |rank| -> Vec<(usize, bool)> {
            let plan = plan(5, 2, (rank, 2), LastBatch::Pad);
            (0..plan.steps()).flat_map(|s| plan.rows(s)).map(|s| (s.place, s.valid)).collect()
        };
        assert_eq!(places(0), [(0, true), (1, true), (4, true), (0, false)]);
        assert_eq!(places(1), [(2, true), (3, true), (1, false), (2, false)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every sample counts exactly once over all ranks; with the rest dropped, the first ones
        /// that fill batches do.
        #[test]
        fn no_sample_is_lost_or_doubled(samples in 1usize..300, batch in 1usize..20, world_size in 1usize..9) {
            let together = batch * world_size;
            let (counting, rows) = epoch(samples, batch, world_size, LastBatch::Pad);
            prop_assert_eq!(counting, (0..samples).collect::<Vec<_>>());
            prop_assert_eq!(rows, samples.div_ceil(together) * together);

            let (counting, rows) = epoch(samples, batch, 1, LastBatch::Keep);
            prop_assert_eq!(counting, (0..samples).collect::<Vec<_>>());
            prop_assert_eq!(rows, samples);

            if samples >= together {
                let (counting, rows) = epoch(samples, batch, world_size, LastBatch::Drop);
                prop_assert_eq!(counting, (0..samples / together * together).collect::<Vec<_>>());
                prop_assert_eq!(rows, samples / together * together);
            }
        }
    }
}
