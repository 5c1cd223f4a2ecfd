//! A linear layer with a GELU and a residual as epilogue equals the three operations one after the other, forward and
//! backward.

use crate::common::{difference, normal, values};
use aurora_kernels::{
    DeltaMode, Epilogue, LowRank, adapted_linear, adapted_linear_with, gelu, linear, linear_with,
};
use candle_core::{DType, Tensor, Var};

const TOKENS: usize = 103;
const INPUT: usize = 20;
const OUT: usize = 70;

struct Inputs {
    x: Var,
    weight: Var,
    bias: Var,
    a: Var,
    b: Var,
    residual: Var,
}

impl Inputs {
    fn new(dtype: DType) -> Self {
        let make = |index, shape: &[usize]| {
            Var::from_tensor(&normal(41, index, shape).to_dtype(dtype).unwrap()).unwrap()
        };
        Self {
            x: make(0, &[TOKENS, INPUT]),
            weight: make(1, &[OUT, INPUT]),
            bias: make(2, &[OUT]),
            a: make(3, &[3, INPUT]),
            b: make(4, &[OUT, 3]),
            residual: make(5, &[TOKENS, OUT]),
        }
    }

    fn all(&self) -> [&Var; 6] {
        [&self.x, &self.weight, &self.bias, &self.a, &self.b, &self.residual]
    }
}

/// Outputs, and gradients of everything that has one.
fn results(inputs: &Inputs, y: &Tensor) -> Vec<Vec<f64>> {
    let towards = normal(41, 9, &[TOKENS, OUT]).to_dtype(y.dtype()).unwrap();
    let grads = (y * towards).unwrap().sum_all().unwrap().backward().unwrap();
    let found = inputs.all().map(|var| grads.get(var).map_or(Vec::new(), values));
    [vec![values(y)], found.to_vec()].concat()
}

fn assert_same(what: &str, found: &[Vec<f64>], wanted: &[Vec<f64>], limit: f64) {
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.len(), wanted.len(), "{what}: gradient {index} is there or not");
        let error = difference(found, wanted);
        assert!(error <= limit, "{what}, {index}: {error:e}");
    }
}

fn plain(y: Tensor, with: (bool, bool), residual: &Tensor) -> Tensor {
    let y = if with.0 { gelu(&y).unwrap() } else { y };
    if with.1 { (y + residual).unwrap() } else { y }
}

#[test]
fn epilogues_of_plain_and_adapted_linear_layers() {
    for (dtype, limit) in [(DType::F64, 1e-13), (DType::F32, 2e-6)] {
        let inputs = Inputs::new(dtype);
        let Inputs { x, weight, bias, a, b, residual } = &inputs;
        let frozen = [weight, bias].map(Var::as_detached_tensor);
        for with in [(false, false), (true, false), (false, true), (true, true)] {
            let kept = with.1.then(|| residual.as_tensor().clone());
            let epilogue = Epilogue { gelu: with.0, residual: kept, ..Default::default() };
            let what = format!("{dtype:?} {with:?}");
            let check = |w: &Tensor, bias: Option<&Tensor>| {
                let found = linear_with(x, w, bias, &epilogue).unwrap();
                let wanted = plain(linear(x, w, bias).unwrap(), with, residual);
                assert_same(&what, &results(&inputs, &found), &results(&inputs, &wanted), limit);
            };
            check(weight, Some(bias));
            check(weight, None);
            check(&frozen[0], Some(&frozen[1]));
            for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
                for (w, bias) in [(&frozen[0], &frozen[1]), (weight.as_tensor(), &frozen[1])] {
                    let delta =
                        || LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
                    let found =
                        adapted_linear_with(x, w, Some(bias), &delta(), mode, &epilogue).unwrap();
                    let wanted = adapted_linear(x, w, Some(bias), &delta(), mode).unwrap();
                    let wanted = plain(wanted, with, residual);
                    let (found, wanted) = (results(&inputs, &found), results(&inputs, &wanted));
                    assert_same(&format!("{what} {mode:?}"), &found, &wanted, limit);
                }
            }
        }
    }
}

#[test]
fn without_a_graph_the_residual_is_added_in_the_same_pass() {
    let inputs = Inputs::new(DType::F64);
    let [x, weight, bias, a, b, residual] = inputs.all().map(Var::as_detached_tensor);
    let epilogue = Epilogue { gelu: true, residual: Some(residual.clone()), ..Default::default() };
    let found = linear_with(&x, &weight, Some(&bias), &epilogue).unwrap();
    let wanted = plain(linear(&x, &weight, Some(&bias)).unwrap(), (true, true), &residual);
    assert!(difference(&values(&found), &values(&wanted)) < 1e-14);
    for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
        let delta = LowRank::new(a.clone(), b.clone()).unwrap();
        let found = adapted_linear_with(&x, &weight, Some(&bias), &delta, mode, &epilogue).unwrap();
        let wanted = adapted_linear(&x, &weight, Some(&bias), &delta, mode).unwrap();
        let wanted = plain(wanted, (true, true), &residual);
        assert!(difference(&values(&found), &values(&wanted)) < 1e-14);
    }
}

#[test]
fn a_residual_of_another_shape_is_refused() {
    let inputs = Inputs::new(DType::F64);
    let [x, weight, bias, ..] = inputs.all().map(Var::as_detached_tensor);
    for residual in [normal(1, 0, &[TOKENS, OUT - 1]), normal(1, 0, &[1, TOKENS, OUT])] {
        let epilogue = Epilogue { residual: Some(residual.clone()), ..Default::default() };
        let message = linear_with(&x, &weight, Some(&bias), &epilogue).unwrap_err().to_string();
        assert!(message.contains(&format!("{:?}", residual.dims())), "{message}");
    }
}
