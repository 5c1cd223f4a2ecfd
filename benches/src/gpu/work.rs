//! Operands and launches of a case in an executor's memory.

use aurora_kernels::cuda::{DeviceBuffer, DevicePointer, Element, Executor, Launch};
use candle_core::Result;
use half::{bf16, f16};

use crate::normal;

/// Number of different values in the operands of a case; larger operands repeat them.
const NUMBERS: usize = 1 << 17;

/// Launches of one run, with the memory that they work on.
pub struct Work {
    launches: Vec<Launch>,
    _memory: Vec<Box<dyn DeviceBuffer>>,
}

impl Work {
    /// Launches one run.
    ///
    /// # Errors
    /// Those of the executor.
    pub(crate) fn run(&self, executor: &dyn Executor) -> Result<()> {
        // SAFETY: as in `Operands::run`; the memory goes when this does.
        self.launches.iter().try_for_each(|launch| unsafe { executor.launch(launch) })
    }
}

/// Tensor in an executor's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    index: usize,
    element: Element,
    /// Pointer to its first element.
    pub pointer: DevicePointer,
}

/// Tensor with its values, as they are stored.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Tensor in an executor's memory.
    pub held: Held,
    numbers: Vec<f64>,
}

impl Numbers {
    /// Pointer to its first element.
    pub fn pointer(&self) -> DevicePointer {
        self.held.pointer
    }

    /// Value at an index.
    pub fn at(&self, index: usize) -> f64 {
        self.numbers[index % self.numbers.len()]
    }

    /// Values in a range.
    pub fn range(&self, first: usize, length: usize) -> Vec<f64> {
        (first..first + length).map(|index| self.at(index)).collect()
    }
}

/// Operands of a case under construction.
pub struct Operands<'a> {
    executor: &'a dyn Executor,
    memory: Vec<Box<dyn DeviceBuffer>>,
}

impl<'a> Operands<'a> {
    /// No operands yet.
    pub fn new(executor: &'a dyn Executor) -> Self {
        Self { executor, memory: Vec::new() }
    }

    /// Makes a tensor with these values, rounded to the element type.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn tensor(&mut self, element: Element, values: &[f32]) -> Result<Held> {
        self.bytes(element, &to_bytes(element, values))
    }

    /// Copies bytes as they are: tables of structs.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn bytes(&mut self, element: Element, bytes: &[u8]) -> Result<Held> {
        let memory = self.executor.allocate(bytes.len())?;
        self.executor.upload(bytes, &*memory)?;
        let held = Held { index: self.memory.len(), element, pointer: memory.pointer() };
        self.memory.push(memory);
        Ok(held)
    }

    /// Makes a tensor of normal numbers, different for each index.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn normal(&mut self, element: Element, index: u64, length: usize) -> Result<Numbers> {
        self.mapped(element, index, length, |x| x)
    }

    /// Makes a tensor of normal numbers passed through a function.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn mapped(
        &mut self,
        element: Element,
        index: u64,
        length: usize,
        map: impl Fn(f32) -> f32,
    ) -> Result<Numbers> {
        let numbers = normal(index, &[length.clamp(1, NUMBERS)])?.to_vec1::<f32>()?;
        let numbers: Vec<f32> = numbers.into_iter().map(map).collect();
        let values: Vec<f32> = numbers.iter().copied().cycle().take(length).collect();
        let held = self.tensor(element, &values)?;
        Ok(Numbers { held, numbers: numbers.iter().map(|&x| rounded(element, x)).collect() })
    }

    /// Makes a tensor of ones.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn ones(&mut self, element: Element, length: usize) -> Result<Held> {
        self.tensor(element, &vec![1.0; length])
    }

    /// Allocates an output, filled with NaN bytes until a kernel writes it.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn output(&mut self, element: Element, length: usize) -> Result<Held> {
        self.bytes(element, &vec![0xff; length * element.bytes()])
    }

    /// Runs launches once. They work on memory of these operands, of the sizes that the kernels' contracts say.
    ///
    /// # Errors
    /// Those of the executor.
    pub(crate) fn run<'l>(&self, launches: impl IntoIterator<Item = &'l Launch>) -> Result<()> {
        // SAFETY: every case makes its operands by the kernel's contract, and they live as long as self.
        launches.into_iter().try_for_each(|launch| unsafe { self.executor.launch(launch) })
    }

    /// Checks the beginning of a tensor against its reference.
    ///
    /// # Errors
    /// An element that is further off than the element type's rounding explains, or what the executor reports.
    pub fn check(&self, name: &str, of: Held, want: &[f64]) -> Result<()> {
        self.check_as(name, of.element, of, want)
    }

    /// Checks a result that is more exact than its operands, whose element type is `element`.
    ///
    /// # Errors
    /// As [`Operands::check`].
    pub fn check_as(&self, name: &str, element: Element, of: Held, want: &[f64]) -> Result<()> {
        let bytes = self.executor.download(&*self.memory[of.index])?;
        let taken = bytes.len().min(want.len() * of.element.bytes());
        let got = to_values(of.element, &bytes[..taken]);
        crate::check_within(name, &got, want, tolerance(element))
    }

    /// Launches, with the memory they need.
    pub(crate) fn work(self, launches: impl IntoIterator<Item = Launch>) -> Work {
        Work { launches: launches.into_iter().collect(), _memory: self.memory }
    }
}

/// Tolerance relative to the largest element: a few roundings of the element type.
pub(crate) fn tolerance(element: Element) -> f64 {
    match element {
        Element::F32 => 2e-5,
        Element::F16 => 2e-3,
        Element::Bf16 => 1.6e-2,
    }
}

fn rounded(element: Element, x: f32) -> f64 {
    match element {
        Element::F32 => f64::from(x),
        Element::F16 => f16::from_f32(x).to_f64(),
        Element::Bf16 => bf16::from_f32(x).to_f64(),
    }
}

fn to_bytes(element: Element, values: &[f32]) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Element::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Element::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

fn to_values(element: Element, bytes: &[u8]) -> Vec<f64> {
    let pairs = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match element {
        Element::F32 => bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        Element::F16 => pairs.map(|b| f16::from_le_bytes(b).to_f64()).collect(),
        Element::Bf16 => pairs.map(|b| bf16::from_le_bytes(b).to_f64()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_values_are_inverse_up_to_rounding() {
        for element in Element::ALL {
            let values = [0.1f32, -3.5, 70.0];
            let back = to_values(element, &to_bytes(element, &values));
            let want: Vec<f64> = values.iter().map(|&x| rounded(element, x)).collect();
            assert_eq!(back, want);
            assert!((want[0] - 0.1).abs() < tolerance(element));
        }
    }
}
