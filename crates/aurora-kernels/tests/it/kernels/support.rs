//! Tensors on an executor, their f64 values, and error bounds.

use aurora_kernels::cuda::{DeviceBuffer, DevicePointer, Element, Executor, Gpu, Launch};
use aurora_kernels::random::Stream;
use half::{bf16, f16};

use crate::kernels::emulator::Emulator;

/// Executor under test; None (said once a test) where there is none. With `AURORA_MACHINE=gpu` it is the first GPU,
/// whose absence is a failure.
pub fn executor() -> Option<Box<dyn Executor>> {
    if std::env::var_os("AURORA_MACHINE").is_some_and(|executor| executor == "gpu") {
        let gpu = Gpu::new(0).unwrap_or_else(|fault| panic!("AURORA_MACHINE=gpu: {fault}"));
        return Some(Box::new(gpu));
    }
    let Some(emulator) = Emulator::new() else {
        eprintln!(
            "skipped: no C++ compiler (CXX, g++, c++, clang++) to run the kernels on the CPU"
        );
        return None;
    };
    Some(Box::new(emulator))
}

/// Number rounded to an element type. By way of f32: `half` rounds f64 by its upper half alone.
pub fn rounded(element: Element, x: f64) -> f64 {
    match element {
        Element::F32 => f64::from(x as f32),
        Element::F16 => f16::from_f32(x as f32).to_f64(),
        Element::Bf16 => bf16::from_f32(x as f32).to_f64(),
    }
}

/// Bytes of values in memory.
pub fn bytes_of(element: Element, values: &[f64]) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        Element::F16 => {
            values.iter().flat_map(|&x| f16::from_f32(x as f32).to_le_bytes()).collect()
        }
        Element::Bf16 => {
            values.iter().flat_map(|&x| bf16::from_f32(x as f32).to_le_bytes()).collect()
        }
    }
}

/// Tensor on an executor. It begins `skipped` elements into its memory, so that no test relies on more alignment than
/// it means to.
pub struct Tensor<'a> {
    executor: &'a dyn Executor,
    memory: Box<dyn DeviceBuffer>,
    element: Element,
    skipped: usize,
    length: usize,
}

impl<'a> Tensor<'a> {
    /// Tensor of these values, rounded to the element type.
    pub fn new(executor: &'a dyn Executor, element: Element, values: &[f64]) -> Self {
        Self::skipping(executor, element, values, 0)
    }

    /// Tensor of these values, beginning some elements into its memory.
    pub fn skipping(
        executor: &'a dyn Executor,
        element: Element,
        values: &[f64],
        skipped: usize,
    ) -> Self {
        let tensor = Self::empty(executor, element, values.len(), skipped);
        let mut bytes = vec![0xff; skipped * element.bytes()];
        bytes.extend(bytes_of(element, values));
        executor.upload(&bytes, &*tensor.memory).unwrap();
        tensor
    }

    /// Tensor for a result: full of NaN until a kernel writes it.
    pub fn output(executor: &'a dyn Executor, element: Element, length: usize) -> Self {
        let tensor = Self::empty(executor, element, length, 0);
        executor.upload(&vec![0xff; length * element.bytes()], &*tensor.memory).unwrap();
        tensor
    }

    fn empty(executor: &'a dyn Executor, element: Element, length: usize, skipped: usize) -> Self {
        let memory = executor.allocate((length + skipped) * element.bytes()).unwrap();
        Self { executor, memory, element, skipped, length }
    }

    /// Pointer to the first element.
    pub fn pointer(&self) -> DevicePointer {
        self.memory.pointer().offset(self.skipped, self.element)
    }

    /// Values of the tensor.
    pub fn values(&self) -> Vec<f64> {
        let bytes = self.executor.download(&*self.memory).unwrap();
        let bytes = &bytes[self.skipped * self.element.bytes()..];
        let values: Vec<f64> = match self.element {
            Element::F32 => bytes
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
            Element::F16 => {
                bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
            }
            Element::Bf16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
            }
        };
        assert_eq!(values.len(), self.length);
        values
    }
}

