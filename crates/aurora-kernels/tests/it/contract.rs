//! Contract of the operations besides their values: frozen tensors stay untouched, results repeat to the bit, wrong
//! arguments are named.

use std::sync::Arc;

use crate::common::{normal, values};
use aurora_kernels::audit::missing_gradients;
use aurora_kernels::{
    AttentionOptions, DeltaMode, LowRank, adapted_linear, attention, cross_entropy, gelu,
    layer_norm, linear, patchify, self_attention, soft_cross_entropy,
};
use candle_core::{DType, Device, Tensor, Var};

fn var(seed: u64, index: u64, shape: &[usize]) -> Var {
    Var::from_tensor(&normal(seed, index, shape).to_dtype(DType::F32).unwrap()).unwrap()
}

/// A pass without a graph and its recomputation with one are equal to the bit, for any number of tokens.
#[test]
fn the_cheaper_way_does_not_depend_on_the_graph() {
    let weight = var(3, 0, &[48, 48]).as_detached_tensor();
    let (a, b) = (var(3, 1, &[4, 48]), var(3, 2, &[48, 4]));
    for tokens in [1, 20, 100, 143, 145, 300] {
        let x = var(3, tokens, &[tokens as usize, 48]).as_detached_tensor();
        let run = |a: Tensor, b: Tensor| {
            let delta = LowRank::new(a, b).unwrap();
            values(&adapted_linear(&x, &weight, None, &delta, DeltaMode::Auto).unwrap())
        };
        let tracked = run(a.as_tensor().clone(), b.as_tensor().clone());
        assert_eq!(run(a.as_detached_tensor(), b.as_detached_tensor()), tracked, "{tokens}");
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient() {
    let x = var(1, 0, &[6, 4]);
    let weight = var(1, 1, &[5, 4]).as_detached_tensor();
    let bias = var(1, 2, &[5]).as_detached_tensor();
    let (a, b) = (var(1, 3, &[2, 4]), var(1, 4, &[5, 2]));
    let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
    for mode in [None, Some(DeltaMode::Apply), Some(DeltaMode::Reconstruct)] {
        let y = match mode {
            None => linear(&x, &weight, Some(&bias)),
            Some(mode) => adapted_linear(&x, &weight, Some(&bias), &delta, mode),
        };
        let grads = y.unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some());
        assert!(grads.get(&weight).is_none());
        assert!(grads.get(&bias).is_none());
        assert_eq!(grads.get(&a).is_some(), mode.is_some());
        assert_eq!(grads.get(&b).is_some(), mode.is_some());
        assert!(grads.get_ids().count() <= 4, "a gradient for something untracked");
    }
}

#[test]
fn nothing_tracked_builds_no_graph() {
    let x = normal(2, 0, &[2, 3, 6]);
    let w = normal(2, 1, &[6, 6]);
    let b = normal(2, 2, &[6]);
    let delta = LowRank::new(normal(2, 3, &[2, 6]), normal(2, 4, &[6, 2])).unwrap();
    let options = AttentionOptions::default();
    for y in [
        linear(&x, &w, Some(&b)),
        adapted_linear(&x, &w, None, &delta, DeltaMode::Auto),
        layer_norm(&x, &b, &b, 1e-6),
        gelu(&x),
        attention(&x, &x, &x, 2, &options),
        self_attention(&x, 2, &options),
        soft_cross_entropy(&w, &w),
    ] {
        assert!(!y.unwrap().track_op());
    }
}

#[test]
fn only_what_is_tracked_gets_a_gradient() {
    let frozen = normal(3, 0, &[2, 3, 4]).to_dtype(DType::F32).unwrap();
    let [q, k, v] = [1, 2, 3].map(|index| var(3, index, &[2, 3, 4]));
    for which in 0..3 {
        let pick =
            |i: usize, x: &Var| if i == which { x.as_tensor().clone() } else { frozen.clone() };
        let out =
            attention(&pick(0, &q), &pick(1, &k), &pick(2, &v), 2, &AttentionOptions::default());
        let grads = out.unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let missing = missing_gradients(
            &grads,
            [("q", q.as_tensor()), ("k", k.as_tensor()), ("v", v.as_tensor())],
        );
        let want: Vec<&str> = ["q", "k", "v"]
            .into_iter()
            .enumerate()
            .filter(|(i, _)| *i != which)
            .map(|x| x.1)
            .collect();
        assert_eq!(missing, want);
    }
    let (weight, bias) = (var(3, 4, &[4]), var(3, 5, &[4]));
    let y = layer_norm(&frozen, &weight, &bias.as_detached_tensor(), 1e-6).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&weight).is_some() && grads.get(&bias).is_none());
}

#[test]
fn the_audit_names_what_was_not_reached() {
    let used = var(4, 0, &[3]);
    let unused = var(4, 1, &[3]);
    let grads = used.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let all = [("used", used.as_tensor()), ("unused", unused.as_tensor())];
    assert_eq!(missing_gradients(&grads, all), ["unused"]);
}

