//! Bench cases of each target.
//!
//! A backward case times the backward pass alone, from a gradient of ones; the forward pass before it is not timed.
//! On the processor that is candle's walk over the graph, whose own passes over memory (ones to begin with, zeros that
//! each gradient is added to) are in the time and not in the declared bytes.
//! Gradients of ones make the references short: sums over tokens or outputs.

mod absorbed_attention;
mod attention;
mod attention_gpu;
mod cp;
mod cp_gpu;
mod epilogue;
mod khatri_rao;
mod linear;
mod loss;
mod loss_gpu;
mod model;
mod norm;
mod norm_gpu;
mod optim;
mod optim_gpu;

use std::cell::OnceCell;
use std::rc::Rc;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

pub use attention::cases as attention;
pub use cp::cases as cp;
pub use linear::cases as linear;
pub use loss::cases as loss;
pub use model::cases as model;
pub use norm::cases as norm;
pub use optim::cases as optim;

/// Operands shared by several cases, made when the first of them needs them and freed with the last.
struct Shared<T> {
    cell: Rc<OnceCell<Rc<T>>>,
    make: Rc<dyn Fn() -> Result<T>>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { cell: self.cell.clone(), make: self.make.clone() }
    }
}

impl<T> Shared<T> {
    fn new(make: impl Fn() -> Result<T> + 'static) -> Self {
        Self { cell: Rc::default(), make: Rc::new(make) }
    }

    fn get(&self) -> Result<Rc<T>> {
        if let Some(made) = self.cell.get() {
            return Ok(made.clone());
        }
        let made = Rc::new((self.make)()?);
        Ok(self.cell.get_or_init(|| made).clone())
    }
}

/// Gradient of a tensor, or an error that names it.
fn gradient<'a>(grads: &'a GradStore, of: &Tensor, name: &str) -> Result<&'a Tensor> {
    match grads.get(of) {
        Some(gradient) => Ok(gradient),
        None => candle_core::bail!("no gradient of {name}"),
    }
}

/// Timed closure of a backward pass.
fn backward(y: Tensor) -> impl FnMut() -> Result<()> {
    move || y.backward().map(drop)
}

/// Sum of each column of a dense matrix of that many columns.
fn column_sums(matrix: &[f64], columns: usize) -> Vec<f64> {
    let mut sums = vec![0.0; columns];
    for row in matrix.chunks_exact(columns) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}

/// Inner product.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
