//! Attention, forward and backward.

mod bounds;
mod case;
mod far;
mod reference;

use aurora_kernels::cuda::{Element, Executor};
use proptest::prelude::*;

use crate::kernels::support::executor;
use case::{Options, PLAIN, Place, check, inputs, shape};
use reference::{Shape, attention};

fn every_type(executor: &dyn Executor, shape: &Shape, options: &Options) {
    for element in Element::ALL {
        check(executor, element, shape, options);
    }
}

#[test]
fn every_head_size() {
    let Some(executor) = executor() else { return };
    for head in [32, 64, 80, 96, 128] {
        every_type(&*executor, &shape([1, 70, 75, 1, head]), &PLAIN);
    }
}

/// A packed projection is read in place, and so are heads that no tile has the width of.
#[test]
fn packed_heads_of_any_size() {
    let Some(executor) = executor() else { return };
    for head in [1, 24, 33, 65, 88, 127] {
        let options = Options { place: Place::Packed, ..PLAIN };
        every_type(&*executor, &shape([2, 17, 17, 2, head]), &options);
    }
}

/// Batches begin at multiples of 16 bytes, their rows do not.
#[test]
fn rows_that_begin_anywhere() {
    let Some(executor) = executor() else { return };
    let options = Options { place: Place::Apart { gap: 2, skip: 0 }, ..PLAIN };
    every_type(&*executor, &shape([2, 14, 14, 1, 32]), &options);
}

/// Lengths just below and above a tile's end, for queries and for keys.
#[test]
fn lengths_about_a_tile() {
    let Some(executor) = executor() else { return };
    for [q_len, k_len] in
        [[1, 1], [16, 31], [17, 32], [63, 33], [64, 63], [65, 64], [128, 65], [129, 129]]
    {
        let options = Options { mask: true, ..PLAIN };
        every_type(&*executor, &shape([1, q_len, k_len, 1, 32]), &options);
    }
}

#[test]
fn causal_text() {
    let Some(executor) = executor() else { return };
    for [q_len, k_len] in [[40, 40], [70, 70], [1, 50], [3, 66], [66, 100], [130, 200]] {
        let shape = Shape { causal: true, ..shape([1, q_len, k_len, 1, 32]) };
        every_type(&*executor, &shape, &PLAIN);
    }
}

/// Image tower at 224 pixels, one head of it.
#[test]
fn an_image_of_197_patches() {
    let Some(executor) = executor() else { return };
    every_type(&*executor, &shape([1, 197, 197, 1, 64]), &PLAIN);
}

/// Two texts of 35 words on one image of 577 patches and one on another, patches scaled.
#[test]
fn texts_on_images_of_577_patches() {
    let Some(executor) = executor() else { return };
    let shape = Shape { keys: 2, kv_rows: Some(vec![1, 0, 1]), ..shape([3, 35, 577, 1, 64]) };
    every_type(&*executor, &shape, &Options { scale: true, ..PLAIN });
}

/// A constant added to all scores cancels, be it past the range of the exponential.
#[test]
fn masks_far_from_zero() {
    let Some(executor) = executor() else { return };
    for shift in [-1000.0, 1000.0] {
        every_type(&*executor, &shape([1, 9, 40, 1, 32]), &Options { mask: true, shift, ..PLAIN });
    }
}

/// Keys that no query uses get zeros, and those that several use get the sum.
#[test]
fn rows_of_keys_that_are_shared_or_unused() {
    let Some(executor) = executor() else { return };
    for (queries, keys, rows) in [(4, 3, vec![2, 0, 2, 2]), (1, 3, vec![1]), (0, 2, vec![])] {
        let shape = Shape { keys, kv_rows: Some(rows), ..shape([queries, 70, 40, 2, 32]) };
        every_type(&*executor, &shape, &Options { mask: true, blind: true, ..PLAIN });
    }
}

/// Gradients of the reference itself, against differences of its results.
#[test]
fn the_reference_has_the_gradient_of_its_results() {
    let shape =
        Shape { keys: 2, kv_rows: Some(vec![1, 0, 1]), causal: true, ..shape([3, 4, 6, 2, 3]) };
    let options = Options { mask: true, blind: true, scale: true, ..PLAIN };
    let x = inputs(Element::F32, &shape, &options);
    let loss = |x: &reference::Inputs| -> f64 {
        let out = attention(Element::F32, &shape, x).out.value;
        out.iter().zip(&x.dout).map(|(out, dout)| out * dout).sum()
    };
    let results = attention(Element::F32, &shape, &x);
    type Part = fn(&mut reference::Inputs) -> &mut Vec<f64>;
    let parts: [(Part, &[f64]); 3] = [
        (|x| &mut x.q, &results.dq.value),
        (|x| &mut x.k, &results.dk.value),
        (|x| &mut x.v, &results.dv.value),
    ];
    let step = 1e-5;
    for (part, gradient) in parts {
        for (index, &gradient) in gradient.iter().enumerate() {
            let at = |by: f64| {
                let mut moved = x.clone();
                part(&mut moved)[index] += by;
                loss(&moved)
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (slope - gradient).abs() < 1e-8,
                "{index}: {gradient}, differences say {slope}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged_shapes_and_options_in_combination(
        (queries, keys, heads) in (1usize..4, 1usize..4, 1usize..3),
        (q_len, more) in (1usize..80, 0usize..90),
        head in prop_oneof![Just(16usize), Just(32), Just(40), 1usize..=64],
        (mask, blind, scale, causal) in any::<(bool, bool, bool, bool)>(),
        (packed, shared) in any::<(bool, bool)>(),
        (gap, skip) in (prop_oneof![Just(0usize), Just(8), 1usize..5], prop_oneof![Just(0usize), 1usize..4]),
        rows in proptest::collection::vec(0u32..3, 3),
        wanted in any::<[bool; 3]>(),
    ) {
        if let Some(executor) = executor() {
            let (keys, kv_rows) = if shared && !packed {
                let rows = rows[..queries].iter().map(|&row| row % keys as u32).collect();
                (keys, Some(rows))
            } else {
                (queries, None)
            };
            // More queries than keys where nothing forbids it.
            let (q_len, k_len) = if packed { (q_len, q_len) }
                else if causal { (q_len, q_len + more) } else { (q_len, more + 1) };
            let shape = Shape { queries, keys, q_len, k_len, heads, head, causal, kv_rows };
            let place = if packed { Place::Packed } else { Place::Apart { gap, skip } };
            every_type(&*executor, &shape, &Options { mask, blind, scale, place, wanted, ..PLAIN });
        }
    }
}
