//! Gradient checkpointing: blocks that a training step computes twice instead of keeping what is inside of them.
//!
//! Of a checkpointed block only the inputs are kept: the states that enter the block and the small tensors that are trained in
//! it. Its merged weights `W + dW` are formed inside, by a view of its own, and gone at its end, both times. So at
//! no moment the activations or the merged weights of more than one block are there.

use crate::adapter::{LayerDelta, ParallelAdapter};
use crate::gate::Gate;
use crate::video::FrameAware;
use crate::{BoundModel, Error, Result};
use aurora_kernels::recompute;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// What passes with a graph keep for the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GradientCheckpointing {
    /// Everything, and every merged weight for as long as the [`BoundModel`] lives: least work.
    #[default]
    None,
    /// What enters each vision block and each text layer; the rest is computed once more in the backward pass. Without
    /// a graph too a merged weight goes at the end of its block.
    Block,
}

/// What to put in a tensor's place.
pub(crate) type TensorMapper<'a> = dyn FnMut(&Tensor) -> Result<Tensor> + 'a;

/// A part of a model that can be put together anew with other tensors in the places of its own.
pub(crate) trait MapTensors: Sized {
    /// The same over what `mapper` says, which is asked about every tensor, always in the same order.
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self>;
}

/// What of a view one block uses.
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
    /// The part of it that a pass uses in the block of this path: changes of the maps whose paths go on with one of
    /// `maps`, and what belongs to texts that look at something where the pass is `fused`. It shares no effective
    /// weights with the whole.
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

    /// A view of nothing but these, for passes inside of a block that are like those of `self`.
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

/// `run`, the pass of a block over `inputs` and the block's `part` of a view, as one node of the graph where that can be.
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

/// Adds the tracked tensors of a block and of its part of a view to `inputs`, and gives both anew.
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

/// Whether some tensor of a part wants a gradient.
pub(crate) fn is_tracked(part: &impl MapTensors) -> Result<bool> {
    let mut tracked = false;
    part.map_tensors(&mut |tensor| {
        tracked |= tensor.track_op();
        Ok(tensor.clone())
    })?;
    Ok(tracked)
}

/// `run` of a block, of `inputs` and of the block's part of a view, as a checkpointed block. All trained tensors of the block and
/// of its part get their gradients, the backbone's own included.
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

/// For tests that look into a graph: a node shows nothing of what it holds.
#[cfg(test)]
pub(crate) mod ungrouped {
    use std::cell::Cell;

    thread_local! {
        static WANTED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn enabled() -> bool {
        WANTED.get()
    }

    /// `run` with blocks as graphs of many nodes.
    pub(crate) fn run<R>(run: impl FnOnce() -> R) -> R {
        WANTED.set(true);
        let result = run();
        WANTED.set(false);
        result
    }
}
