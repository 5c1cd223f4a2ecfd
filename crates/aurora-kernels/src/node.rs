//! Autograd node with any number of inputs, whose gradients are computed together.
//!
//! candle's operations have three inputs at most. So a node stands on a chain of links that hold two or three inputs
//! each and whose own value, one number, is meaningless. In the backward pass the node computes all gradients and
//! leaves them pending; the chain is reached after it, and picks them up.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::view::cpu;

/// Backward function of a node.
pub(crate) trait Gradients: Send + Sync + 'static {
    /// Gradients of the node's inputs, in their order, from that of its output; None for an input that has no part in
    /// it.
    fn gradients(&self, dy: &Tensor) -> Result<Vec<Option<Tensor>>>;
}

/// Node with the value of `output` in a graph that leads to `inputs`, all of them tracked.
pub(crate) fn custom_node(
    inputs: &[Tensor],
    output: Tensor,
    gradients: impl Gradients,
) -> Result<Tensor> {
    let pending = Mutex::new(vec![None; inputs.len()]);
    let shared = Arc::new(NodeState { gradients: Box::new(gradients), pending });
    let link = |inputs: Vec<Option<usize>>| ChainLink { shared: shared.clone(), inputs };
    let held = |from: usize, count: usize| (from..from + count).map(Some);
    let mut chain = match inputs {
        [a] => a.apply_op1(link(held(0, 1).collect()))?,
        [a, b] => a.apply_op2(b, link(held(0, 2).collect()))?,
        [a, b, c, ..] => a.apply_op3(b, c, link(held(0, 3).collect()))?,
        [] => return Ok(output),
    };
    for (pair, inputs) in inputs.get(3..).unwrap_or_default().chunks(2).enumerate() {
        let held = std::iter::once(None).chain(held(3 + 2 * pair, inputs.len())).collect();
        chain = match inputs {
            [a, b] => chain.apply_op3(a, b, link(held))?,
            [a, ..] => chain.apply_op2(a, link(held))?,
            [] => chain,
        };
    }
    chain.apply_op1(NodeOutput { shared, output: Mutex::new(Some(output)) })
}

/// State shared by a node and its links.
struct NodeState {
    gradients: Box<dyn Gradients>,
    /// Gradient of each input, between the node that computes them all and the links that hand them on.
    pending: Mutex<Vec<Option<Tensor>>>,
}

impl NodeState {
    /// Gradient of `input`, by its index; None is the chain, whose gradient only has to exist.
    fn gradient(&self, input: &Tensor, index: Option<usize>) -> Result<Option<Tensor>> {
        let Some(index) = index else { return Ok(Some(input.zeros_like()?)) };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.get_mut(index).and_then(Option::take) {
            // candle wants a gradient for every node on its way, variables alone excepted.
            None if !input.is_variable() => Ok(Some(input.zeros_like()?)),
            gradient => Ok(gradient),
        }
    }
}

/// Dummy value of a link: one number.
pub(crate) fn nothing() -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(vec![0.0]), Shape::from(1)))
}

/// Link of the chain that leads from a node's output to its inputs.
struct ChainLink {
    shared: Arc<NodeState>,
    /// Index of the input in each argument, or None for the rest of the chain.
    inputs: Vec<Option<usize>>,
}

impl ChainLink {
    fn gradient(&self, argument: usize, input: &Tensor) -> Result<Option<Tensor>> {
        self.shared.gradient(input, self.inputs.get(argument).copied().flatten())
    }
}

const NODE: &str = "node";

impl CustomOp1 for ChainLink {
    fn name(&self) -> &'static str {
        NODE
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        nothing()
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(0, a)
    }
}

impl CustomOp2 for ChainLink {
    fn name(&self) -> &'static str {
        NODE
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

impl CustomOp3 for ChainLink {
    fn name(&self) -> &'static str {
        NODE
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

/// Output of a node.
struct NodeOutput {
    shared: Arc<NodeState>,
    /// Value, until the node has it.
    output: Mutex<Option<Tensor>>,
}

impl CustomOp1 for NodeOutput {
    fn name(&self) -> &'static str {
        NODE
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let output = output.ok_or_else(|| candle_core::Error::msg("a node is made once"))?;
        // A node's elements lie densely from the start of its storage.
        let dense = output.is_contiguous() && output.layout().start_offset() == 0;
        let output = if dense { output } else { output.force_contiguous()? };
        let (storage, layout) = output.storage_and_layout();
        Ok((cpu(&storage)?.clone(), layout.shape().clone()))
    }

    fn bwd(&self, chain: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let gradients = self.shared.gradients.gradients(dy)?;
        *self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
        Ok(Some(chain.zeros_like()?))
    }
}