/// Uploads bytes, for tables and labels.
pub fn upload(executor: &dyn Executor, bytes: &[u8]) -> Box<dyn DeviceBuffer> {
    let memory = executor.allocate(bytes.len()).unwrap();
    executor.upload(bytes, &*memory).unwrap();
    memory
}

/// Largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |top, value| value.abs().max(top))
}

/// Normal numbers rounded to the element type, another set for each index.
pub fn normal(element: Element, index: u64, length: usize) -> Vec<f64> {
    let numbers = Stream::new(1, "kernels", 0, index).normal_tensor(length.max(1), 1.0).unwrap();
    let numbers = numbers.to_vec1::<f32>().unwrap();
    numbers[..length].iter().map(|&x| rounded(element, f64::from(x))).collect()
}

/// Runs launches one after the other.
pub fn run(executor: &dyn Executor, launches: impl IntoIterator<Item = Launch>) {
    for launch in launches {
        // SAFETY: the tests give memory of the sizes that the contracts say; the emulator checks.
        unsafe { executor.launch(&launch) }.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Compares a result with f64: elements may be off by `units` roundings of the element type, relative to themselves
/// and to `scale` (the size of the terms that were added up).
#[track_caller]
pub fn assert_close(
    what: &str,
    element: Element,
    got: &[f64],
    want: &[f64],
    scale: f64,
    units: f64,
) {
    let unit = match element {
        Element::F32 => f64::from(f32::EPSILON),
        Element::F16 => 2f64.powi(-10),
        Element::Bf16 => 2f64.powi(-7),
    } / 2.0;
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        let allowed = unit * want.abs()
            + units * f64::from(f32::EPSILON) / 2.0 * scale.max(want.abs())
            + if element == Element::F16 { 2f64.powi(-25) } else { 0.0 };
        assert!(
            (got - want).abs() <= allowed,
            "{what} ({}): element {index} is {got}, f64 says {want}, allowed {allowed:e}",
            element.name()
        );
    }
}

/// Unit roundoff: half the distance between neighbors around one, relative to the number.
pub fn unit(element: Element) -> f64 {
    match element {
        Element::F32 => 2f64.powi(-24),
        Element::F16 => 2f64.powi(-11),
        Element::Bf16 => 2f64.powi(-8),
    }
}

/// Projection `x F` with rows of x (tokens, width, stride) and F (width, rank): each number, with the error bound of
/// one that was summed in f32 and stored in the element type. The order of sums is left open, and a sum of n terms
/// may be off by n roundings of the sum of their sizes; tensor cores truncate where others round, which is twice
/// that.
pub fn projected(
    element: Element,
    x: &[f64],
    (tokens, width, stride): (usize, usize, usize),
    rank: usize,
    factor: impl Fn(usize, usize) -> f64,
) -> Vec<(f64, f64)> {
    let mut all = Vec::with_capacity(tokens * rank);
    for t in 0..tokens {
        for r in 0..rank {
            let (mut sum, mut sizes) = (0.0, 0.0);
            for i in 0..width {
                let term = x[t * stride + i] * factor(i, r);
                sum += term;
                sizes += f64::abs(term);
            }
            let off = 2.0 * width as f64 * unit(Element::F32) * sizes;
            let tiny = if element == Element::F16 { 2f64.powi(-25) } else { 0.0 };
            all.push((sum, off + unit(element) * (sum.abs() + off) + tiny));
        }
    }
    all
}

/// Compares a result with f64: each element may be off by its bound, and by being rounded to its type.
#[track_caller]
pub fn assert_within(what: &str, element: Element, got: &[f64], want: &[f64], bounds: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let tiny = if element == Element::F16 { 2f64.powi(-25) } else { 0.0 };
    for (index, ((&got, &want), &bound)) in got.iter().zip(want).zip(bounds).enumerate() {
        let allowed = bound + unit(element) * (want.abs() + bound) + tiny;
        let same = got.is_nan() && want.is_nan();
        assert!(
            same || (got - want).abs() <= allowed,
            "{what} ({}): element {index} is {got}, f64 says {want}, allowed {allowed:e}",
            element.name()
        );
    }
}
