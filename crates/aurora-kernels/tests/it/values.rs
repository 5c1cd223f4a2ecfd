//! Every operation in f32 against its plain f64 reference, and the two modes of an adapted linear layer against each
//! other.

use std::sync::Arc;

use crate::common::{difference, normal, scattered, values};
use aurora_kernels::{
    AbsorbedKv, AttentionOptions, DeltaMode, LowRank, Precision, absorbed_attention,
    adapted_linear, attention, cross_entropy, gelu, khatri_rao, layer_norm, linear,
    negative_log_likelihood, patchify, reference, self_attention, soft_cross_entropy,
    transpose_contiguous,
};
use candle_core::{D, DType, Device, Tensor};

/// Numbers rounded to f32, as f32 and as f64 for the reference.
fn single(tensor: &Tensor) -> (Tensor, Vec<f64>) {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    let exact = values(&tensor);
    (tensor, exact)
}

fn assert_close(op: &str, got: &Tensor, want: &[f64], limit: f64) {
    assert_eq!(got.dtype(), DType::F32);
    let error = difference(&values(got), want);
    assert!(error < limit, "{op} is off by {error:e}");
}

#[test]
fn linear_maps() {
    // Ragged, one token, and more rows than a block.
    for (tokens, input, out) in [(1, 1, 1), (5, 7, 3), (37, 192, 65), (601, 24, 40), (0, 3, 2)] {
        let (x, xs) = single(&normal(1, 0, &[tokens, input]));
        let (w, ws) = single(&normal(1, 1, &[out, input]));
        let (b, bs) = single(&normal(1, 2, &[out]));
        let want = reference::linear(&xs, &ws, Some(&bs), input);
        assert_close("linear", &linear(&x, &w, Some(&b)).unwrap(), &want, 1e-6);
        if tokens > 0 {
            let got = linear(&scattered(&x), &scattered(&w), Some(&b)).unwrap();
            assert_close("linear, strided", &got, &want, 1e-6);
        }
        let want = reference::linear(&xs, &ws, None, input);
        assert_close("linear without bias", &linear(&x, &w, None).unwrap(), &want, 1e-6);
    }
}

#[test]
fn leading_dimensions_are_kept() {
    let x = normal(1, 0, &[2, 3, 4, 5]);
    let w = normal(1, 1, &[6, 5]);
    assert_eq!(linear(&x, &w, None).unwrap().dims(), [2, 3, 4, 6]);
    // One token of each row: strides, but no copy needed.
    let first = x.narrow(2, 0, 1).unwrap();
    let want = linear(&first.contiguous().unwrap(), &w, None).unwrap();
    assert_eq!(values(&linear(&first, &w, None).unwrap()), values(&want));
}

