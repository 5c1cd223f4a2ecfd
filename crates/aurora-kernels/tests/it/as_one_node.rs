//! A block as one node equals the block: values and gradients, whatever it is made of.

use aurora_kernels::random::Stream;
use aurora_kernels::{
    AttentionOptions, DeltaMode, Epilogue, LowRank, adapted_linear_with, as_one_node, attention,
    gelu, layer_norm, linear, linear_with, recompute, self_attention,
};
use candle_core::{DType, Result, Tensor, Var};
use proptest::prelude::*;

fn normal(name: &str, shape: &[usize]) -> Tensor {
    Stream::new(1, name, 0, 0).normal_tensor(shape, 1.0).unwrap().to_dtype(DType::F64).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Width of the states.
const WIDTH: usize = 4;

/// Step of a block: takes states (2, 3, 4) and tensors of the block to states.
fn step(kind: usize, x: &Tensor, tensors: &[Tensor]) -> Result<Tensor> {
    let [square, packed, a, b, vector] = tensors else { unreachable!() };
    let options = AttentionOptions::default();
    match kind {
        0 => layer_norm(x, vector, vector, 1e-5),
        1 => gelu(x),
        2 => linear(x, square, Some(vector)),
        3 => linear_with(
            x,
            square,
            None,
            &Epilogue { gelu: true, residual: Some(x.clone()), ..Epilogue::default() },
        ),
        4 => {
            let delta = LowRank::new(a.clone(), b.clone())?;
            let residual = Some(x.clone());
            let options = Epilogue { residual, ..Epilogue::default() };
            let frozen = normal("frozen", &[WIDTH, WIDTH]);
            adapted_linear_with(x, &frozen, None, &delta, DeltaMode::Reconstruct, &options)
        }
        5 => self_attention(&linear(x, packed, None)?, 2, &options),
        6 => attention(x, &linear(x, square, None)?, x, 2, &options),
        // candle's own: no tape has it.
        _ => x.sqr(),
    }
}

fn block(kinds: &[usize], x: &Tensor, tensors: &[Tensor]) -> Result<Tensor> {
    kinds.iter().try_fold(x.clone(), |x, &kind| step(kind, &x, tensors))
}

proptest! {
    /// Any operations in any order, some of candle's own among them, any of the tensors tracked: as one node, as a
    /// checkpointed segment, and plainly.
    #[test]
    fn values_and_gradients_are_those_of_the_plain_graph(
        kinds in prop::collection::vec(0usize..8, 1..7),
        tracked in prop::collection::vec(any::<bool>(), 6),
    ) {
        let shapes: [&[usize]; 6] =
            [&[2, 3, WIDTH], &[WIDTH, WIDTH], &[3 * WIDTH, WIDTH], &[2, WIDTH], &[WIDTH, 2], &[WIDTH]];
        let variables: Vec<Var> = shapes.iter().enumerate()
            .map(|(index, shape)| Var::from_tensor(&normal(&format!("{index}"), shape)).unwrap())
            .collect();
        // x is a node, not a variable, as it is between blocks.
        let inputs: Vec<Tensor> = variables.iter().zip(&tracked).enumerate().map(|(index, (variable, tracked))| {
            match (tracked, index) {
                (false, _) => variable.as_detached_tensor(),
                (true, 0) => variable.affine(1.0, 0.0).unwrap(),
                (true, _) => variable.as_tensor().clone(),
            }
        }).collect();
        let run = |way: usize| {
            let forward = {
                let kinds = kinds.clone();
                move |inputs: &[Tensor]| block(&kinds, &inputs[0], &inputs[1..])
            };
            let y = match way {
                0 => forward(&inputs),
                1 => as_one_node(&inputs, || forward(&inputs)),
                _ => recompute(&inputs, forward),
            }.unwrap();
            // The node is used twice, and its input once beside it.
            let loss = (y.sqr().unwrap() + &y).unwrap().sum_all().unwrap();
            let loss = (loss + inputs[0].sum_all().unwrap()).unwrap();
            let store = loss.backward().unwrap();
            let gradients: Vec<_> =
                variables.iter().map(|variable| store.get(variable).map(values)).collect();
            (values(&y), gradients)
        };
        let plain = run(0);
        for way in [1, 2] {
            let (y, gradients) = run(way);
            prop_assert_eq!(&y, &plain.0);
            for (found, wanted) in gradients.iter().zip(&plain.1) {
                // A segment gives a variable that has no part in it none, a plain graph neither.
                let none = vec![];
                let (found, wanted) = (found.as_ref().unwrap_or(&none), wanted.as_ref().unwrap_or(&none));
                prop_assert_eq!(found.len(), wanted.len());
                let scale = wanted.iter().fold(1e-300f64, |scale, x| scale.max(x.abs()));
                for (found, wanted) in found.iter().zip(wanted) {
                    prop_assert!((found - wanted).abs() <= 1e-12 * scale, "{} {}", found, wanted);
                }
            }
        }
    }
}

#[test]
fn a_block_is_one_node_and_can_be_differentiated_again() {
    let x = Var::from_tensor(&normal("x", &[2, 3, WIDTH])).unwrap();
    let w = Var::from_tensor(&normal("w", &[WIDTH, WIDTH])).unwrap();
    let inputs = [x.as_tensor().clone(), w.as_tensor().clone()];
    let y = as_one_node(&inputs, || gelu(&linear(&gelu(&x)?, &w, None)?)).unwrap();
    // The two variables, the node, and the link to both.
    assert_eq!(y.sorted_nodes().len(), 4);
    let loss = y.sum_all().unwrap();
    let first = values(loss.backward().unwrap().get(&w).unwrap());
    assert_eq!(values(loss.backward().unwrap().get(&w).unwrap()), first);
}

#[test]
fn what_is_not_named_as_an_input_keeps_its_gradient() {
    let x = Var::from_tensor(&normal("x", &[3, WIDTH])).unwrap();
    let w = Var::from_tensor(&normal("w", &[WIDTH, WIDTH])).unwrap();
    // w is left out, so the block stays a graph of its own.
    let y = as_one_node(&[x.as_tensor().clone()], || linear(&x, &w, None)).unwrap();
    assert!(y.sum_all().unwrap().backward().unwrap().get(&w).is_some());
}

#[test]
fn a_block_that_fails_leaves_no_tape() {
    let x = Var::from_tensor(&normal("x", &[3, WIDTH])).unwrap();
    let wrong = normal("w", &[WIDTH, WIDTH + 1]);
    let failed = as_one_node(&[x.as_tensor().clone()], || linear(&x, &wrong, None));
    assert!(failed.is_err());
    assert_eq!(gelu(&x).unwrap().sorted_nodes().len(), 2);
}
