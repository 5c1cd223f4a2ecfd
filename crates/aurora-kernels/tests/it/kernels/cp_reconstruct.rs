//! Reconstruction of merged weights, from CP and from a core, against f64.

use aurora_kernels::cuda::plan::{CpReconstructPlan, FactorPair, Slice};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::support::{Tensor, assert_within, executor, normal, rounded, run, unit};

/// Slice of a case: its pair, how far its rows are from dense, and where its tensors begin.
#[derive(Debug, Clone, Copy)]
struct Shape {
    pair: usize,
    gap: usize,
    skip: usize,
}

struct Case {
    rank: usize,
    cores: bool,
    lambda: bool,
    /// (inputs, outputs).
    pairs: Vec<(usize, usize)>,
    slices: Vec<Shape>,
}

/// Left side of the delta, (outputs, rank), as the kernel multiplies it, with the error bound of each number.
fn left(
    element: Element,
    case: &Case,
    (v, modes, lambda): (&[f64], &[f64], &[f64]),
    o: usize,
) -> Vec<(f64, f64)> {
    let rank = case.rank;
    let v = &v[o * rank..(o + 1) * rank];
    let single = |x: f64| rounded(Element::F32, x);
    (0..rank)
        .map(|r| {
            if !case.cores {
                let s = if case.lambda { single(lambda[r] * modes[r]) } else { modes[r] };
                if element == Element::F32 {
                    // Scaled on the other side of the product: two roundings either way.
                    return (v[r] * s, 2.0 * unit(Element::F32) * (v[r] * s).abs());
                }
                return (rounded(element, single(v[r] * s)), 0.0);
            }
            let terms =
                (0..rank).map(|j| rounded(element, v[j]) * rounded(element, modes[r * rank + j]));
            let sum: f64 = terms.clone().sum();
            let sizes: f64 = terms.map(f64::abs).sum();
            let off = 2.0 * rank as f64 * unit(Element::F32) * sizes;
            (sum, off + unit(element) * (sum.abs() + off) + 2f64.powi(-25))
        })
        .collect()
}

fn check(executor: &dyn Executor, element: Element, case: &Case) {
    let rank = case.rank;
    let numbers = |index: u64, length: usize, size: f64| -> Vec<f64> {
        normal(Element::F32, index, length)
            .iter()
            .map(|x| rounded(Element::F32, x * size))
            .collect()
    };
    let factors: Vec<_> = case
        .pairs
        .iter()
        .zip(0..)
        .map(|(&(inputs, outputs), i)| {
            (numbers(100 + i, inputs * rank, 0.5), numbers(200 + i, outputs * rank, 0.5))
        })
        .collect();
    let lambda = numbers(300, rank, 1.0);
    let single = |values: &[f64]| Tensor::new(executor, Element::F32, values);
    let factor_tensors: Vec<_> = factors.iter().map(|(u, v)| (single(u), single(v))).collect();
    let lambda_tensor = single(&lambda);

    let mut tensors = Vec::new();
    for (shape, index) in case.slices.iter().zip(1000..) {
        let (inputs, outputs) = case.pairs[shape.pair];
        let stride = inputs + shape.gap;
        let length = if outputs == 0 { 0 } else { (outputs - 1) * stride + inputs };
        let weight = normal(element, index, length);
        let modes = numbers(index + 1000, if case.cores { rank * rank } else { rank }, 1.0);
        tensors.push((
            Tensor::skipping(executor, element, &weight, shape.skip),
            Tensor::output(executor, element, length + outputs * shape.gap + shape.skip),
            single(&modes),
            weight,
            modes,
        ));
    }
    let plan = CpReconstructPlan {
        element,
        rank,
        cores: case.cores,
        pairs: case
            .pairs
            .iter()
            .zip(&factor_tensors)
            .map(|(&(inputs, outputs), (u, v))| FactorPair {
                u: u.pointer(),
                v: v.pointer(),
                inputs,
                outputs,
            })
            .collect(),
        slices: case
            .slices
            .iter()
            .zip(&tensors)
            .map(|(shape, (weight, merged, modes, ..))| Slice {
                pair: shape.pair,
                weight: weight.pointer(),
                merged: merged.pointer().offset(shape.skip, element),
                modes: modes.pointer(),
                weight_stride: case.pairs[shape.pair].0 + shape.gap,
                merged_stride: case.pairs[shape.pair].0 + 2 * shape.gap,
            })
            .collect(),
    };
    let table = plan.table().unwrap().unwrap();
    let memory = executor.allocate(table.bytes.len()).unwrap();
    executor.upload(&table.bytes, &*memory).unwrap();
    let lambda_pointer = if case.lambda { lambda_tensor.pointer() } else { DevicePointer::NULL };
    run(executor, [table.launch(memory.pointer(), lambda_pointer).unwrap()]);

    for (index, (shape, (_, merged, _, weight, modes))) in
        case.slices.iter().zip(&tensors).enumerate()
    {
        let (inputs, outputs) = case.pairs[shape.pair];
        let (u, v) = &factors[shape.pair];
        let stride = inputs + shape.gap;
        let merged_stride = stride + shape.gap;
        let got = merged.values();
        let (mut have, mut want, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        for o in 0..outputs {
            let left = left(element, case, (v, modes, &lambda), o);
            for i in 0..inputs {
                let (mut sum, mut sizes, mut off) = (0.0, 0.0, 0.0);
                for (r, &(l, error)) in left.iter().enumerate() {
                    let u = rounded(element, u[i * rank + r]);
                    sum += l * u;
                    sizes += (l * u).abs();
                    off += error * u.abs();
                }
                let w = weight[o * stride + i];
                have.push(got[shape.skip + o * merged_stride + i]);
                want.push(w + sum);
                let terms = 2.0 * (rank + 1) as f64;
                bounds.push(off + unit(Element::F32) * (terms * (sizes + off) + w.abs()));
            }
            // The memory between the rows is not the kernel's.
            if o + 1 < outputs {
                let begin = shape.skip + o * merged_stride + inputs;
                assert!(got[begin..begin + 2 * shape.gap].iter().all(|x| x.is_nan()));
            }
        }
        assert_within(&format!("slice {index}"), element, &have, &want, &bounds);
    }
}

fn all(case: &Case) {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        check(&*executor, element, case);
    }
}