/// Bits of one forward and backward pass through everything.
fn everything() -> Vec<u64> {
    let x = var(5, 0, &[20, 37, 48]);
    let w = var(5, 1, &[144, 48]);
    let bias = var(5, 2, &[144]);
    let (a, b) = (var(5, 3, &[8, 48]), var(5, 4, &[144, 8]));
    let (scale, shift) = (var(5, 5, &[48]), var(5, 6, &[48]));
    let delta = LowRank::new(a.as_tensor().clone(), b.as_tensor().clone()).unwrap();
    let frozen = w.as_detached_tensor();
    let n = layer_norm(&x, &scale, &shift, 1e-6).unwrap();
    let qkv = adapted_linear(&n, &frozen, None, &delta, DeltaMode::Reconstruct).unwrap();
    let h = self_attention(&qkv, 3, &AttentionOptions::default()).unwrap();
    // Many rows of queries on few rows of keys.
    let rows: Arc<[u32]> = (0..20).map(|row| row % 3).collect();
    let options = AttentionOptions { kv_rows: Some(rows), ..Default::default() };
    let keys = x.narrow(0, 0, 3).unwrap();
    let h = (h + attention(&n, &keys, &keys, 3, &options).unwrap()).unwrap();
    let wide = gelu(&linear(&h, &w, Some(&bias)).unwrap()).unwrap();
    let logits = wide.mean(1).unwrap();
    let targets = logits.sqr().unwrap();
    let loss = soft_cross_entropy(&logits, &targets).unwrap();
    let grads = loss.backward().unwrap();
    [&x, &w, &bias, &a, &b, &scale, &shift]
        .iter()
        .flat_map(|var| values(grads.get(var).unwrap()))
        .chain(values(&loss))
        .map(f64::to_bits)
        .collect()
}

#[test]
fn results_repeat_to_the_bit() {
    let first = everything();
    for _ in 0..5 {
        assert_eq!(everything(), first);
    }
    // Other numbers of threads share the work out differently, but add up alike.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(everything), first, "{threads} threads");
    }
}

#[test]
fn the_merged_weight_is_formed_once() {
    let weight = normal(6, 0, &[4, 3]);
    let delta = LowRank::new(normal(6, 1, &[2, 3]), normal(6, 2, &[4, 2])).unwrap();
    let first = delta.merged_weight(&weight).unwrap();
    assert_eq!(delta.merged_weight(&weight).unwrap().id(), first.id());
    let other = normal(6, 3, &[4, 3]);
    let got = values(&delta.merged_weight(&other).unwrap());
    let want = values(&((first - &weight).unwrap() + other).unwrap());
    assert!(crate::common::difference(&got, &want) < 1e-12);
}

/// Message of a refusal.
fn refusal(result: candle_core::Result<Tensor>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn wrong_arguments_are_named_with_both_shapes() {
    let t = |shape: &[usize]| normal(7, 0, shape);
    let default = AttentionOptions::default();
    let message = refusal(linear(&t(&[2, 3]), &t(&[4, 5]), None));
    for part in ["linear", "x", "[2, 3]", "weight", "[4, 5]"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let cases = [
        (refusal(linear(&t(&[2, 5]), &t(&[4, 5]), Some(&t(&[3])))), "bias of shape [3]"),
        (refusal(linear(&t(&[2, 5]), &t(&[4, 5]).to_dtype(DType::F32).unwrap(), None)), "f32"),
        (refusal(gelu(&Tensor::new(&[1u32], &Device::Cpu).unwrap())), "f32 or f64"),
        (refusal(layer_norm(&t(&[2, 5]), &t(&[4]), &t(&[5]), 1e-6)), "weight of shape [4]"),
        (refusal(layer_norm(&t(&[2, 5]), &t(&[5]), &t(&[1, 5]), 1e-6)), "bias of shape [1, 5]"),
        (
            refusal(attention(&t(&[1, 2, 6]), &t(&[1, 2, 4]), &t(&[1, 2, 4]), 2, &default)),
            "[1, 2, 4]",
        ),
        (
            refusal(attention(&t(&[1, 2, 6]), &t(&[1, 2, 6]), &t(&[1, 3, 6]), 2, &default)),
            "[1, 3, 6]",
        ),
        (
            refusal(attention(&t(&[1, 2, 6]), &t(&[1, 2, 6]), &t(&[1, 2, 6]), 4, &default)),
            "4 heads",
        ),
        (
            refusal(attention(&t(&[2, 2, 6]), &t(&[1, 2, 6]), &t(&[1, 2, 6]), 2, &default)),
            "kv_rows",
        ),
        (refusal(self_attention(&t(&[1, 2, 7]), 1, &default)), "(B, T, 3 D)"),
        (refusal(soft_cross_entropy(&t(&[2, 3]), &t(&[3, 2]))), "targets of shape [3, 2]"),
        (
            refusal(cross_entropy(&t(&[1, 3]), &Tensor::new(&[3u32], &Device::Cpu).unwrap())),
            "only 3",
        ),
        (refusal(cross_entropy(&t(&[1, 3]), &Tensor::new(&[0f32], &Device::Cpu).unwrap())), "u32"),
        (refusal(patchify(&t(&[1, 3, 9, 8]), 4)), "patch size 4"),
        (refusal(LowRank::new(t(&[2, 3]), t(&[4, 3])).map(|_| t(&[1]))), "a of shape [2, 3]"),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let delta = LowRank::new(t(&[2, 3]), t(&[4, 2])).unwrap();
    let message = refusal(adapted_linear(&t(&[1, 5]), &t(&[4, 5]), None, &delta, DeltaMode::Auto));
    assert!(message.contains("a of shape [2, 3]"), "{message}");
    let options =
        |rows: &[u32]| AttentionOptions { kv_rows: Some(rows.into()), ..Default::default() };
    let q = t(&[2, 2, 6]);
    assert!(refusal(attention(&q, &q, &q, 2, &options(&[0, 2]))).contains("kv_rows[1] is 2"));
    assert!(refusal(attention(&q, &q, &q, 2, &options(&[0]))).contains("kv_rows of shape [1]"));
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let k = t(&[2, 1, 6]);
    assert!(refusal(attention(&q, &k, &k, 2, &causal)).contains("causal"));
    let mask = AttentionOptions { key_mask: Some(t(&[2, 3])), ..Default::default() };
    assert!(refusal(attention(&q, &q, &q, 2, &mask)).contains("key_mask of shape [2, 3]"));
}
