//! Bench case: declared once, with its cost, and run on whichever device there is.

use std::time::Duration;

use aurora_kernels::cuda::{Element, Executor};
use candle_core::Result;

use crate::cost::Cost;
use crate::gpu::Work;
use crate::roofline::{Bound, Roofline};

/// Timed closure on the CPU: one run, whose result is thrown away.
pub type Body = Box<dyn FnMut() -> Result<()>>;

/// Setup of a case: makes the operands, checks the operation against its reference, and returns the timed closure.
pub type Setup = Box<dyn FnOnce() -> Result<Body>>;

/// Setup of a case on a GPU, for an element type.
pub type GpuSetup = Box<dyn Fn(&dyn Executor, Element) -> Result<Work>>;

/// Bench case: one operation on one shape.
pub struct BenchCase {
    /// Site and operation, `vit_b16_384.qkv/linear`.
    pub name: String,
    /// Sizes in readable form.
    pub shape: String,
    cost: Box<dyn Fn(u64) -> Cost>,
    pub(crate) cpu: Option<Setup>,
    pub(crate) gpu: Option<GpuSetup>,
}

impl BenchCase {
    /// Creates a case that runs nowhere yet. `cost` takes the bytes of an element.
    pub fn new(
        site: &str,
        operation: &str,
        shape: impl Into<String>,
        cost: impl Fn(u64) -> Cost + 'static,
    ) -> Self {
        let name = format!("{site}/{operation}");
        Self { name, shape: shape.into(), cost: Box::new(cost), cpu: None, gpu: None }
    }

    /// Adds a run on the CPU. Nothing is made before the case's turn comes.
    #[must_use]
    pub fn on_cpu<F: FnMut() -> Result<()> + 'static>(
        mut self,
        setup: impl FnOnce() -> Result<F> + 'static,
    ) -> Self {
        self.cpu = Some(Box::new(move || Ok(Box::new(setup()?) as Body)));
        self
    }

    /// Adds a run on a GPU, by this crate's kernels: makes the operands, checks the launches against the reference,
    /// and returns them.
    #[must_use]
    pub fn on_gpu(
        mut self,
        setup: impl Fn(&dyn Executor, Element) -> Result<Work> + 'static,
    ) -> Self {
        self.gpu = Some(Box::new(setup));
        self
    }

    /// Cost of one run.
    pub fn cost(&self, element: Element) -> Cost {
        (self.cost)(element.bytes() as u64)
    }

    /// Pairs the case with its time.
    pub(crate) fn measured(&self, element: Element, median: Duration) -> Measured {
        let (name, shape) = (self.name.clone(), self.shape.clone());
        Measured { name, shape, element, cost: self.cost(element), median }
    }
}

/// Measured case.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Site and operation.
    pub name: String,
    /// Sizes in readable form.
    pub shape: String,
    /// Element type of its tensors.
    pub element: Element,
    /// Cost of one run.
    pub cost: Cost,
    /// Median time of one run.
    pub median: Duration,
}

impl Measured {
    /// Operations per second, in units of 10^9.
    pub fn giga_operations(&self) -> f64 {
        self.cost.operations as f64 / self.median.as_secs_f64() / 1e9
    }

    /// Bytes per second, in units of 10^9.
    pub fn giga_bytes(&self) -> f64 {
        self.cost.bytes as f64 / self.median.as_secs_f64() / 1e9
    }

    /// Bound of the case on that device: compute or memory.
    pub fn bound(&self, roofline: &Roofline) -> Bound {
        roofline.least(self.cost).1
    }

    /// Share of the roofline.
    pub fn share(&self, roofline: &Roofline) -> f64 {
        roofline.share(self.cost, self.median)
    }
}

/// Median of single runs, of which the first quarter (at least one, where there are more) is warm-up.
pub fn median(runs: &[Duration]) -> Option<Duration> {
    let warm = runs.len().div_ceil(4).min(runs.len().saturating_sub(1));
    let mut runs = runs[warm..].to_vec();
    runs.sort_unstable();
    let upper = *runs.get(runs.len() / 2)?;
    let lower = runs[(runs.len() - 1) / 2];
    Some((lower + upper) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_leaves_out_the_first_runs() {
        let runs = |seconds: &[u64]| -> Vec<Duration> {
            seconds.iter().map(|&s| Duration::from_secs(s)).collect()
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&runs(&[7])), Some(Duration::from_secs(7)));
        assert_eq!(median(&runs(&[90, 2])), Some(Duration::from_secs(2)));
        assert_eq!(median(&runs(&[90, 2, 4])), Some(Duration::from_secs(3)));
        assert_eq!(median(&runs(&[90, 80, 5, 1, 3, 2, 4])), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_case_declares_its_cost_by_element() {
        let case = BenchCase::new("site", "copy", "n=8", |e| Cost { operations: 0, bytes: 16 * e });
        assert_eq!(case.name, "site/copy");
        assert_eq!(case.cost(Element::F32).bytes, 2 * case.cost(Element::Bf16).bytes);
    }
}
