//! A checkpointed segment equals the segment: values and gradients to the bit, and nothing of it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aurora_kernels::random::Stream;
use aurora_kernels::{gelu, linear, recompute};
use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;

fn normal(name: &str, shape: (usize, usize)) -> Tensor {
    Stream::new(1, name, 0, 0).normal_tensor(shape, 1.0).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Layers `gelu(x W1) W2 ..`, each weight an input of its own.
fn layers(inputs: &[Tensor]) -> Result<Tensor> {
    let (x, weights) = inputs.split_first().unwrap();
    weights.iter().try_fold(x.clone(), |x, weight| gelu(&linear(&x, weight, None)?))
}

proptest! {
    /// Any number of inputs, any of them tracked: variables, and nodes that lead to one variable that all share.
    #[test]
    fn values_and_gradients_are_those_of_the_plain_graph(
        kinds in prop::collection::vec(0usize..3, 1..9),
    ) {
        let shared = Var::from_tensor(&normal("shared", (4, 4))).unwrap();
        let variables: Vec<Var> = (0..kinds.len())
            .map(|index| Var::from_tensor(&normal(&format!("{index}"), (4, 4))).unwrap())
            .collect();
        let inputs: Vec<Tensor> = kinds.iter().zip(&variables).map(|(kind, variable)| match kind {
            0 => variable.as_detached_tensor(),
            1 => variable.as_tensor().clone(),
            _ => (variable.as_detached_tensor() * shared.as_tensor()).unwrap(),
        }).collect();
        let run = |segment: bool| {
            // Around the segment there is a graph too, and its output is used twice.
            let y = match segment {
                true => recompute(&inputs, layers),
                false => layers(&inputs),
            }.unwrap();
            let loss = (y.sqr().unwrap() + &y).unwrap().sum_all().unwrap();
            let store = loss.backward().unwrap();
            let all = variables.iter().chain([&shared]);
            let gradients: Vec<_> = all.map(|variable| store.get(variable).map(bits)).collect();
            (bits(&y), gradients)
        };
        let (found, wanted) = (run(true), run(false));
        prop_assert_eq!(found.0, wanted.0);
        prop_assert_eq!(found.1, wanted.1);
    }
}

#[test]
fn runs_without_graph_and_once_more_for_the_gradients() {
    let (runs, graphs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, tracked) = (runs.clone(), graphs.clone());
    let run = move |inputs: &[Tensor]| -> Result<Tensor> {
        let y = layers(inputs)?;
        counted.fetch_add(1, Ordering::Relaxed);
        tracked.fetch_add(usize::from(y.track_op()), Ordering::Relaxed);
        Ok(y)
    };
    let counts = || (runs.load(Ordering::Relaxed), graphs.load(Ordering::Relaxed));
    let x = Var::from_tensor(&normal("x", (3, 4))).unwrap();
    let y = recompute(&[x.as_tensor().clone(), normal("w", (4, 4))], run).unwrap();
    assert_eq!(counts(), (1, 0));
    // The graph is the segment's nodes and the variable, nothing of what is inside.
    assert_eq!(y.sorted_nodes().len(), 3);
    let loss = y.sum_all().unwrap();
    let first = bits(loss.backward().unwrap().get(&x).unwrap());
    assert_eq!(counts(), (2, 1));
    // A graph can be differentiated again.
    assert_eq!(bits(loss.backward().unwrap().get(&x).unwrap()), first);
}

#[test]
fn an_input_without_a_part_takes_none() {
    let x = Var::from_tensor(&normal("x", (2, 2))).unwrap();
    let unused = Var::from_tensor(&normal("unused", (2, 2))).unwrap();
    let behind = Var::from_tensor(&normal("behind", (2, 2))).unwrap();
    let node = (behind.as_tensor() * 2.0).unwrap();
    let inputs = [x.as_tensor().clone(), unused.as_tensor().clone(), node];
    let y = recompute(&inputs, |inputs: &[Tensor]| inputs[0].sqr()).unwrap();
    let store = y.sum_all().unwrap().backward().unwrap();
    assert!(store.get(&x).is_some() && store.get(&unused).is_none());
    assert_eq!(bits(store.get(&behind).unwrap()), [0; 4]);
    // A part of a larger tensor is no other than a tensor of its own.
    let view = recompute(&inputs, |inputs: &[Tensor]| inputs[0].t()?.narrow(0, 1, 1)).unwrap();
    let wanted = x.as_detached_tensor().t().unwrap().narrow(0, 1, 1).unwrap();
    assert_eq!((view.dims(), bits(&view)), (wanted.dims(), bits(&wanted)));
    let zeros = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    assert!(!recompute(&[zeros], layers).unwrap().track_op());
}

#[test]
fn an_error_is_the_segments_own() {
    let x = Var::from_tensor(&normal("x", (2, 3))).unwrap();
    let run = |inputs: &[Tensor]| inputs[0].matmul(&inputs[0]);
    assert!(recompute(&[x.as_tensor().clone()], run).unwrap_err().to_string().contains("[2, 3]"));
}
