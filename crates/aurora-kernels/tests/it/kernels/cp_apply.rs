//! CP apply, the fused low-rank forward, against f64.

use aurora_kernels::cuda::plan::{ApplyBuffers, CpApplyPlan};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::support::{Tensor, assert_within, executor, normal, projected, run, unit};

#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
    gap: usize,
    skip: usize,
}

fn check(executor: &dyn Executor, element: Element, sizes: Sizes) {
    let Sizes { tokens, inputs, outputs, rank, gap, skip } = sizes;
    let (x_stride, y_stride) = (inputs + gap, outputs + gap);
    let x = normal(element, 1, (tokens - 1) * x_stride + inputs);
    let a = normal(element, 2, rank * inputs);
    let b = normal(element, 3, outputs * rank);
    let y = normal(element, 4, (tokens - 1) * y_stride + outputs);
    let tensor = |values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let [tx, ta, tb, ty] = [&x, &a, &b, &y].map(|values| tensor(values));
    let plan = CpApplyPlan { element, tokens, inputs, outputs, rank, x_stride, y_stride };
    let memory =
        ApplyBuffers { x: tx.pointer(), a: ta.pointer(), b: tb.pointer(), y: ty.pointer() };
    run(executor, plan.launch(&memory).unwrap());

    let z = projected(element, &x, (tokens, inputs, x_stride), rank, |i, r| a[r * inputs + i]);
    let mut want = y.clone();
    let mut bounds = vec![0.0; y.len()];
    for t in 0..tokens {
        for o in 0..outputs {
            let (mut sum, mut sizes, mut off) = (0.0, 0.0, 0.0);
            for r in 0..rank {
                let (z, error) = z[t * rank + r];
                let b = b[o * rank + r];
                sum += z * b;
                sizes += (z * b).abs();
                off += error * b.abs();
            }
            let at = t * y_stride + o;
            let terms = 2.0 * (rank + 1) as f64;
            bounds[at] = off + unit(Element::F32) * (terms * (sizes + off) + want[at].abs());
            want[at] += sum;
        }
    }
    assert_within("y", element, &ty.values(), &want, &bounds);
}

fn all(sizes: Sizes) {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        check(&*executor, element, sizes);
    }
}

#[test]
fn captions() {
    all(Sizes { tokens: 35, inputs: 96, outputs: 288, rank: 16, gap: 0, skip: 0 });
    all(Sizes { tokens: 1, inputs: 192, outputs: 96, rank: 64, gap: 0, skip: 0 });
}

#[test]
fn more_components_than_a_chunk() {
    all(Sizes { tokens: 33, inputs: 72, outputs: 136, rank: 72, gap: 0, skip: 0 });
}

/// Enough tokens for a block to make several tiles of outputs from one z.
#[test]
fn several_tiles_of_a_block() {
    let Some(executor) = executor() else { return };
    let sizes = Sizes { tokens: 4200, inputs: 8, outputs: 130, rank: 3, gap: 0, skip: 0 };
    check(&*executor, Element::F16, sizes);
}

#[test]
fn nothing_to_add_is_no_launch() {
    let null = DevicePointer::NULL;
    let memory = ApplyBuffers { x: null, a: null, b: null, y: null };
    let plan = CpApplyPlan {
        element: Element::F32,
        tokens: 3,
        inputs: 8,
        outputs: 8,
        rank: 2,
        x_stride: 8,
        y_stride: 8,
    };
    assert!(plan.launch(&memory).unwrap().is_some());
    assert!(CpApplyPlan { tokens: 0, ..plan }.launch(&memory).unwrap().is_none());
    assert!(CpApplyPlan { rank: 0, ..plan }.launch(&memory).unwrap().is_none());
    assert!(CpApplyPlan { inputs: 0, ..plan }.launch(&memory).unwrap().is_none());
    assert!(CpApplyPlan { outputs: 0, ..plan }.launch(&memory).unwrap().is_none());
    let overlapping = CpApplyPlan { y_stride: 7, ..plan }.launch(&memory).unwrap_err().to_string();
    assert!(overlapping.contains("y_stride has shape [7], expected at least 8"));
    let wide = CpApplyPlan { inputs: 1 << 31, x_stride: 1 << 31, ..plan };
    assert!(wide.launch(&memory).unwrap_err().to_string().contains("at most 2147483647"));
    let long = CpApplyPlan { tokens: 1 << 40, ..plan }.launch(&memory).unwrap_err().to_string();
    assert!(long.contains("the grid"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged(
        tokens in 1usize..70,
        inputs in 1usize..140,
        outputs in 1usize..140,
        rank in 1usize..70,
        gap in 0usize..9,
        skip in 0usize..9,
    ) {
        all(Sizes { tokens, inputs, outputs, rank, gap, skip });
    }
}
