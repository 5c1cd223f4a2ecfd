//! Gradient checkpointing: part of a graph is recomputed in the backward pass instead of kept (Chen et al. 2016,
//! arXiv:1604.06174).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, Var};

use crate::node::{Gradients, custom_node, nothing};
use crate::tape;

/// `run` of these inputs with gradient checkpointing. Only the inputs are kept; the backward pass runs it once more,
/// with a graph over variables of the inputs' values, and differentiates that.
///
/// Values and gradients are those of `run(inputs)` to the bit, if `run` gives the same at every call. It has to take
/// all tracked tensors that it depends on from `inputs`: what it captures gets no gradient. A tracked input that
/// turns out to have no part in the result has a gradient of zero, or none if it is a variable itself. With no
/// tracked input, and on a GPU, this is `run(inputs)`.
///
/// # Errors
/// Those of `run`; in the backward pass as candle's errors that wrap them.
pub fn recompute<E, F>(inputs: &[Tensor], run: F) -> std::result::Result<Tensor, E>
where
    E: From<candle_core::Error> + std::fmt::Display + Send + Sync + 'static,
    F: Fn(&[Tensor]) -> std::result::Result<Tensor, E> + Send + Sync + 'static,
{
    let tracked: Vec<usize> = (0..inputs.len()).filter(|&index| inputs[index].track_op()).collect();
    if tracked.is_empty() || inputs.iter().any(|input| !input.device().is_cpu()) {
        return run(inputs);
    }
    let frozen: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
    let output = run(&frozen)?.detach();
    let leads_to: Vec<Tensor> = tracked.iter().map(|&index| inputs[index].clone()).collect();
    let run = Box::new(move |inputs: &[Tensor]| run(inputs).map_err(candle_core::Error::wrap));
    Ok(custom_node(&leads_to, output, Recomputed { inputs: frozen, tracked, run })?)
}

type Run = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// Checkpointed function: its inputs and itself, kept until the backward pass.
struct Recomputed {
    inputs: Vec<Tensor>,
    tracked: Vec<usize>,
    run: Run,
}

impl Gradients for Recomputed {
    /// Runs the function again with its graph, or with its tape if that is whole.
    fn gradients(&self, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let mut inputs = self.inputs.clone();
        for &index in &self.tracked {
            inputs[index] = Var::from_tensor(&inputs[index])?.into_inner();
        }
        let (output, tape) = tape::with_tape(|| (self.run)(&inputs));
        let output = output?;
        let variables: Vec<Tensor> =
            self.tracked.iter().map(|&index| inputs[index].clone()).collect();
        if tape.covers(&variables, &output) {
            return tape.backward(&variables, &output, dy);
        }
        let store = output.apply_op1(UpstreamGradient(dy.clone()))?.backward()?;
        Ok(variables.iter().map(|variable| store.get(variable).cloned()).collect())
    }
}

/// Scalar whose gradient with respect to its argument is the given one: continues an outer backward pass.
struct UpstreamGradient(Tensor);

impl CustomOp1 for UpstreamGradient {
    fn name(&self) -> &'static str {
        "upstream_gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
