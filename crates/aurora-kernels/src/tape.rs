//! Tape-based autograd: a whole block as one node, [`as_one_node`].
//!
//! candle's backward pass fills a tensor with zeros for every value of a graph and adds each gradient to it, and a
//! graph holds its values until the pass has ended. For a block of a tower, whose values are large and each used
//! once, that is four passes over memory where none is needed. So the operations of this crate record themselves on a
//! tape while a block runs, and the block becomes one node of candle's graph: its backward pass reads the tape from
//! the end, moves a gradient where it is the first, and adds where it is not.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};

use crate::add::add_detached;
use crate::node::{Gradients, custom_node};

type SharedOp<C> = Arc<Box<C>>;

/// Recorded operation with its arguments.
enum Call {
    One(SharedOp<dyn CustomOp1 + Send + Sync>, Tensor),
    Two(SharedOp<dyn CustomOp2 + Send + Sync>, [Tensor; 2]),
    Three(SharedOp<dyn CustomOp3 + Send + Sync>, [Tensor; 3]),
}

impl Call {
    fn arguments(&self) -> &[Tensor] {
        match self {
            Self::One(_, a) => std::slice::from_ref(a),
            Self::Two(_, pair) => pair,
            Self::Three(_, three) => three,
        }
    }

    /// Gradients of the arguments, in their order.
    fn backward(&self, result: &Tensor, gradient: &Tensor) -> Result<[Option<Tensor>; 3]> {
        match self {
            Self::One(op, a) => Ok([op.bwd(a, result, gradient)?, None, None]),
            Self::Two(op, [a, b]) => {
                let (a, b) = op.bwd(a, b, result, gradient)?;
                Ok([a, b, None])
            }
            Self::Three(op, [a, b, c]) => {
                let (a, b, c) = op.bwd(a, b, c, result, gradient)?;
                Ok([a, b, c])
            }
        }
    }
}

/// Recorded operations, in their order.
#[derive(Default)]
pub(crate) struct Tape(Vec<(Call, Tensor)>);

thread_local! {
    /// Tape of the block that this thread runs.
    static CURRENT: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

fn record(call: impl FnOnce() -> Call, result: Tensor) -> Tensor {
    if result.track_op() {
        CURRENT.with_borrow_mut(|tape| {
            if let Some(tape) = tape {
                tape.0.push((call(), result.clone()));
            }
        });
    }
    result
}

/// Applies `op` to `a` as a node of the graph, and records it if there is a tape. Every differentiable operation of
/// this crate is applied by this, [`apply2`] or [`apply3`].
pub(crate) fn apply1(a: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    let op: SharedOp<dyn CustomOp1 + Send + Sync> = Arc::new(Box::new(op));
    let result = a.apply_op1_arc(op.clone())?;
    Ok(record(|| Call::One(op, a.clone()), result))
}

/// Applies `op` to two tensors: see [`apply1`].
pub(crate) fn apply2(
    a: &Tensor,
    b: &Tensor,
    op: impl CustomOp2 + Send + Sync + 'static,
) -> Result<Tensor> {
    let op: SharedOp<dyn CustomOp2 + Send + Sync> = Arc::new(Box::new(op));
    let result = a.apply_op2_arc(b, op.clone())?;
    Ok(record(|| Call::Two(op, [a.clone(), b.clone()]), result))
}

/// Applies `op` to three tensors: see [`apply1`].
pub(crate) fn apply3(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    op: impl CustomOp3 + Send + Sync + 'static,
) -> Result<Tensor> {
    let op: SharedOp<dyn CustomOp3 + Send + Sync> = Arc::new(Box::new(op));
    let result = a.apply_op3_arc(b, c, op.clone())?;
    Ok(record(|| Call::Three(op, [a.clone(), b.clone(), c.clone()]), result))
}

/// Runs `run` with a tape of its own, and restores the previous one whatever happens.
pub(crate) fn with_tape<R>(run: impl FnOnce() -> R) -> (R, Tape) {
    struct Outer(Option<Tape>);
    impl Drop for Outer {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let outer = Outer(CURRENT.replace(Some(Tape::default())));
    let result = run();
    let tape = CURRENT.take().unwrap_or_default();
    drop(outer);
    (result, tape)
}

impl Tape {
    /// True if the tape has every step from `inputs` to `output`: each tracked argument is an input or comes from an
    /// earlier step. Otherwise an operation of candle's own stands between, of which the tape knows nothing.
    pub(crate) fn covers(&self, inputs: &[Tensor], output: &Tensor) -> bool {
        let mut known: HashSet<TensorId> = inputs.iter().map(Tensor::id).collect();
        for (call, result) in &self.0 {
            if call.arguments().iter().any(|a| a.track_op() && !known.contains(&a.id())) {
                return false;
            }
            known.insert(result.id());
        }
        self.0.iter().any(|(_, result)| result.id() == output.id())
    }

    /// Gradients of `inputs` from that of `output`. Wrong unless [`Self::covers`] holds.
    pub(crate) fn backward(
        &self,
        inputs: &[Tensor],
        output: &Tensor,
        dy: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = HashMap::from([(output.id(), dy.detach())]);
        for (call, result) in self.0.iter().rev() {
            // A step whose result went nowhere has none.
            let Some(gradient) = gradients.remove(&result.id()) else { continue };
            for (argument, part) in call.arguments().iter().zip(call.backward(result, &gradient)?) {
                let Some(part) = part.filter(|_| argument.track_op()) else { continue };
                let part = match gradients.remove(&argument.id()) {
                    Some(before) => add_detached(&before, &part)?,
                    None => part.detach(),
                };
                gradients.insert(argument.id(), part);
            }
        }
        Ok(inputs.iter().map(|input| gradients.remove(&input.id())).collect())
    }
}

/// Runs `run()` as one node of the graph that leads to `inputs`, which have to be all tracked tensors that it depends
/// on. Values and gradients are those of `run()`.
///
/// For this `run` has to consist of this crate's operations. Where one of candle's own takes part (a `narrow` is
/// one), on a GPU, and where nothing is tracked, this is `run()`.
///
/// # Errors
/// Those of `run`.
pub fn as_one_node<E: From<candle_core::Error>>(
    inputs: &[Tensor],
    run: impl FnOnce() -> std::result::Result<Tensor, E>,
) -> std::result::Result<Tensor, E> {
    let inputs: Vec<Tensor> = inputs.iter().filter(|input| input.track_op()).cloned().collect();
    if inputs.is_empty() || inputs.iter().any(|input| !input.device().is_cpu()) {
        return run();
    }
    let (output, tape) = with_tape(run);
    let output = output?;
    if !tape.covers(&inputs, &output) {
        return Ok(output);
    }
    let value = output.detach();
    Ok(custom_node(&inputs, value, TapedBlock { inputs: inputs.clone(), output, tape })?)
}

/// Block that has run, with its tape.
struct TapedBlock {
    inputs: Vec<Tensor>,
    output: Tensor,
    tape: Tape,
}

impl Gradients for TapedBlock {
    fn gradients(&self, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.tape.backward(&self.inputs, &self.output, dy)
    }
}
