//! Recomputing a part of a graph in the backward pass instead of keeping it.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, Var,
};

use crate::view::cpu;

/// `run` of these inputs, without its graph: a segment. Only the inputs are kept; the backward pass runs it once more,
/// with a graph over variables of the inputs' values, and differentiates that.
///
/// Values and gradients are those of `run(inputs)` to the bit, where `run` gives the same at every call. It has to
/// take all tracked tensors that it depends on from `inputs`: what it captures gets no gradient. A tracked input that
/// turns out to have no part in the result has a gradient of zero, or none where it is a variable itself. With no
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
    let segment = Arc::new(Segment {
        inputs: frozen,
        tracked: tracked.clone(),
        run: Box::new(move |inputs| run(inputs).map_err(candle_core::Error::wrap)),
        gradients: Mutex::new(vec![None; inputs.len()]),
    });
    Ok(segment.attach(inputs, &tracked, output)?)
}

type Run = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// What is kept of a segment.
struct Segment {
    inputs: Vec<Tensor>,
    tracked: Vec<usize>,
    run: Run,
    /// Of each input, between the node that computes them all and those that hand them on.
    gradients: Mutex<Vec<Option<Tensor>>>,
}

impl Segment {
    /// A node with the value of `output` in a graph that leads to the tracked inputs.
    ///
    /// candle's operations have three inputs at most, a segment any number. So the node stands on a chain of others
    /// that hold two or three inputs each and whose own value, one number, means nothing. In the backward pass the
    /// node computes all gradients and lays them down; the chain is reached after it, and picks them up.
    fn attach(
        self: Arc<Self>,
        inputs: &[Tensor],
        tracked: &[usize],
        output: Tensor,
    ) -> Result<Tensor> {
        let link = |inputs: Vec<Option<usize>>| Link { segment: self.clone(), inputs };
        let (first, rest) = tracked.split_at(tracked.len().min(3));
        let held: Vec<Option<usize>> = first.iter().copied().map(Some).collect();
        let mut chain = match *first {
            [a] => inputs[a].apply_op1(link(held))?,
            [a, b] => inputs[a].apply_op2(&inputs[b], link(held))?,
            [a, b, c] => inputs[a].apply_op3(&inputs[b], &inputs[c], link(held))?,
            _ => return Ok(output),
        };
        for pair in rest.chunks(2) {
            let held = std::iter::once(None).chain(pair.iter().copied().map(Some)).collect();
            chain = match *pair {
                [a, b] => chain.apply_op3(&inputs[a], &inputs[b], link(held))?,
                _ => chain.apply_op2(&inputs[pair[0]], link(held))?,
            };
        }
        let output = Mutex::new(Some(output));
        chain.apply_op1(Head { segment: self.clone(), output })
    }

    /// The gradients of the inputs from that of the output: the segment anew, with its graph.
    fn differentiate(&self, dy: &Tensor) -> Result<()> {
        let mut inputs = self.inputs.clone();
        for &index in &self.tracked {
            inputs[index] = Var::from_tensor(&inputs[index])?.into_inner();
        }
        let output = (self.run)(&inputs)?;
        let store = output.apply_op1(Seed(dy.clone()))?.backward()?;
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        for &index in &self.tracked {
            gradients[index] = store.get(&inputs[index]).cloned();
        }
        Ok(())
    }

    /// The gradient of `input`, which is number `index`; number none is the chain, whose gradient only has to be there.
    fn gradient(&self, input: &Tensor, index: Option<usize>) -> Result<Option<Tensor>> {
        let Some(index) = index else { return Ok(Some(input.zeros_like()?)) };
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        match gradients[index].take() {
            // candle wants a gradient for every node that it comes by, variables alone excepted.
            None if !input.is_variable() => Ok(Some(input.zeros_like()?)),
            gradient => Ok(gradient),
        }
    }
}

/// One number that means nothing.
fn nothing() -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(vec![0.0]), Shape::from(1)))
}

/// A piece of the chain that leads from a segment's output to its inputs.
struct Link {
    segment: Arc<Segment>,
    /// What its arguments are: the number of an input, or none for the rest of the chain.
    inputs: Vec<Option<usize>>,
}

impl Link {
    fn gradient(&self, argument: usize, input: &Tensor) -> Result<Option<Tensor>> {
        self.segment.gradient(input, self.inputs.get(argument).copied().flatten())
    }
}

const LINK: &str = "recompute";

impl CustomOp1 for Link {
    fn name(&self) -> &'static str {
        LINK
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(0, a)
    }
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        LINK
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0, a)?, self.gradient(1, b)?))
    }
}

impl CustomOp3 for Link {
    fn name(&self) -> &'static str {
        LINK
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0, a)?, self.gradient(1, b)?, self.gradient(2, c)?))
    }
}

/// The segment's output.
struct Head {
    segment: Arc<Segment>,
    /// Its value, until the node has it.
    output: Mutex<Option<Tensor>>,
}

impl CustomOp1 for Head {
    fn name(&self) -> &'static str {
        LINK
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let output = output.ok_or_else(|| candle_core::Error::msg("a segment runs once"))?;
        // A node's elements lie densely from the start of its storage.
        let dense = output.is_contiguous() && output.layout().start_offset() == 0;
        let output = if dense { output } else { output.force_contiguous()? };
        let (storage, layout) = output.storage_and_layout();
        Ok((cpu(&storage)?.clone(), layout.shape().clone()))
    }

    fn bwd(&self, chain: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.segment.differentiate(dy)?;
        Ok(Some(chain.zeros_like()?))
    }
}

/// A number whose gradient by its argument is this one: where a backward pass begins that another goes on with.
struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
