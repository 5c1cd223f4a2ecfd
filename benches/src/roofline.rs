//! Roofline of a device, measured in the same run as the cases.

use std::time::{Duration, Instant};

use aurora_kernels::{Precision, linear_with};
use candle_core::Result;
use rayon::prelude::*;

use crate::cost::{Cost, LinearShape};
use crate::normal;

/// Roofline of one device for one element type.
#[derive(Debug, Clone, PartialEq)]
pub struct Roofline {
    /// Name of the processor or the GPU.
    pub device: String,
    /// Threads that take part; 0 on a GPU, where it means nothing.
    pub threads: usize,
    /// GEMM throughput of that type, in operations per second.
    pub operations: f64,
    /// Memory bandwidth in bytes per second, read and written, in a copy far larger than any cache.
    pub bytes: f64,
}

/// Bound of a case: the roofline it meets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Memory traffic.
    Memory,
}

impl Bound {
    /// Name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
        }
    }
}

impl Roofline {
    /// Lower bound on the time of `cost`, in seconds, and what sets it.
    pub fn least(&self, cost: Cost) -> (f64, Bound) {
        let compute = cost.operations as f64 / self.operations;
        let memory = cost.bytes as f64 / self.bytes;
        if compute > memory { (compute, Bound::Compute) } else { (memory, Bound::Memory) }
    }

    /// Share of the roofline that a run of `cost` in `time` reaches: 1 is as fast as can be. Past 1 the case's data
    /// stayed in a cache that the copy does not fit in.
    pub fn share(&self, cost: Cost, time: Duration) -> f64 {
        self.least(cost).0 / time.as_secs_f64()
    }

    /// The better of two measurements of one device: what it once did it can do.
    pub fn or_better(self, other: &Self) -> Self {
        let operations = self.operations.max(other.operations);
        Self { operations, bytes: self.bytes.max(other.bytes), ..self }
    }

    /// Measures the CPU, all threads of the pool, with f32 GEMMs in this precision.
    ///
    /// # Errors
    /// Those of candle when it cannot make the operands.
    pub fn of_processor(precision: Precision) -> Result<Self> {
        Ok(Self {
            device: processor(),
            threads: rayon::current_num_threads(),
            operations: product(precision)?,
            bytes: copy(),
        })
    }
}

/// Runs of each measurement; the best counts.
const TRIES: usize = 6;

fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// GEMM throughput in operations per second, the better of the crate's own linear layer and candle's matmul of the
/// same matrices, which knows f32 alone.
fn product(precision: Precision) -> Result<f64> {
    let shape = LinearShape { tokens: 2048, input: 1024, output: 1024, rank: 0 };
    let x = normal(0, &[2048, 1024])?;
    let weight = normal(1, &[1024, 1024])?;
    let ours = best(|| linear_with(&x, &weight, None, &precision.into()).map(drop))?;
    let whole = match precision {
        Precision::F32 => best(|| x.matmul(&weight.t()?).map(drop))?,
        Precision::Bf16 => ours,
    };
    Ok(shape.product(4).operations as f64 / ours.min(whole))
}

/// Copy bandwidth in bytes per second: 256 MiB read and as many written, in as many pieces as there are threads.
fn copy() -> f64 {
    const BYTES: usize = 256 << 20;
    let from = vec![1u8; BYTES];
    let mut to = vec![2u8; BYTES];
    let piece = BYTES.div_ceil(rayon::current_num_threads());
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let start = Instant::now();
        to.par_chunks_mut(piece).zip(from.par_chunks(piece)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
        best = best.min(start.elapsed().as_secs_f64());
        std::hint::black_box(&mut to);
    }
    2.0 * BYTES as f64 / best
}

/// Processor as the system names it.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    named.unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofline() -> Roofline {
        Roofline { device: "a device".to_owned(), threads: 2, operations: 1e9, bytes: 1e8 }
    }

    #[test]
    fn the_slower_of_the_two_lines_bounds_a_row() {
        let compute = Cost { operations: 1_000_000_000, bytes: 1_000 };
        assert_eq!(roofline().least(compute), (1.0, Bound::Compute));
        let memory = Cost { operations: 1_000, bytes: 200_000_000 };
        assert_eq!(roofline().least(memory), (2.0, Bound::Memory));
    }

    #[test]
    fn a_share_is_the_least_time_by_the_measured() {
        let cost = Cost { operations: 500_000_000, bytes: 0 };
        assert_eq!(roofline().share(cost, Duration::from_secs(1)), 0.5);
    }

    #[test]
    fn the_better_measurement_of_each_line_counts() {
        let faster = Roofline { operations: 2e9, bytes: 1.0, ..roofline() };
        let both = roofline().or_better(&faster);
        assert_eq!((both.operations, both.bytes), (2e9, 1e8));
    }
}
