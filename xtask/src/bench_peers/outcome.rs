//! Benchmark cases and their results.

use std::fmt;

use clap::ValueEnum;

use crate::statistics::{median, spread};

/// Benchmark: the pass that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Benchmark {
    A,
    B,
    C,
    DText,
    /// Named as in recorded results.
    #[value(name = "d_picture")]
    DImage,
}

impl Benchmark {
    /// Name on the command line of both programs.
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::DText => "d_text",
            Self::DImage => "d_picture",
        }
    }

    /// Benchmark of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|row| row.argument() == name)
    }

    /// Title in tables.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::A => "a. vision tower, every site adapted, forward and backward",
            Self::B => "b. vision tower, frozen, forward",
            Self::C => "c. retrieval step",
            Self::DText => "d. one text, 128 images",
            Self::DImage => "d. one image, 128 texts",
        }
    }

    /// Number of candidates, which replaces the batch size.
    pub(super) fn candidates(self) -> Option<usize> {
        matches!(self, Self::DText | Self::DImage).then_some(128)
    }
}

/// Benchmark case: one pass at one size, batch size, element type and checkpointing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) row: Benchmark,
    /// Image size in pixels.
    pub(super) size: usize,
    /// Batch size, or number of candidates.
    pub(super) batch: usize,
    /// Element type.
    pub(super) precision: String,
    /// Gradient checkpointing of our side.
    pub(super) checkpoint: Checkpointing,
}

/// Gradient checkpointing of our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Checkpointing {
    None,
    Block,
}

impl Case {
    /// Target ratios of time and of memory, upper bounds, where the benchmark has one; in bf16 on a processor with
    /// AMX.
    pub(super) fn targets(&self) -> [Option<f64>; 2] {
        if self.precision == "bf16" {
            return [Some(if self.row == Benchmark::A { 0.8 } else { 1.0 }), None];
        }
        match (self.row, self.checkpoint, self.size) {
            (Benchmark::A, ..) => [Some(0.85), None],
            (Benchmark::B, ..) => [Some(1.0), None],
            (Benchmark::C, Checkpointing::None, _) => [Some(0.6), Some(0.5)],
            (Benchmark::C, Checkpointing::Block, _) => [None, Some(0.3)],
            (Benchmark::DText | Benchmark::DImage, _, 384) => [Some(0.25), None],
            (Benchmark::DText | Benchmark::DImage, ..) => [None; 2],
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, size, batch, precision, checkpoint } = self;
        write!(f, "{} {size} px x {batch} {precision}", row.argument())?;
        match checkpoint {
            Checkpointing::None => Ok(()),
            Checkpointing::Block => f.write_str(", block"),
        }
    }
}

/// Seconds of one run of each side, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) ours: f64,
    pub(super) theirs: f64,
}

/// Machine and software of both sides.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Machine {
    /// Processor.
    pub(super) device: String,
    /// Versions on PyTorch's side.
    pub(super) versions: String,
}

/// Measured case. Of two values the first is ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) pairs: Vec<Pair>,
    /// Peak memory in bytes.
    pub(super) peaks: [u64; 2],
    /// Operations by formula.
    pub(super) operations: [u64; 2],
    /// GEMM throughput in operations per second, the better of both sides, around the time of the pairs.
    pub(super) ceiling: f64,
}

impl Outcome {
    /// Merges another piece of the same case: one side of a pair, which completes the last pair or begins a new one.
    pub(super) fn join(&mut self, piece: Self) {
        for Pair { ours, theirs } in piece.pairs {
            match self.pairs.last_mut() {
                Some(last) if last.theirs == 0.0 && ours == 0.0 => last.theirs = theirs,
                _ => self.pairs.push(Pair { ours, theirs }),
            }
        }
        for (all, of) in [(&mut self.peaks, piece.peaks), (&mut self.operations, piece.operations)]
        {
            for (all, of) in all.iter_mut().zip(of) {
                *all = (*all).max(of);
            }
        }
    }

    /// Median seconds of both sides.
    pub(super) fn seconds(&self) -> [f64; 2] {
        [median(self.pairs.iter().map(|p| p.ours)), median(self.pairs.iter().map(|p| p.theirs))]
    }

    /// Ratio of our time to PyTorch's, pair by pair: median, minimum, maximum. Below 1 ours is faster.
    pub(super) fn ratio(&self) -> [f64; 3] {
        spread(self.pairs.iter().map(|pair| pair.ours / pair.theirs))
    }

    /// Ratio of our peak memory to PyTorch's.
    pub(super) fn memory_ratio(&self) -> f64 {
        self.peaks[0] as f64 / self.peaks[1] as f64
    }

    /// Lower bound on our time in seconds: our operations at the ceiling.
    pub(super) fn floor(&self) -> f64 {
        self.operations[0] as f64 / self.ceiling
    }

    /// Ratio of our operations to PyTorch's: the time ratio if both met the ceiling.
    pub(super) fn floor_ratio(&self) -> f64 {
        self.operations[0] as f64 / self.operations[1] as f64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Measured case of three pairs, the second of which something disturbed.
    pub(in crate::bench_peers) fn outcome(row: Benchmark) -> Outcome {
        let pair = |ours, theirs| Pair { ours, theirs };
        Outcome {
            case: Case {
                row,
                size: 224,
                batch: 4,
                precision: "f32".to_owned(),
                checkpoint: Checkpointing::None,
            },
            pairs: vec![pair(1.0, 2.0), pair(9.0, 12.0), pair(1.0, 4.0)],
            peaks: [1 << 30, 2 << 30],
            operations: [50_000_000_000, 100_000_000_000],
            ceiling: 1e11,
        }
    }

    pub(in crate::bench_peers) fn machine() -> Machine {
        Machine { device: "a, processor".to_owned(), versions: "torch 1".to_owned() }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let outcome = outcome(Benchmark::A);
        assert_eq!(outcome.seconds(), [1.0, 4.0]);
        assert_eq!(outcome.ratio(), [0.5, 0.25, 0.75]);
        assert_eq!(outcome.memory_ratio(), 0.5);
        assert_eq!((outcome.floor(), outcome.floor_ratio()), (0.5, 0.5));
    }
}