#[test]
fn khatri_rao_is_the_factor_scaled_for_each_slice() {
    // Ragged, more rows than a block, and none.
    for (width, slices, rank) in
        [(1, 1, 1), (5, 3, 2), (150, 2, 17), (0, 2, 3), (4, 0, 3), (4, 2, 0)]
    {
        let factor = normal(7, 0, &[width, rank]).to_dtype(DType::F32).unwrap();
        let scales = normal(7, 1, &[slices, rank]).to_dtype(DType::F32).unwrap();
        let want = factor.unsqueeze(0).unwrap().broadcast_mul(&scales.unsqueeze(1).unwrap());
        let want = want.unwrap().flatten_to(1).unwrap();
        let product = khatri_rao(&factor, &scales).unwrap();
        assert_eq!(product.dims(), [slices * width, rank]);
        assert_eq!(values(&product), values(&want));
        let across = transpose_contiguous(&product).unwrap();
        assert_eq!(across.dims(), [rank, slices * width]);
        assert!(across.is_contiguous());
        assert_eq!(values(&across), values(&want.t().unwrap()));
    }
    let matrix = |rows, columns| Tensor::zeros((rows, columns), DType::F32, &Device::Cpu).unwrap();
    let e = khatri_rao(&matrix(4, 3), &matrix(2, 5)).unwrap_err().to_string();
    assert!(e.contains("khatri_rao") && e.contains("[4, 3]") && e.contains("[2, 5]"), "{e}");
    let other = matrix(2, 3).to_dtype(DType::F64).unwrap();
    assert!(khatri_rao(&matrix(4, 3), &other).is_err());
    assert!(transpose_contiguous(&Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn applying_equals_reconstructing() {
    for (tokens, input, out, rank) in [(1, 3, 2, 1), (9, 16, 24, 4), (300, 48, 144, 16)] {
        let (x, xs) = single(&normal(2, 0, &[tokens, input]));
        let (w, ws) = single(&normal(2, 1, &[out, input]));
        let (b, bs) = single(&normal(2, 2, &[out]));
        let (down, downs) = single(&normal(2, 3, &[rank, input]));
        let (up, ups) = single(&normal(2, 4, &[out, rank]));
        let merged = reference::merged_weight(&ws, &downs, &ups, input);
        let want = reference::linear(&xs, &merged, Some(&bs), input);
        let delta = LowRank::new(down, up).unwrap();
        assert_close("merged", &delta.merged_weight(&w).unwrap(), &merged, 1e-6);
        for mode in [DeltaMode::Apply, DeltaMode::Reconstruct, DeltaMode::Auto] {
            let got = adapted_linear(&x, &w, Some(&b), &delta, mode).unwrap();
            assert_close("adapted_linear", &got, &want, 2e-6);
        }
    }
}

#[test]
fn a_zero_delta_changes_no_bit() {
    let x = single(&normal(3, 0, &[50, 24])).0;
    let w = single(&normal(3, 1, &[30, 24])).0;
    let b = single(&normal(3, 2, &[30])).0;
    let a = single(&normal(3, 3, &[4, 24])).0;
    let delta = LowRank::new(a, Tensor::zeros((30, 4), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let want: Vec<Vec<f32>> = linear(&x, &w, Some(&b)).unwrap().to_vec2().unwrap();
    for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
        let got = adapted_linear(&x, &w, Some(&b), &delta, mode).unwrap();
        assert_eq!(got.to_vec2::<f32>().unwrap(), want);
    }
}

#[test]
fn normalized_rows() {
    for (rows, width) in [(1, 1), (3, 5), (200, 192)] {
        let (x, xs) = single(&(normal(4, 0, &[rows, width]) + 3.0).unwrap());
        let (w, ws) = single(&normal(4, 1, &[width]));
        let (b, bs) = single(&normal(4, 2, &[width]));
        let want = reference::layer_norm(&xs, &ws, &bs, 1e-6);
        assert_close("layer_norm", &layer_norm(&x, &w, &b, 1e-6).unwrap(), &want, 2e-6);
        let got = layer_norm(&scattered(&x), &w, &b, 1e-6).unwrap();
        assert_close("layer_norm, strided", &got, &want, 2e-6);
    }
}

#[test]
fn gelu_values() {
    let (x, xs) = single(&(normal(5, 0, &[70, 300]) * 3.0).unwrap());
    let want = reference::gelu(&xs);
    assert_close("gelu", &gelu(&x).unwrap(), &want, 3e-7);
    assert_close("gelu, strided", &gelu(&scattered(&x)).unwrap(), &want, 3e-7);
    let far = Tensor::new(&[-1e30f32, -50.0, 50.0, f32::NEG_INFINITY], &Device::Cpu).unwrap();
    let far: Vec<f32> = gelu(&far).unwrap().to_vec1().unwrap();
    assert_eq!(far[..3], [0.0, 0.0, 50.0]);
}

#[test]
fn attention_values() {
    let cases = [
        // (q rows, k rows, Tq, Tk, heads, head)
        (1, 1, 1, 1, 1, 1),
        (2, 2, 3, 5, 2, 3),
        (3, 3, 37, 37, 3, 64),
        (5, 2, 16, 37, 3, 64),
        (1, 1, 130, 141, 2, 12),
    ];
    for (queries, keys, q_len, k_len, heads, head) in cases {
        let width = heads * head;
        let (q, qs) = single(&normal(6, 0, &[queries, q_len, width]));
        let (k, ks) = single(&normal(6, 1, &[keys, k_len, width]));
        let (v, vs) = single(&normal(6, 2, &[keys, k_len, width]));
        let (mask, masks) = single(&normal(6, 3, &[queries, k_len]));
        let (scale, scales) = single(&normal(6, 4, &[queries, k_len]));
        for bits in 0..8 {
            let with = |bit: usize| bits & bit != 0;
            let rows: Option<Vec<u32>> =
                (queries != keys).then(|| (0..queries).map(|row| (row % keys) as u32).collect());
            let options = AttentionOptions {
                key_mask: with(1).then(|| mask.clone()),
                key_scale: with(2).then(|| scale.clone()),
                causal: with(4),
                kv_rows: rows.clone().map(Arc::from),
                ..Default::default()
            };
            let plain = reference::AttentionSpec {
                q_len,
                k_len,
                heads,
                width,
                key_mask: with(1).then(|| masks.clone()),
                key_scale: with(2).then(|| scales.clone()),
                causal: with(4),
                kv_rows: rows,
            };
            let want = reference::attention(&qs, &ks, &vs, &plain);
            let got = attention(&q, &k, &v, heads, &options).unwrap();
            assert_close("attention", &got, &want, 3e-6);
            let got = attention(&scattered(&q), &scattered(&k), &scattered(&v), heads, &options);
            assert_close("attention, strided", &got.unwrap(), &want, 3e-6);
            if queries == keys && q_len == k_len {
                let packed = Tensor::cat(&[&q, &k, &v], D::Minus1).unwrap();
                let got = self_attention(&packed, heads, &options).unwrap();
                assert_close("self_attention", &got, &want, 3e-6);
            }
        }
    }
}

#[test]
fn a_query_without_keys_gives_zeros() {
    let q = single(&normal(7, 0, &[2, 3, 4])).0;
    let hidden = f32::NEG_INFINITY;
    let mask = Tensor::new(&[[0f32, hidden, hidden], [hidden; 3]], &Device::Cpu).unwrap();
    let options = AttentionOptions { key_mask: Some(mask), ..Default::default() };
    let q = candle_core::Var::from_tensor(&q).unwrap();
    let out = attention(&q, &q, &q, 2, &options).unwrap();
    let rows: Vec<Vec<Vec<f32>>> = out.to_vec3().unwrap();
    let first: Vec<f32> = q.get(0).unwrap().get(0).unwrap().to_vec1().unwrap();
    assert!(rows[0].iter().all(|row| *row == first));
    assert!(rows[1].iter().flatten().all(|x| *x == 0.0));
    let grads = out.sum_all().unwrap().backward().unwrap();
    let grad = values(grads.get(&q).unwrap());
    assert!(grad.iter().all(|x| x.is_finite()));
    assert!(grad[12..].iter().all(|x| *x == 0.0));
}

#[test]
fn cross_entropies() {
    for (rows, classes) in [(1, 1), (4, 3), (33, 1000)] {
        let (x, xs) = single(&(normal(8, 0, &[rows, classes]) * 5.0).unwrap());
        let (t, ts) = single(&normal(8, 1, &[rows, classes]).abs().unwrap());
        let want = reference::soft_cross_entropy(&xs, &ts, classes);
        let got = soft_cross_entropy(&x, &t).unwrap();
        assert_eq!(got.rank(), 0);
        assert_close("soft_cross_entropy", &got, &[want], 1e-6);
        let labels: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
        let mut hot = vec![0.0; rows * classes];
        labels.iter().enumerate().for_each(|(row, l)| hot[row * classes + *l as usize] = 1.0);
        let want = reference::soft_cross_entropy(&xs, &hot, classes);
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let got = cross_entropy(&x, &labels).unwrap();
        assert_close("cross_entropy", &got, &[want], 1e-6);
        for smoothing in [0.0, 0.1] {
            let target = |hot: &f64| (1.0 - smoothing) * hot + smoothing / classes as f64;
            let smooth: Vec<f64> = hot.iter().map(target).collect();
            let rows = xs.chunks(classes).zip(smooth.chunks(classes));
            let want: Vec<f64> =
                rows.map(|(x, t)| reference::soft_cross_entropy(x, t, classes)).collect();
            let got = negative_log_likelihood(&x, &labels, smoothing).unwrap();
            assert_close("negative_log_likelihood", &got, &want, 1e-5);
        }
    }
    // A class that cannot be, and is not wanted.
    let x = Tensor::new(&[[0f32, 0.0, f32::NEG_INFINITY]], &Device::Cpu).unwrap();
    let t = Tensor::new(&[[1f32, 0.0, 0.0]], &Device::Cpu).unwrap();
    let got: f32 = soft_cross_entropy(&x, &t).unwrap().to_scalar().unwrap();
    assert!((got - 2f32.ln()).abs() < 1e-6);
}

#[test]
fn patches_and_a_linear_map_are_a_convolution() {
    let images = normal(9, 0, &[2, 3, 8, 8]);
    let weight = normal(9, 1, &[5, 3, 4, 4]);
    let patches = patchify(&images, 4).unwrap();
    assert_eq!(patches.dims(), [2, 4, 48]);
    let got = linear(&patches, &weight.reshape((5, 48)).unwrap(), None).unwrap();
    let want = images.conv2d(&weight, 0, 4, 1, 1).unwrap(); // (2, 5, 2, 2)
    let want = want.flatten_from(2).unwrap().transpose(1, 2).unwrap();
    assert!(difference(&values(&got), &values(&want)) < 1e-12);
}

#[test]
fn empty_tensors_go_through() {
    let x = normal(10, 0, &[2, 0]);
    let (w, b) = (normal(10, 1, &[3, 0]), normal(10, 2, &[3]));
    let y: Vec<Vec<f64>> = linear(&x, &w, Some(&b)).unwrap().to_vec2().unwrap();
    assert_eq!(y, [b.to_vec1::<f64>().unwrap(), b.to_vec1().unwrap()]);
    assert_eq!(gelu(&x).unwrap().dims(), [2, 0]);
    assert_eq!(layer_norm(&normal(10, 3, &[0, 3]), &b, &b, 1e-6).unwrap().dims(), [0, 3]);
    let q = normal(10, 4, &[0, 2, 4]);
    let out = attention(&q, &q, &q, 2, &AttentionOptions::default()).unwrap();
    assert_eq!(out.dims(), [0, 2, 4]);
}

#[test]
fn absorbed_attention_is_attention_over_the_maps_outputs() {
    for (queries, q_len, heads, head, keys, k_len, depth) in [
        (1, 1, 1, 3, 1, 1, 5),
        (3, 5, 2, 4, 2, 7, 9),
        (40, 13, 4, 16, 40, 37, 24),
        // Neighbors that look at the same states.
        (70, 3, 2, 8, 1, 9, 12),
    ] {
        let width = heads * head;
        let q = normal(31, 0, &[queries, q_len, width]);
        let states = normal(31, 1, &[keys, k_len, depth]);
        let [key, value] = [2, 3].map(|which| normal(31, which, &[width, depth]));
        let [key_bias, value_bias] = [4, 5].map(|which| normal(31, which, &[width]));
        let rows: Vec<u32> = (0..queries as u32).map(|row| (row * 7 + 1) % keys as u32).collect();
        let k = linear(&states, &key, Some(&key_bias)).unwrap();
        let v = linear(&states, &value, Some(&value_bias)).unwrap();
        let options =
            AttentionOptions { kv_rows: Some(rows.as_slice().into()), ..Default::default() };
        let want = attention(&q, &k, &v, heads, &options).unwrap();
        let fold = |dtype: DType, limit: f64| {
            let [q, states, key, value, value_bias] =
                [&q, &states, &key, &value, &value_bias].map(|t| t.to_dtype(dtype).unwrap());
            let (states, key, value, value_bias) = (&states, &key, &value, &value_bias);
            let precision = Precision::F32;
            let of = AbsorbedKv { states, key, value, value_bias, rows: Some(&rows), precision };
            let got = absorbed_attention(&q, &of, heads).unwrap();
            assert_eq!(got.dims(), want.dims());
            let error = difference(&values(&got), &values(&want));
            assert!(error < limit, "{dtype:?} is off by {error:e}");
        };
        fold(DType::F64, 1e-12);
        fold(DType::F32, 1e-5);
    }
}

#[test]
fn absorbed_attention_refuses_what_it_cannot_do() {
    let [q, x, w] = [&[2, 3, 4][..], &[2, 5, 6], &[4, 6]].map(|shape| normal(32, 0, shape));
    let bias = normal(32, 1, &[4]);
    let precision = Precision::F32;
    let of =
        AbsorbedKv { states: &x, key: &w, value: &w, value_bias: &bias, rows: None, precision };
    assert!(absorbed_attention(&q, &of, 2).is_ok());
    let message =
        |of: &AbsorbedKv<'_>, heads| absorbed_attention(&q, of, heads).unwrap_err().to_string();
    assert!(message(&of, 3).contains("[2, 3, 4]"));
    assert!(message(&AbsorbedKv { rows: Some(&[0, 2]), ..of }, 2).contains('2'));
    assert!(message(&AbsorbedKv { rows: Some(&[0]), ..of }, 2).contains("rows"));
    let tracked = candle_core::Var::from_tensor(&w).unwrap();
    let message = message(&AbsorbedKv { key: tracked.as_tensor(), ..of }, 2);
    assert!(message.contains("absorbed_attention"), "{message}");
}
