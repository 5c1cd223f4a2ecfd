//! Shuffling: the order of an epoch's samples.

use aurora_kernels::random::Stream;
use serde::{Deserialize, Serialize};

/// Order of an epoch's samples. It is computed as a whole at the start of the epoch, from the seed
/// and the epoch's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// Dataset order, the same in every epoch.
    Sequential,
    /// Uniformly random permutation. For images in memory, or on storage with fast random access.
    #[default]
    Full,
    /// Shuffle buffer of so many samples over the shards in random order. Shards are read nearly
    /// sequentially; for good mixing the buffer should hold several of them.
    Buffer(usize),
}

impl Shuffle {
    /// Order of one epoch; `runs` are the numbers of consecutive samples of each shard.
    pub(super) fn epoch_order(self, runs: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
        let count = runs.iter().sum();
        let mut stream = Stream::new(seed, "order", epoch, 0);
        match self {
            Self::Sequential => (0..count).collect(),
            Self::Full => {
                let mut order: Vec<usize> = (0..count).collect();
                stream.shuffle(&mut order);
                order
            }
            Self::Buffer(buffer) => drawn(shard_by_shard(runs, &mut stream), buffer, &mut stream),
        }
    }
}

/// All samples, the runs in random order.
fn shard_by_shard(runs: &[usize], stream: &mut Stream) -> Vec<usize> {
    let starts = runs.iter().scan(0, |next, &length| {
        let start = *next;
        *next += length;
        Some(start..start + length)
    });
    let mut runs: Vec<_> = starts.collect();
    stream.shuffle(&mut runs);
    runs.into_iter().flatten().collect()
}

/// Draws from a shuffle buffer over `samples` until it is empty.
fn drawn(samples: Vec<usize>, buffer: usize, stream: &mut Stream) -> Vec<usize> {
    let mut out = Vec::with_capacity(samples.len());
    let mut rest = samples.into_iter();
    let mut open: Vec<usize> = rest.by_ref().take(buffer.max(1)).collect();
    while !open.is_empty() {
        let chosen = stream.below(open.len());
        out.push(open.swap_remove(chosen));
        open.extend(rest.next());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_have_names() {
        let json = |order: Shuffle| serde_json::to_string(&order).unwrap();
        assert_eq!(json(Shuffle::Full), "\"full\"");
        assert_eq!(json(Shuffle::Buffer(64)), "{\"buffer\":64}");
        assert_eq!(serde_json::from_str::<Shuffle>("\"sequential\"").unwrap(), Shuffle::Sequential);
    }

    #[test]
    fn a_window_of_one_keeps_shards_whole_and_mixes_their_order() {
        let orders: std::collections::BTreeSet<Vec<usize>> =
            (0..64).map(|epoch| Shuffle::Buffer(1).epoch_order(&[2, 1, 2], 5, epoch)).collect();
        let all = [
            [0, 1, 2, 3, 4],
            [0, 1, 3, 4, 2],
            [2, 0, 1, 3, 4],
            [2, 3, 4, 0, 1],
            [3, 4, 0, 1, 2],
            [3, 4, 2, 0, 1],
        ];
        assert_eq!(orders, all.map(Vec::from).into());
    }

    /// With one shard and a buffer that holds it, all orders are about equally frequent.
    #[test]
    fn a_window_over_everything_is_fair() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(Shuffle::Buffer(3).epoch_order(&[3], 1, epoch)).or_insert(0) += 1;
        }
        // 1,000 each, with a standard deviation of 29.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (880..1120).contains(n)), "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every order is a permutation, a function of seed and epoch, and differs between epochs
        /// unless it is sequential.
        #[test]
        fn an_order_is_a_permutation(
            runs in proptest::collection::vec(0usize..40, 0..12), buffer in 1usize..60,
            seed: u64, epoch: u64,
        ) {
            let count: usize = runs.iter().sum();
            for order in [Shuffle::Sequential, Shuffle::Full, Shuffle::Buffer(buffer)] {
                let once = order.epoch_order(&runs, seed, epoch);
                prop_assert_eq!(&once, &order.epoch_order(&runs, seed, epoch));
                let mut sorted = once.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..count).collect::<Vec<_>>());
                let next = order.epoch_order(&runs, seed, epoch.wrapping_add(1));
                if order == Shuffle::Full && count > 30 {
                    prop_assert_ne!(&once, &next);
                }
            }
        }

        /// After k draws, a buffer of n has touched at most the first k + n samples of the shards'
        /// order, and no more shards at a time than n samples can span.
        #[test]
        fn a_window_reads_near_its_place(
            runs in proptest::collection::vec(1usize..40, 1..12), buffer in 1usize..60, seed: u64,
        ) {
            let stream = &mut Stream::new(seed, "order", 3, 0);
            let read = shard_by_shard(&runs, stream);
            let mut place = vec![0; read.len()];
            for (at, &sample) in read.iter().enumerate() {
                place[sample] = at;
            }
            for (at, sample) in Shuffle::Buffer(buffer).epoch_order(&runs, seed, 3).into_iter().enumerate() {
                prop_assert!(place[sample] < at + buffer, "{} is drawn at {at}", place[sample]);
            }
            // Each run is contiguous in the shards' order.
            let mut starts = vec![0];
            starts.extend(runs.iter().scan(0, |end, run| { *end += run; Some(*end) }));
            for pair in starts.windows(2) {
                for sample in pair[0] + 1..pair[1] {
                    prop_assert_eq!(place[sample], place[sample - 1] + 1);
                }
            }
        }
    }
}
