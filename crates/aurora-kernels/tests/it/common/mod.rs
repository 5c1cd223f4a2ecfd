//! Finite differences, random tensors and comparisons shared by the tests.

use aurora_kernels::random::Stream;
use candle_core::{DType, Result, Tensor, Var};

/// Normal f64 tensor named by a seed and an index.
pub fn normal(seed: u64, index: u64, shape: &[usize]) -> Tensor {
    let mut stream = Stream::new(seed, "test tensor", 0, index);
    stream.normal_tensor(shape, 1.0).unwrap().to_dtype(DType::F64).unwrap()
}

/// All elements in order, as f64.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Tensor with the same numbers behind other strides: a transpose of a copy stored transposed, at an offset.
pub fn scattered(tensor: &Tensor) -> Tensor {
    let last = tensor.rank() - 1;
    let moved = tensor.transpose(0, last).unwrap().contiguous().unwrap();
    let twice = Tensor::cat(&[&moved, &moved], 0).unwrap();
    let half = twice.dim(0).unwrap() / 2;
    twice.narrow(0, half, half).unwrap().transpose(0, last).unwrap()
}

/// Largest difference relative to the largest magnitude (or 1).
pub fn difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1f64, |top, x| top.max(x.abs()));
    got.iter().zip(want).fold(0f64, |top, (a, b)| {
        assert!(a.is_finite() == b.is_finite(), "{a} against {b}");
        top.max((a - b).abs() / scale)
    })
}

/// Compares the gradients of `sum(f(inputs) * weights)` with central differences, for f64 inputs;
/// `weights` are random and fixed.
pub fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tracked).unwrap();
    let weights = normal(99, 0, out.dims());
    let loss = out.mul(&weights).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let weights = values(&weights);
    let at = |inputs: &[Tensor]| -> f64 {
        values(&f(inputs).unwrap()).iter().zip(&weights).map(|(a, b)| a * b).sum()
    };
    let step = 1e-5;
    for (which, input) in inputs.iter().enumerate() {
        let grad = grads.get(&vars[which]).unwrap_or_else(|| panic!("no gradient {which}"));
        assert_eq!(grad.dims(), input.dims());
        assert!(!grad.track_op(), "gradient {which} has a graph");
        let flat = values(input);
        let numeric: Vec<f64> = (0..flat.len())
            .map(|element| {
                let side = |sign: f64| {
                    let mut moved = flat.clone();
                    moved[element] += sign * step;
                    let mut inputs = inputs.to_vec();
                    inputs[which] = Tensor::from_vec(moved, input.dims(), input.device()).unwrap();
                    at(&inputs)
                };
                (side(1.0) - side(-1.0)) / (2.0 * step)
            })
            .collect();
        let error = difference(&values(grad), &numeric);
        assert!(error < 1e-7, "gradient {which} is off by {error:e}");
    }
}
