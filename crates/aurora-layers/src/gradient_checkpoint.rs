//! Segments: blocks that a training step computes twice instead of keeping what is inside of them.
//!
//! Of a segment only the inputs are kept: the states that enter the block and the small tensors that are trained in
//! it. Its merged weights `W + dW` are formed inside, by a view of its own, and gone at its end, both times. So at
//! no moment the activations or the merged weights of more than one block are there.

use crate::adapter::{Beside, Change};
use crate::gate::Gate;
use crate::video::FrameAware;
use crate::{Error, Prepared, Result};
use aurora_kernels::recompute;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// What passes with a graph keep for the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checkpointing {
    /// Everything, and every merged weight for as long as the [`Prepared`] lives: least work.
    #[default]
    None,
    /// What enters each vision block and each text layer; the rest is computed once more in the backward pass. Without
    /// a graph too a merged weight goes at the end of its block.
    Block,
}

/// What to put in a tensor's place.
pub(crate) type Swap<'a> = dyn FnMut(&Tensor) -> Result<Tensor> + 'a;

/// A part of a model that can be put together anew with other tensors in the places of its own.
pub(crate) trait Rebuild: Sized {
    /// The same over what `swap` says, which is asked about every tensor, always in the same order.
    fn rebuild(&self, swap: &mut Swap) -> Result<Self>;
}

/// What of a view one block uses.
impl Rebuild for Prepared {
    fn rebuild(&self, swap: &mut Swap) -> Result<Self> {
        fn all<T: Rebuild>(
            parts: &BTreeMap<String, T>,
            swap: &mut Swap,
        ) -> Result<BTreeMap<String, T>> {
            let rebuild = |(path, part): (&String, &T)| Ok((path.clone(), part.rebuild(swap)?));
            parts.iter().map(rebuild).collect()
        }
        let changes = all(&self.changes, swap)?;
        let beside = all(&self.beside, swap)?;
        Ok(self.of_maps(changes, beside, all(&self.gates, swap)?))
    }
}

impl Prepared {
    /// The part of it that a pass uses in the block of this path: changes of the maps whose paths go on with one of
    /// `maps`, and what belongs to texts that look at something where the pass is `fused`. It shares no effective
    /// weights with the whole.
    pub(crate) fn of_block(&self, block: &str, maps: &[&str], fused: bool) -> Result<Self> {
        let inside = format!("{block}.");
        let used = |path: &str| {
            let rest = path.strip_prefix(&inside);
            rest.is_some_and(|rest| maps.iter().any(|map| rest.starts_with(map)))
        };
        let changes = self.changes.range(inside.clone()..);
        let changes = changes.take_while(|(path, _)| path.starts_with(&inside));
        let changes = changes.filter(|(path, _)| used(path)).map(|(path, change)| {
            Ok((path.clone(), change.rebuild(&mut |tensor| Ok(tensor.clone()))?))
        });
        let changes: BTreeMap<String, Change> = changes.collect::<Result<_>>()?;
        let beside = self.beside.get(block).and_then(|beside| beside.part(fused));
        let gate = self.gates.get(block).filter(|_| fused);
        let beside = beside.map(|beside| (block.to_owned(), beside)).into_iter().collect();
        let gates = gate.map(|gate| (block.to_owned(), gate.clone())).into_iter().collect();
        Ok(self.of_maps(changes, beside, gates))
    }

    /// A view of nothing but these, for passes inside of a block that are like those of `self`.
    fn of_maps(
        &self,
        changes: BTreeMap<String, Change>,
        beside: BTreeMap<String, Beside>,
        gates: BTreeMap<String, Gate>,
    ) -> Self {
        Self {
            changes,
            beside,
            gates,
            context: None,
            heads: None,
            frame_aware: FrameAware::Never,
            mode: self.mode,
            precision: self.precision,
            checkpointing: Checkpointing::None,
        }
    }
}

/// `run`, the pass of a block over `inputs` and the block's `part` of a view, as one node of the graph where that can be.
pub(crate) fn one_node<B: Rebuild>(
    block: &B,
    part: &Prepared,
    mut inputs: Vec<Tensor>,
    run: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    note_tracked(block, part, &mut inputs)?;
    #[cfg(test)]
    if plain::wanted() {
        return run();
    }
    aurora_kernels::as_one_node(&inputs, run)
}

/// Adds the tracked tensors of a block and of its part of a view to `inputs`, and gives both anew.
fn note_tracked<B: Rebuild>(
    block: &B,
    part: &Prepared,
    inputs: &mut Vec<Tensor>,
) -> Result<(B, Prepared)> {
    let mut note = |tensor: &Tensor| {
        if tensor.track_op() {
            inputs.push(tensor.clone());
        }
        Ok(tensor.clone())
    };
    Ok((block.rebuild(&mut note)?, part.rebuild(&mut note)?))
}

/// Whether some tensor of a part wants a gradient.
pub(crate) fn is_tracked(part: &impl Rebuild) -> Result<bool> {
    let mut tracked = false;
    part.rebuild(&mut |tensor| {
        tracked |= tensor.track_op();
        Ok(tensor.clone())
    })?;
    Ok(tracked)
}

/// `run` of a block, of `inputs` and of the block's part of a view, as a segment. All trained tensors of the block and
/// of its part get their gradients, the backbone's own included.
pub(crate) fn segment<B, F>(
    block: &B,
    prepared: Prepared,
    mut inputs: Vec<Tensor>,
    run: F,
) -> Result<Tensor>
where
    B: Rebuild + Clone + Send + Sync + 'static,
    F: Fn(&B, &[Tensor], &Prepared) -> Result<Tensor> + Send + Sync + 'static,
{
    let count = inputs.len();
    let (block, prepared) = note_tracked(block, &prepared, &mut inputs)?;
    recompute(&inputs, move |inputs: &[Tensor]| {
        let (inputs, trained) = inputs.split_at(count);
        let mut trained = trained.iter();
        let mut give = |tensor: &Tensor| match tensor.track_op() {
            false => Ok(tensor.clone()),
            true => trained.next().cloned().ok_or_else(|| {
                Error::Tensor(candle_core::Error::msg("a segment's tensors are given in order"))
            }),
        };
        let block = block.rebuild(&mut give)?;
        let prepared = prepared.rebuild(&mut give)?;
        run(&block, inputs, &prepared)
    })
}

/// For tests that look into a graph: a node shows nothing of what it holds.
#[cfg(test)]
pub(crate) mod plain {
    use std::cell::Cell;

    thread_local! {
        static WANTED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn wanted() -> bool {
        WANTED.get()
    }

    /// `run` with blocks as graphs of many nodes.
    pub(crate) fn graphs<R>(run: impl FnOnce() -> R) -> R {
        WANTED.set(true);
        let result = run();
        WANTED.set(false);
        result
    }
}
