//! Linear maps in bf16: every product of the forward and of the backward pass, against f64 products of the factors as
//! `half` rounds them.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use aurora_kernels::random::Stream;
use aurora_kernels::{LowRank, Mode, Precision, adapted_linear_in, linear_in};
use candle_core::{DType, Tensor, Var};

const TOKENS: usize = 53;
const INPUT: usize = 70;
const OUT: usize = 37;
const RANK: usize = 5;

/// Sums of at most 70 terms of size 1 in f32; a rounding to bf16 that is left out or done twice shows as 1e-2.
const CLOSE: f64 = 1e-4;

fn rounded(tensor: &Tensor) -> Tensor {
    tensor.detach().to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
}

/// The product of the rounded factors.
fn product(left: &Tensor, right: &Tensor) -> Tensor {
    rounded(left).matmul(&rounded(right)).unwrap()
}

fn assert_close(name: &str, found: &Tensor, wanted: &Tensor) {
    assert_eq!(found.dims(), wanted.dims(), "{name}");
    let apart = (found.to_dtype(DType::F64).unwrap() - wanted).unwrap().abs().unwrap();
    let off = apart.max_all().unwrap().to_scalar::<f64>().unwrap();
    assert!(off <= CLOSE, "{name}: off by {off:e}");
}

struct Given {
    x: Var,
    weight: Var,
    bias: Var,
    a: Var,
    b: Var,
    dy: Tensor,
}

fn given() -> Given {
    let mut stream = Stream::new(1, "maps in bf16", 0, 0);
    let mut tensor = |rows: usize, columns: usize| {
        stream.normal_tensor((rows, columns), 1.0).unwrap().to_dtype(DType::F32).unwrap()
    };
    let dy = tensor(TOKENS, OUT);
    let bias = tensor(1, OUT).squeeze(0).unwrap();
    let mut var = |rows, columns| Var::from_tensor(&tensor(rows, columns)).unwrap();
    let (x, weight) = (var(TOKENS, INPUT), var(OUT, INPUT));
    let (a, b) = (var(RANK, INPUT), var(OUT, RANK));
    Given { x, weight, bias: Var::from_tensor(&bias).unwrap(), a, b, dy }
}

fn t(tensor: &Tensor) -> Tensor {
    tensor.detach().t().unwrap()
}

#[test]
fn a_linear_map() {
    let Given { x, weight, bias, dy, .. } = given();
    let y = linear_in(&x, &weight, Some(&bias), &Precision::Bf16.into()).unwrap();
    let wide_bias = bias.detach().to_dtype(DType::F64).unwrap();
    let wanted = product(&x, &t(&weight)).broadcast_add(&wide_bias).unwrap();
    assert_close("y", &y, &wanted);
    let grads = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    assert_close("dx", grads.get(&x).unwrap(), &product(&dy, &weight));
    assert_close("dW", grads.get(&weight).unwrap(), &product(&t(&dy), &x));
    let sums = dy.to_dtype(DType::F64).unwrap().sum(0).unwrap();
    assert_close("db", grads.get(&bias).unwrap(), &sums);
}

#[test]
fn an_adapted_map() {
    for mode in [Mode::Apply, Mode::Reconstruct] {
        let Given { x, weight, bias, a, b, dy } = given();
        let (weight, bias) = (weight.as_detached_tensor(), bias.as_detached_tensor());
        let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
        let bf16 = &Precision::Bf16.into();
        let y = adapted_linear_in(&x, &weight, Some(&bias), &delta, mode, bf16).unwrap();
        // Narrow products are f32 when they become factors themselves.
        let z = linear_in(&x.detach(), &a.detach(), None, bf16).unwrap();
        let g = linear_in(&dy, &t(&b), None, bf16).unwrap();
        let (map, narrow, back) = match mode {
            Mode::Reconstruct => (delta.effective(&weight).unwrap(), None, None),
            _ => (weight, Some(product(&z, &t(&b))), Some(product(&g, &a))),
        };
        let with =
            |sum: Tensor, more: Option<Tensor>| more.map_or(sum.clone(), |m| (sum + m).unwrap());
        let wide_bias = bias.to_dtype(DType::F64).unwrap();
        let wanted = with(product(&x, &t(&map)), narrow).broadcast_add(&wide_bias).unwrap();
        assert_close(&format!("{mode:?} y"), &y, &wanted);
        let grads = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let dx = with(product(&dy, &map), back);
        assert_close(&format!("{mode:?} dx"), grads.get(&x).unwrap(), &dx);
        assert_close(&format!("{mode:?} dA"), grads.get(&a).unwrap(), &product(&t(&g), &x));
        assert_close(&format!("{mode:?} dB"), grads.get(&b).unwrap(), &product(&t(&dy), &z));
    }
}

/// f64 is for checks, and is never rounded.
#[test]
fn doubles_are_as_they_are() {
    let Given { x, weight, .. } = given();
    let wide = |var: &Var| var.detach().to_dtype(DType::F64).unwrap();
    let product = |precision: Precision| {
        let y = linear_in(&wide(&x), &wide(&weight), None, &precision.into()).unwrap();
        y.to_vec2::<f64>().unwrap()
    };
    assert_eq!(product(Precision::Bf16), product(Precision::F32));
}