fn dense(pair: usize, count: usize) -> Vec<Shape> {
    vec![Shape { pair, gap: 0, skip: 0 }; count]
}

#[test]
fn sites_of_two_towers_in_one_launch() {
    // Fused qkv and fc1 are dense; the slices of fc2 are columns of wider rows.
    let mut slices = dense(0, 4);
    slices.extend([Shape { pair: 1, gap: 0, skip: 0 }, Shape { pair: 0, gap: 96, skip: 0 }]);
    slices.extend(dense(2, 2));
    let pairs = vec![(96, 96), (160, 64), (96, 136)];
    all(&Case { rank: 16, cores: false, lambda: true, pairs, slices });
}

#[test]
fn full_cores() {
    let mut slices = dense(0, 2);
    slices.push(Shape { pair: 1, gap: 8, skip: 8 });
    all(&Case { rank: 32, cores: true, lambda: false, pairs: vec![(96, 96), (40, 72)], slices });
}

#[test]
fn more_components_than_a_chunk() {
    for (rank, cores) in [(130, false), (65, true), (64, false)] {
        let slices = dense(0, 2);
        all(&Case { rank, cores, lambda: !cores, pairs: vec![(136, 40)], slices });
    }
}

/// Enough slices for a block to take several, some of them in a block that is not full.
#[test]
fn many_slices_of_a_block() {
    let pairs = vec![(8, 8), (24, 16)];
    let mut slices = dense(0, 505);
    slices.extend(dense(1, 29));
    let Some(executor) = executor() else { return };
    let case = Case { rank: 3, cores: false, lambda: true, pairs, slices };
    check(&*executor, Element::Bf16, &case);
}

#[test]
fn no_component_copies() {
    let slices = dense(0, 1);
    all(&Case { rank: 0, cores: false, lambda: false, pairs: vec![(24, 9)], slices });
}

fn plan(pair: (usize, usize), slice_pair: usize, stride: usize) -> CpReconstructPlan {
    let null = DevicePointer::NULL;
    let (inputs, outputs) = pair;
    CpReconstructPlan {
        element: Element::Bf16,
        rank: 4,
        cores: false,
        pairs: vec![FactorPair { u: null, v: null, inputs, outputs }],
        slices: vec![Slice {
            pair: slice_pair,
            weight: null,
            merged: null,
            modes: null,
            weight_stride: stride,
            merged_stride: stride,
        }],
    }
}

/// BLIP-base: 216 slices of 12 x 6 tiles, eight slices a block.
#[test]
fn blocks_of_blip_base() {
    let one = plan((768, 768), 0, 768);
    let all = CpReconstructPlan { rank: 64, slices: vec![one.slices[0]; 216], ..one };
    let table = all.table().unwrap().unwrap();
    assert_eq!(table.bytes.len(), 217 * 40);
    let launch = table.launch(DevicePointer::NULL, DevicePointer::NULL).unwrap();
    assert_eq!((launch.grid, launch.block), ([1944, 1, 1], 256));
}

#[test]
fn nothing_to_do_is_no_launch() {
    assert!(plan((0, 8), 0, 8).table().unwrap().is_none());
    assert!(plan((8, 0), 0, 8).table().unwrap().is_none());
    assert!(CpReconstructPlan { slices: vec![], ..plan((8, 8), 0, 8) }.table().unwrap().is_none());
}

#[test]
fn what_cannot_be_is_refused() {
    let message = |plan: CpReconstructPlan| plan.table().unwrap_err().to_string();
    assert!(message(plan((8, 8), 1, 8)).contains("pairs has shape [1], expected at least 2"));
    assert!(
        message(plan((8, 8), 0, 7)).contains("weight_stride has shape [7], expected at least 8")
    );
    assert!(message(plan((1 << 31, 8), 0, 1 << 31)).contains("at most 2147483647 elements"));
    assert!(message(CpReconstructPlan { rank: 1 << 31, ..plan((8, 8), 0, 8) }).contains("rank"));
    // 2^24 by 2^24 tiles of one slice.
    let huge = plan(((1 << 31) - 1, (1 << 31) - 1), 0, 1 << 31).table().unwrap().unwrap();
    let launch = huge.launch(DevicePointer::NULL, DevicePointer::NULL);
    assert!(launch.unwrap_err().to_string().contains("the grid"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged_slices(
        inputs in 1usize..150,
        outputs in 1usize..80,
        other in 1usize..40,
        rank in 1usize..70,
        cores: bool,
        lambda: bool,
        shapes in prop::collection::vec((0usize..2, 0usize..9, 0usize..9), 1..4),
    ) {
        let pairs = vec![(inputs, outputs), (other, inputs)];
        let slices =
            shapes.into_iter().map(|(pair, gap, skip)| Shape { pair, gap, skip }).collect();
        all(&Case { rank, cores, lambda: lambda && !cores, pairs, slices });
    }
}
