//! AdamW and the moving average against f64.

use aurora_kernels::cuda::plan::{
    AdamWBuffers, AdamWConstants, AdamWPlan, AveragedBuffers, MovingAveragePlan,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::support::{Tensor, executor, normal, run, upload};

const BETAS: [f64; 2] = [0.9, 0.999];

/// AdamW constants, as the CPU optimizer forms them.
fn constants(step: i32, rate: f64, decay: f64) -> AdamWConstants {
    let correction = BETAS.map(|beta| 1.0 - beta.powi(step));
    AdamWConstants {
        shrink: (1.0 - rate * decay) as f32,
        blend1: (1.0 - BETAS[0]) as f32,
        beta2: BETAS[1] as f32,
        blend2: (1.0 - BETAS[1]) as f32,
        root_correction2: correction[1].sqrt() as f32,
        eps: 1e-8,
        step_size: (rate / correction[0]) as f32,
    }
}

/// AdamW update as the CPU optimizer does it (`crates/aurora-train/src/optimizer.rs`), operation by operation.
fn update(c: AdamWConstants, [p, m, v]: &mut [Vec<f32>; 3], g: &[f64]) {
    for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
        let g = g as f32;
        *p *= c.shrink;
        *m += c.blend1 * (g - *m);
        *v = *v * c.beta2 + c.blend2 * g * g;
        let denominator = v.sqrt() / c.root_correction2 + c.eps;
        *p -= c.step_size * *m / denominator;
    }
}

#[track_caller]
fn assert_bits(what: &str, got: &[f64], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert_eq!((got as f32).to_bits(), want.to_bits(), "{what}: element {index}");
    }
}

fn adamw(executor: &dyn Executor, element: Element, lengths: &[usize], skips: &[usize]) {
    let f32s = |index: usize, length: usize| normal(Element::F32, index as u64, length);
    let mut state: Vec<[Vec<f32>; 3]> = Vec::new();
    let mut tensors = Vec::new();
    for (index, (&length, &skip)) in lengths.iter().zip(skips.iter().cycle()).enumerate() {
        let values = f32s(index, length);
        let zeros = vec![0.0; length];
        state.push([
            values.iter().map(|&x| x as f32).collect(),
            vec![0.0; length],
            vec![0.0; length],
        ]);
        tensors.push(
            [&values, &zeros, &zeros]
                .map(|values| Tensor::skipping(executor, Element::F32, values, skip)),
        );
    }
    let plan = AdamWPlan::new(element, lengths).unwrap();
    let blocks = upload(executor, &plan.blocks());
    for step in 1..=4 {
        let gradients: Vec<Vec<f64>> = lengths
            .iter()
            .enumerate()
            .map(|(index, &length)| normal(element, (step * 1000 + index) as u64, length))
            .collect();
        let placed: Vec<Tensor> = gradients
            .iter()
            .enumerate()
            // Apart from where the parameters begin.
            .map(|(index, values)| Tensor::skipping(executor, element, values, index % 4))
            .collect();
        let mut described = Vec::new();
        for (index, ([parameter, first, second], gradient)) in
            tensors.iter().zip(&placed).enumerate()
        {
            // Two groups.
            let rate = if index % 2 == 0 { 1e-2 } else { 3e-3 };
            let constants = constants(step as i32, rate, 0.05);
            let memory = AdamWBuffers {
                parameter: parameter.pointer(),
                gradient: gradient.pointer(),
                first: first.pointer(),
                second: second.pointer(),
            };
            described.push((memory, constants));
            update(constants, &mut state[index], &gradients[index]);
        }
        let table = upload(executor, &plan.tensors(&described).unwrap());
        run(executor, plan.step(table.pointer(), blocks.pointer()).unwrap());
    }
    for (tensors, state) in tensors.iter().zip(&state) {
        for ((what, tensor), state) in
            ["parameter", "first", "second"].iter().zip(tensors).zip(state)
        {
            assert_bits(what, &tensor.values(), state);
        }
    }
}

fn average(executor: &dyn Executor, element: Element, lengths: &[usize], skips: &[usize]) {
    const DECAY: f64 = 0.995;
    let mut state = Vec::new();
    let mut tensors = Vec::new();
    let mut placed = Vec::new();
    for (index, (&length, &skip)) in lengths.iter().zip(skips.iter().cycle()).enumerate() {
        let values = normal(Element::F32, index as u64, length);
        let live = normal(element, 1000 + index as u64, length);
        let average = Tensor::skipping(executor, Element::F32, &values, skip);
        let followed = Tensor::skipping(executor, element, &live, index % 4);
        let memory = AveragedBuffers { average: average.pointer(), live: followed.pointer() };
        placed.push((memory, length));
        state.push((values.iter().map(|&x| x as f32).collect::<Vec<f32>>(), live));
        tensors.push((average, followed));
    }
    let plan = MovingAveragePlan::new(element, &placed).unwrap();
    let (table, blocks) = (upload(executor, &plan.tensors()), upload(executor, &plan.blocks()));
    for _ in 0..3 {
        run(executor, plan.step(table.pointer(), blocks.pointer(), DECAY).unwrap());
    }
    for ((average, _), (state, live)) in tensors.iter().zip(&mut state) {
        for _ in 0..3 {
            for (average, &live) in state.iter_mut().zip(live.iter()) {
                *average = *average * DECAY as f32 + live as f32 * (1.0 - DECAY) as f32;
            }
        }
        assert_bits("average", &average.values(), state);
    }
}

#[test]
fn factors_of_a_model() {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        // Chunks that are full, one short, one over; and tensors that begin anywhere.
        for skips in [&[0][..], &[0, 1, 2]] {
            let lengths = [768 * 8, 64, 1, 2047, 2048, 2049, 0, 4099];
            adamw(&*executor, element, &lengths, skips);
            average(&*executor, element, &lengths, skips);
        }
    }
}

#[test]
fn nothing_is_no_launch_and_too_much_is_refused() {
    let null = DevicePointer::NULL;
    let plan = AdamWPlan::new(Element::F32, &[0, 0]).unwrap();
    assert!(plan.step(null, null).unwrap().is_none());
    assert!(plan.tensors(&[]).is_err());
    assert!(AdamWPlan::new(Element::F32, &[1 << 42]).is_err());
    let plan = MovingAveragePlan::new(Element::F32, &[]).unwrap();
    assert!(plan.step(null, null, 0.9).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_tensors(
        lengths in prop::collection::vec(0usize..5000, 1..6),
        skips in prop::collection::vec(0usize..4, 1..4),
    ) {
        if let Some(executor) = executor() {
            for element in Element::ALL {
                adamw(&*executor, element, &lengths, &skips);
                average(&*executor, element, &lengths, &skips);
            }
        }
    }
}
