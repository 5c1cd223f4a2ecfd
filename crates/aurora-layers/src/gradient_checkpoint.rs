//! Gradient checkpointing: a block's activations are recomputed in the backward pass instead of kept (Chen et al. 2016,
//! arXiv:1604.06174).
//!
//! A checkpointed block keeps only its inputs: the states that enter it and the small tensors trained in it. Its merged
//! weights `W + dW` are formed inside, by a bound model of its own, and freed at its end, in both passes. So the
//! activations and merged weights of at most one block exist at a time.

use crate::adapter::{LayerDelta, ParallelAdapter};
use crate::gate::Gate;
use crate::video::FrameAware;
use crate::{BoundModel, Error, Result};
use aurora_kernels::recompute;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Gradient checkpointing of passes with a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GradientCheckpointing {
    /// Everything is kept, every merged weight for the lifetime of the [`BoundModel`]: least work.
    #[default]
    None,
    /// Only the inputs of each vision block and text layer are kept; the rest is recomputed in the backward pass.
    /// Without a graph too, a merged weight is freed at the end of its block.
    Block,
}

/// Replacement of a tensor by another.
pub(crate) type TensorMapper<'a> = dyn FnMut(&Tensor) -> Result<Tensor> + 'a;

/// Part of a model that can be rebuilt over other tensors.
pub(crate) trait MapTensors: Sized {
    /// Rebuilds the part over the tensors that `mapper` returns; it is called for every tensor, always in the same
    /// order.
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self>;
}

/// Parts of a bound model that one block uses.
impl MapTensors for BoundModel {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        fn all<T: MapTensors>(
            parts: &BTreeMap<String, T>,
            mapper: &mut TensorMapper,
        ) -> Result<BTreeMap<String, T>> {
            let map_tensors =
                |(path, part): (&String, &T)| Ok((path.clone(), part.map_tensors(mapper)?));
            parts.iter().map(map_tensors).collect()
        }
        let deltas = all(&self.deltas, mapper)?;
        let parallel = all(&self.parallel, mapper)?;
        Ok(self.of_maps(deltas, parallel, all(&self.gates, mapper)?))
    }
}

impl BoundModel {
    /// Part that a pass uses in the block at this path: deltas of the layers whose paths continue with one of `maps`,
    /// and the gate and fusion bottleneck where the pass is `fused`. It shares no merged weights with the whole.
    pub(crate) fn of_block(&self, block: &str, maps: &[&str], fused: bool) -> Result<Self> {
        let inside = format!("{block}.");
        let used = |path: &str| {
            let rest = path.strip_prefix(&inside);
            rest.is_some_and(|rest| maps.iter().any(|map| rest.starts_with(map)))
        };
        let deltas = self.deltas.range(inside.clone()..);
        let deltas = deltas.take_while(|(path, _)| path.starts_with(&inside));
        let deltas = deltas.filter(|(path, _)| used(path)).map(|(path, layer_delta)| {
            Ok((path.clone(), layer_delta.map_tensors(&mut |tensor| Ok(tensor.clone()))?))
        });
        let deltas: BTreeMap<String, LayerDelta> = deltas.collect::<Result<_>>()?;
        let parallel = self.parallel.get(block).and_then(|parallel| parallel.part(fused));
        let gate = self.gates.get(block).filter(|_| fused);
        let parallel = parallel.map(|parallel| (block.to_owned(), parallel)).into_iter().collect();
        let gates = gate.map(|gate| (block.to_owned(), gate.clone())).into_iter().collect();
        Ok(self.of_maps(deltas, parallel, gates))
    }

    /// Bound model of these parts alone, for passes inside a block with the settings of `self`.
    fn of_maps(
        &self,
        deltas: BTreeMap<String, LayerDelta>,
        parallel: BTreeMap<String, ParallelAdapter>,
        gates: BTreeMap<String, Gate>,
    ) -> Self {
        Self {
            deltas,
            parallel,
            gates,
            context: None,
            heads: None,
            frame_aware: FrameAware::Never,
            mode: self.mode,
            precision: self.precision,
            gradient_checkpointing: GradientCheckpointing::None,
        }
    }
}

/// Runs a block over `inputs` as one node of the graph, where possible; `part` is the block's part of the bound model.
pub(crate) fn as_one_node<B: MapTensors>(
    block: &B,
    part: &BoundModel,
    mut inputs: Vec<Tensor>,
    run: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    collect_tracked(block, part, &mut inputs)?;
    #[cfg(test)]
    if ungrouped::enabled() {
        return run();
    }
    aurora_kernels::as_one_node(&inputs, run)
}

/// Appends the tracked tensors of a block and of its part of the bound model to `inputs`; returns both rebuilt.
fn collect_tracked<B: MapTensors>(
    block: &B,
    part: &BoundModel,
    inputs: &mut Vec<Tensor>,
) -> Result<(B, BoundModel)> {
    let mut note = |tensor: &Tensor| {
        if tensor.track_op() {
            inputs.push(tensor.clone());
        }
        Ok(tensor.clone())
    };
    Ok((block.map_tensors(&mut note)?, part.map_tensors(&mut note)?))
}

/// True if some tensor of a part wants a gradient.
pub(crate) fn is_tracked(part: &impl MapTensors) -> Result<bool> {
    let mut tracked = false;
    part.map_tensors(&mut |tensor| {
        tracked |= tensor.track_op();
        Ok(tensor.clone())
    })?;
    Ok(tracked)
}

/// Runs a block as a checkpointed block. All trained tensors of the block and of its part of the bound model get their
/// gradients, the backbone's own included.
pub(crate) fn checkpointed<B, F>(
    block: &B,
    bound: BoundModel,
    mut inputs: Vec<Tensor>,
    run: F,
) -> Result<Tensor>
where
    B: MapTensors + Clone + Send + Sync + 'static,
    F: Fn(&B, &[Tensor], &BoundModel) -> Result<Tensor> + Send + Sync + 'static,
{
    let count = inputs.len();
    let (block, bound) = collect_tracked(block, &bound, &mut inputs)?;
    recompute(&inputs, move |inputs: &[Tensor]| {
        let (inputs, trained) = inputs.split_at(count);
        let mut trained = trained.iter();
        let mut give = |tensor: &Tensor| match tensor.track_op() {
            false => Ok(tensor.clone()),
            true => trained.next().cloned().ok_or_else(|| {
                Error::Tensor(candle_core::Error::msg(
                    "a checkpointed block's tensors are given in order",
                ))
            }),
        };
        let block = block.map_tensors(&mut give)?;
        let bound = bound.map_tensors(&mut give)?;
        run(&block, inputs, &bound)
    })
}

/// Blocks as many nodes, for tests that inspect a graph: a single node shows nothing of what it holds.
#[cfg(test)]
pub(crate) mod ungrouped {
    use std::cell::Cell;

    thread_local! {
        static WANTED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn enabled() -> bool {
        WANTED.get()
    }

    /// Runs `run` with blocks as graphs of many nodes.
    pub(crate) fn run<R>(run: impl FnOnce() -> R) -> R {
        WANTED.set(true);
        let result = run();
        WANTED.set(false);
        result
    }
}
