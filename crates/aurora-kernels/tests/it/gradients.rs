//! Gradients of every operation against central differences in f64, over ragged shapes.

use std::sync::Arc;

use crate::common::{check_gradients, normal, scattered};
use aurora_kernels::{
    AttentionOptions, DeltaMode, LowRank, adapted_linear, attention, cross_entropy, gelu,
    khatri_rao, layer_norm, linear, negative_log_likelihood, self_attention, soft_cross_entropy,
    transpose_contiguous,
};
use candle_core::{Device, Tensor};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn of_linear(
        seed: u64, tokens in 1usize..7, input in 1usize..9, out in 1usize..8,
        bias: bool, three: bool, strided: bool,
    ) {
        let shape: &[usize] = if three { &[2, tokens, input] } else { &[tokens, input] };
        let mut inputs = vec![normal(seed, 0, shape), normal(seed, 1, &[out, input])];
        if bias {
            inputs.push(normal(seed, 2, &[out]));
        }
        check_gradients(&inputs, |t| {
            let view = |x: &Tensor| if strided { scattered(x) } else { x.clone() };
            linear(&view(&t[0]), &view(&t[1]), t.get(2))
        });
    }

    #[test]
    fn of_an_adapted_map(
        seed: u64, tokens in 1usize..7, input in 1usize..9, out in 1usize..8, rank in 1usize..5,
        bias: bool, reconstruct: bool, strided: bool, all: bool,
    ) {
        let weight = normal(seed, 3, &[out, input]);
        let bias = bias.then(|| normal(seed, 4, &[out]));
        let mode = if reconstruct { DeltaMode::Reconstruct } else { DeltaMode::Apply };
        let mut inputs = vec![
            normal(seed, 0, &[2, tokens, input]),
            normal(seed, 1, &[rank, input]),
            normal(seed, 2, &[out, rank]),
        ];
        if all {
            inputs.push(weight.clone());
        }
        check_gradients(&inputs, |t| {
            let view = |x: &Tensor| if strided { scattered(x) } else { x.clone() };
            let delta = LowRank::new(view(&t[1]), view(&t[2]))?;
            adapted_linear(&view(&t[0]), t.get(3).unwrap_or(&weight), bias.as_ref(), &delta, mode)
        });
    }

    #[test]
    fn of_a_khatri_rao_product(
        seed: u64, width in 1usize..140, slices in 1usize..4, rank in 1usize..4, strided: bool,
        transposed: bool,
    ) {
        let inputs = [normal(seed, 0, &[width, rank]), normal(seed, 1, &[slices, rank])];
        check_gradients(&inputs, |t| {
            let view = |x: &Tensor| if strided { scattered(x) } else { x.clone() };
            let product = khatri_rao(&view(&t[0]), &view(&t[1]))?;
            if transposed { transpose_contiguous(&product) } else { Ok(product) }
        });
    }

    #[test]
    fn of_layer_norm(seed: u64, rows in 1usize..6, width in 1usize..41, strided: bool) {
        let inputs =
            [normal(seed, 0, &[2, rows, width]), normal(seed, 1, &[width]), normal(seed, 2, &[width])];
        check_gradients(&inputs, |t| {
            let x = if strided { scattered(&t[0]) } else { t[0].clone() };
            layer_norm(&x, &t[1], &t[2], 0.1)
        });
    }

    #[test]
    fn of_gelu(seed: u64, rows in 1usize..6, width in 1usize..20, strided: bool) {
        let x = (normal(seed, 0, &[rows, width]) * 2.0).unwrap();
        check_gradients(&[x], |t| gelu(&if strided { scattered(&t[0]) } else { t[0].clone() }));
    }

    #[test]
    fn of_attention(
        seed: u64, keys in 1usize..4, q_len in 1usize..6, more in 0usize..4, heads in 1usize..4,
        head in 1usize..5, causal: bool, mask: bool, scale: bool, strided: bool,
        rows in proptest::option::of(prop::collection::vec(0u32..100, 1..6)),
    ) {
        let (k_len, width) = (q_len + more, heads * head);
        let rows: Option<Arc<[u32]>> =
            rows.map(|rows| rows.into_iter().map(|row| row % keys as u32).collect());
        let queries = rows.as_ref().map_or(keys, |rows| rows.len());
        let options = AttentionOptions {
            // Hides the first key by a large number, the others by a little.
            key_mask: mask.then(|| {
                let hide = Tensor::arange(0f64, k_len as f64, &Device::Cpu).unwrap();
                let hide = (hide.eq(0f64).unwrap().to_dtype(candle_core::DType::F64).unwrap()
                    * if k_len > 1 { -1e9 } else { 0.0 }).unwrap();
                normal(seed, 5, &[queries, k_len]).broadcast_add(&hide).unwrap()
            }),
            causal,
            key_scale: scale.then(|| normal(seed, 6, &[queries, k_len])),
            kv_rows: rows,
            ..Default::default()
        };
        let inputs = [
            normal(seed, 0, &[queries, q_len, width]),
            normal(seed, 1, &[keys, k_len, width]),
            normal(seed, 2, &[keys, k_len, width]),
        ];
        check_gradients(&inputs, |t| {
            let view = |x: &Tensor| if strided { scattered(x) } else { x.clone() };
            attention(&view(&t[0]), &view(&t[1]), &view(&t[2]), heads, &options)
        });
    }

    #[test]
    fn of_self_attention(
        seed: u64, batch in 1usize..4, length in 1usize..6, heads in 1usize..4, head in 1usize..5,
        causal: bool, strided: bool,
    ) {
        let inputs = [normal(seed, 0, &[batch, length, 3 * heads * head])];
        let options = AttentionOptions { causal, ..Default::default() };
        check_gradients(&inputs, |t| {
            let x = if strided { scattered(&t[0]) } else { t[0].clone() };
            self_attention(&x, heads, &options)
        });
    }

    #[test]
    fn of_cross_entropy(seed: u64, rows in 1usize..6, classes in 1usize..40, strided: bool) {
        let inputs = [normal(seed, 0, &[rows, classes])];
        let targets = normal(seed, 1, &[rows, classes]).sqr().unwrap();
        let labels: Vec<u32> = (0..rows).map(|row| ((seed as usize ^ row) % classes) as u32).collect();
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let view = |x: &Tensor| if strided { scattered(x) } else { x.clone() };
        check_gradients(&inputs, |t| soft_cross_entropy(&view(&t[0]), &view(&targets)));
        check_gradients(&inputs, |t| cross_entropy(&view(&t[0]), &labels));
        for smoothing in [0.0, 0.1] {
            check_gradients(&inputs, |t| negative_log_likelihood(&view(&t[0]), &labels, smoothing));
        }
    }
}

/// Several blocks of queries and rows are put together rightly.
#[test]
fn across_blocks() {
    let inputs = [normal(1, 0, &[1, 70, 2]), normal(1, 1, &[1, 71, 2]), normal(1, 2, &[1, 71, 2])];
    let options = AttentionOptions { causal: true, ..Default::default() };
    check_gradients(&inputs, |t| attention(&t[0], &t[1], &t[2], 1, &options));
    let inputs = [normal(2, 0, &[130, 3]), normal(2, 1, &[3]), normal(2, 2, &[3])];
    check_gradients(&inputs, |t| layer_norm(&t[0], &t[1], &t[2], 0.1));
    let inputs = [normal(3, 0, &[130, 3]), normal(3, 1, &[2, 3]), normal(3, 2, &[2])];
    check_gradients(&inputs, |t| linear(&t[0], &t[1], Some(&t[2])));
}
