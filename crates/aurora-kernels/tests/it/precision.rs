//! Linear layers and attention in bf16: every matmul of the forward and of the backward pass, against f64 products of
//! the operands as `half` rounds them.

use aurora_kernels::random::Stream;
use aurora_kernels::{
    AbsorbedKv, AttentionOptions, DeltaMode, LowRank, Precision, absorbed_attention,
    adapted_linear_with, attention, linear_with,
};
use candle_core::{D, DType, Tensor, Var};

const TOKENS: usize = 53;
const INPUT: usize = 70;
const OUT: usize = 37;
const RANK: usize = 5;

/// Tolerance for sums of at most 70 terms of size 1 in f32; a rounding to bf16 that is left out or done twice shows
/// as 1e-2.
const CLOSE: f64 = 1e-4;

fn rounded(tensor: &Tensor) -> Tensor {
    tensor.detach().to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
}

/// Product of the rounded operands.
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
    let y = linear_with(&x, &weight, Some(&bias), &Precision::Bf16.into()).unwrap();
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
    for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
        let Given { x, weight, bias, a, b, dy } = given();
        let (weight, bias) = (weight.as_detached_tensor(), bias.as_detached_tensor());
        let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
        let bf16 = &Precision::Bf16.into();
        let y = adapted_linear_with(&x, &weight, Some(&bias), &delta, mode, bf16).unwrap();
        // Narrow products are f32 when they become operands themselves.
        let z = linear_with(&x.detach(), &a.detach(), None, bf16).unwrap();
        let g = linear_with(&dy, &t(&b), None, bf16).unwrap();
        let (map, narrow, back) = match mode {
            DeltaMode::Reconstruct => (delta.merged_weight(&weight).unwrap(), None, None),
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
        let y = linear_with(&wide(&x), &wide(&weight), None, &precision.into()).unwrap();
        y.to_vec2::<f64>().unwrap()
    };
    assert_eq!(product(Precision::Bf16), product(Precision::F32));
}

/// Attention head, forward and backward, with every operand rounded and everything else in f64: out, dq, dk and dv.
/// Few keys, so that a probability that is not rounded, or twice, is off by 1e-3.
fn head(q: &Tensor, k: &Tensor, v: &Tensor, dout: &Tensor) -> [Tensor; 4] {
    let factor = (q.dims()[1] as f64).powf(-0.5);
    let scores = (product(q, &t(k)) * factor).unwrap();
    let powers =
        scores.broadcast_sub(&scores.max_keepdim(D::Minus1).unwrap()).unwrap().exp().unwrap();
    let p = powers.broadcast_div(&powers.sum_keepdim(D::Minus1).unwrap()).unwrap();
    let out = product(&p, v);
    let shift = (&out * dout.to_dtype(DType::F64).unwrap()).unwrap();
    let dp = product(dout, &t(v)).broadcast_sub(&shift.sum_keepdim(D::Minus1).unwrap()).unwrap();
    let ds = ((p.clone() * dp).unwrap() * factor).unwrap();
    let (dq, dk) = (product(&ds, k), product(&t(&ds), q));
    [out, dq, dk, product(&t(&p), dout)]
}

#[test]
fn attention_of_a_head() {
    // More queries than are taken at a time, fewer keys and columns than a tile has, and more.
    for (q_len, k_len, width) in [(70, 3, 16), (5, 4, 7), (9, 40, 64)] {
        let mut stream = Stream::new(2, "attention in bf16", 0, 0);
        let mut var = |length: usize| {
            let tensor = stream.normal_tensor((1, length, width), 1.0).unwrap();
            Var::from_tensor(&tensor.to_dtype(DType::F32).unwrap()).unwrap()
        };
        let (q, k, v, dout) = (var(q_len), var(k_len), var(k_len), var(q_len));
        let options = AttentionOptions { precision: Precision::Bf16, ..Default::default() };
        let out = attention(&q, &k, &v, 1, &options).unwrap();
        let grads = (&out * dout.as_detached_tensor()).unwrap().sum_all().unwrap();
        let grads = grads.backward().unwrap();
        let flat = |tensor: &Tensor| tensor.detach().squeeze(0).unwrap();
        let wanted = head(&flat(&q), &flat(&k), &flat(&v), &flat(&dout));
        let found = [&out, grads.get(&q).unwrap(), grads.get(&k).unwrap(), grads.get(&v).unwrap()];
        for ((found, wanted), name) in found.iter().zip(&wanted).zip(["out", "dq", "dk", "dv"]) {
            assert_close(&format!("{name} of {q_len} by {k_len}"), &flat(found), wanted);
        }
    }
}

/// Absorbed attention product by product, each with its operands rounded: queries by the key projection, by the
/// states, probabilities by the states, and that by the value projection.
#[test]
fn absorbed_attention_of_a_head() {
    let (q_len, k_len, width, depth) = (6, 4, 16, 24);
    let mut stream = Stream::new(3, "folded attention in bf16", 0, 0);
    let mut tensor = |rows: usize, columns: usize, scale: f64| {
        stream.normal_tensor((rows, columns), scale).unwrap().to_dtype(DType::F32).unwrap()
    };
    let (q, states) = (tensor(q_len, width, 1.0), tensor(k_len, depth, 1.0));
    let (key, value) = (tensor(width, depth, 0.2), tensor(width, depth, 0.2));
    let value_bias = tensor(1, width, 1.0);
    let of = AbsorbedKv {
        states: &states.unsqueeze(0).unwrap(),
        key: &key,
        value: &value,
        value_bias: &value_bias.squeeze(0).unwrap(),
        rows: None,
        precision: Precision::Bf16,
    };
    let out = absorbed_attention(&q.unsqueeze(0).unwrap(), &of, 1).unwrap();
    let factor = (width as f64).powf(-0.5);
    let scores = (product(&product(&q, &key), &t(&states)) * factor).unwrap();
    let powers = scores.exp().unwrap();
    let p = powers.broadcast_div(&powers.sum_keepdim(D::Minus1).unwrap()).unwrap();
    let mixed = product(&product(&p, &states), &t(&value));
    let wanted = mixed.broadcast_add(&value_bias.to_dtype(DType::F64).unwrap()).unwrap();
    assert_close("out", &out.squeeze(0).unwrap(), &wanted);
}
