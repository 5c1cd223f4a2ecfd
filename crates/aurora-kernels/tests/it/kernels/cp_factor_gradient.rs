//! CP factor gradient against f64.

use aurora_kernels::cuda::plan::{CpFactorGradientPlan, FactorGradientBuffers, FactorLayout};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use proptest::prelude::*;

use crate::kernels::support::{
    Tensor, assert_within, executor, normal, projected, rounded, run, unit,
};

#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    inputs: usize,
    outputs: usize,
    rank: usize,
    gap: usize,
    skip: usize,
}

/// Index of an element of a factor.
fn place(layout: FactorLayout, width: usize, rank: usize, i: usize, r: usize) -> usize {
    match layout {
        FactorLayout::ByWidth => i * rank + r,
        FactorLayout::ByRank => r * width + i,
    }
}

/// Scaled product `wide^T narrow` times s, in the layout of a factor: values and error bounds.
fn product(
    (wide, stride, width): (&[f64], usize, usize),
    narrow: &[(f64, f64)],
    scale: &[f64],
    layout: FactorLayout,
) -> Vec<(f64, f64)> {
    let rank = scale.len();
    let tokens = narrow.len() / rank;
    let mut all = vec![(0.0, 0.0); width * rank];
    for i in 0..width {
        for r in 0..rank {
            let (mut sum, mut sizes, mut off) = (0.0, 0.0, 0.0);
            for t in 0..tokens {
                let x = wide[t * stride + i];
                let (n, error) = narrow[t * rank + r];
                sum += x * n;
                sizes += (x * n).abs();
                off += x.abs() * error;
            }
            let off = off + 2.0 * (tokens + 2) as f64 * unit(Element::F32) * (sizes + off);
            all[place(layout, width, rank, i, r)] = (sum * scale[r], off * scale[r].abs());
        }
    }
    all
}

struct Case {
    sizes: Sizes,
    layouts: [FactorLayout; 2],
    /// True for f32 factors, gradients; else they have the element type.
    single: [bool; 2],
    scaled: bool,
    /// Number of sites that share the factors.
    sites: usize,
}

fn check(executor: &dyn Executor, element: Element, case: &Case) {
    let Sizes { tokens, inputs, outputs, rank, gap, skip } = case.sizes;
    let [u_layout, v_layout] = case.layouts;
    let [factors, gradients] =
        case.single.map(|single| if single { Element::F32 } else { element });
    let (x_stride, dy_stride) = (inputs + gap, outputs + gap);
    let u = normal(factors, 1, inputs * rank);
    let v = normal(factors, 2, outputs * rank);
    let tensor = |element, values: &[f64]| Tensor::skipping(executor, element, values, skip);
    let (tu, tv) = (tensor(factors, &u), tensor(factors, &v));
    let du = Tensor::output(executor, gradients, inputs * rank);
    let dv = Tensor::output(executor, gradients, outputs * rank);
    let dscale = Tensor::output(executor, Element::F32, rank);
    let mut want = [inputs * rank, outputs * rank, rank].map(|length| vec![(0.0, 0.0); length]);

    for site in 0..case.sites {
        let seed = 10 * (site as u64 + 1);
        let x = normal(element, seed, (tokens - 1) * x_stride + inputs);
        let dy = normal(element, seed + 1, (tokens - 1) * dy_stride + outputs);
        let scale = normal(Element::F32, seed + 2, rank);
        let [tx, tdy] = [&x, &dy].map(|values| tensor(element, values));
        let ts = tensor(Element::F32, &scale);
        let [z, g] = [0; 2].map(|_| Tensor::output(executor, element, tokens * rank));
        let plan = CpFactorGradientPlan {
            element,
            factors,
            gradients,
            tokens,
            inputs,
            outputs,
            rank,
            x_stride,
            dy_stride,
            u_layout,
            v_layout,
            accumulate: site > 0,
        };
        let workspace = Tensor::output(executor, Element::F32, plan.workspace().unwrap());
        let null = DevicePointer::NULL;
        let memory = FactorGradientBuffers {
            x: tx.pointer(),
            dy: tdy.pointer(),
            u: tu.pointer(),
            v: tv.pointer(),
            z: z.pointer(),
            g: g.pointer(),
            workspace: workspace.pointer(),
            scale: if case.scaled { ts.pointer() } else { null },
            du: du.pointer(),
            dv: dv.pointer(),
            dscale: if case.scaled { dscale.pointer() } else { null },
        };
        run(executor, plan.launches(&memory).unwrap());

        let ones = vec![1.0; rank];
        let scale = if case.scaled { &scale } else { &ones };
        let factor = |values: &[f64], layout, width, i, r| {
            rounded(element, values[place(layout, width, rank, i, r)])
        };
        let zs = projected(element, &x, (tokens, inputs, x_stride), rank, |i, r| {
            factor(&u, u_layout, inputs, i, r)
        });
        let gs = projected(element, &dy, (tokens, outputs, dy_stride), rank, |o, r| {
            factor(&v, v_layout, outputs, o, r)
        });
        for (name, tensor, pairs) in [("z", &z, &zs), ("g", &g, &gs)] {
            let (values, bounds): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            assert_within(name, Element::F32, &tensor.values(), &values, &bounds);
        }
        let mut parts = [
            product((&x, x_stride, inputs), &gs, scale, u_layout),
            product((&dy, dy_stride, outputs), &zs, scale, v_layout),
            vec![(0.0, 0.0); rank],
        ];
        for (index, (&(z, z_off), &(g, g_off))) in zs.iter().zip(&gs).enumerate() {
            let to = &mut parts[2][index % rank];
            to.0 += z * g;
            let sum = 2.0 * (tokens + 2) as f64 * unit(Element::F32) * (z * g).abs();
            to.1 += z.abs() * g_off + g.abs() * z_off + z_off * g_off + sum;
        }
        for ((want, parts), stored) in
            want.iter_mut().zip(&parts).zip([gradients, gradients, Element::F32])
        {
            for (want, part) in want.iter_mut().zip(parts) {
                // Each site's sum is rounded as it is stored.
                want.0 += part.0;
                want.1 += part.1 + unit(stored) * (want.0.abs() + part.1);
            }
        }
    }
    let results = [("du", gradients, &du), ("dv", gradients, &dv), ("ds", Element::F32, &dscale)];
    for ((name, element, tensor), want) in results.into_iter().zip(&want) {
        if name == "ds" && !case.scaled {
            assert!(tensor.values().iter().all(|x| x.is_nan()), "ds was not asked for");
            continue;
        }
        let (values, bounds): (Vec<_>, Vec<_>) = want.iter().copied().unzip();
        assert_within(name, element, &tensor.values(), &values, &bounds);
    }
}

fn all(case: &Case) {
    let Some(executor) = executor() else { return };
    for element in Element::ALL {
        check(&*executor, element, case);
    }
}

const LORA: [FactorLayout; 2] = [FactorLayout::ByRank, FactorLayout::ByWidth];
const CP: [FactorLayout; 2] = [FactorLayout::ByWidth; 2];

#[test]
fn a_lora_of_the_element_type() {
    let sizes = Sizes { tokens: 70, inputs: 96, outputs: 288, rank: 16, gap: 0, skip: 0 };
    all(&Case { sizes, layouts: LORA, single: [false; 2], scaled: false, sites: 1 });
}

#[test]
fn factors_that_three_sites_share() {
    let sizes = Sizes { tokens: 50, inputs: 96, outputs: 96, rank: 16, gap: 0, skip: 0 };
    all(&Case { sizes, layouts: CP, single: [true; 2], scaled: true, sites: 3 });
}

#[test]
fn more_components_than_a_chunk() {
    let sizes = Sizes { tokens: 37, inputs: 40, outputs: 24, rank: 72, gap: 0, skip: 0 };
    all(&Case { sizes, layouts: CP, single: [true, false], scaled: true, sites: 1 });
}

/// Enough tokens for several splits, the last of which is not full.
#[test]
fn several_splits() {
    let Some(executor) = executor() else { return };
    let sizes = Sizes { tokens: 700, inputs: 24, outputs: 16, rank: 5, gap: 0, skip: 0 };
    let case = Case { sizes, layouts: LORA, single: [false, true], scaled: true, sites: 2 };
    for element in [Element::F32, Element::Bf16] {
        check(&*executor, element, &case);
    }
}

/// Repeated gradients are equal to the bit, whatever was in the workspace before.
#[test]
fn repeats_to_the_bit() {
    let Some(executor) = executor() else { return };
    let (tokens, width, rank) = (300, 40, 8);
    let plan = CpFactorGradientPlan {
        element: Element::Bf16,
        factors: Element::F32,
        gradients: Element::F32,
        tokens,
        inputs: width,
        outputs: width,
        rank,
        x_stride: width,
        dy_stride: width,
        u_layout: FactorLayout::ByWidth,
        v_layout: FactorLayout::ByWidth,
        accumulate: false,
    };
    let of =
        |element, index, length| Tensor::new(&*executor, element, &normal(element, index, length));
    let x = of(Element::Bf16, 1, tokens * width);
    let dy = of(Element::Bf16, 2, tokens * width);
    let (u, v) = (of(Element::F32, 3, width * rank), of(Element::F32, 4, width * rank));
    let once = |fill: f64| {
        let f32s = |length| Tensor::new(&*executor, Element::F32, &vec![fill; length]);
        let [z, g] = [0; 2].map(|_| Tensor::output(&*executor, Element::Bf16, tokens * rank));
        let [du, dv, dscale] = [width * rank, width * rank, rank].map(f32s);
        let workspace = f32s(plan.workspace().unwrap());
        let memory = FactorGradientBuffers {
            x: x.pointer(),
            dy: dy.pointer(),
            u: u.pointer(),
            v: v.pointer(),
            z: z.pointer(),
            g: g.pointer(),
            workspace: workspace.pointer(),
            scale: DevicePointer::NULL,
            du: du.pointer(),
            dv: dv.pointer(),
            dscale: dscale.pointer(),
        };
        run(&*executor, plan.launches(&memory).unwrap());
        [du.values(), dv.values(), dscale.values()]
    };
    assert_eq!(once(0.0), once(7.0));
}

fn empty() -> (CpFactorGradientPlan, FactorGradientBuffers) {
    let null = DevicePointer::NULL;
    let plan = CpFactorGradientPlan {
        element: Element::Bf16,
        factors: Element::Bf16,
        gradients: Element::F32,
        tokens: 3,
        inputs: 8,
        outputs: 8,
        rank: 2,
        x_stride: 8,
        dy_stride: 8,
        u_layout: FactorLayout::ByRank,
        v_layout: FactorLayout::ByWidth,
        accumulate: false,
    };
    let memory = FactorGradientBuffers {
        x: null,
        dy: null,
        u: null,
        v: null,
        z: null,
        g: null,
        workspace: null,
        scale: null,
        du: null,
        dv: null,
        dscale: null,
    };
    (plan, memory)
}

/// BLIP-base, 16 images of 384 px: 11 splits of 24 tiles, 289 blocks of tokens.
#[test]
fn blocks_of_blip_base() {
    let (plan, memory) = empty();
    let (tokens, width) = (9232, 768);
    let plan = CpFactorGradientPlan {
        tokens,
        inputs: width,
        outputs: width,
        rank: 64,
        x_stride: width,
        dy_stride: width,
        ..plan
    };
    assert_eq!(plan.workspace().unwrap(), 11 * 2 * width * 64 + 289 * 64);
    let grids: Vec<_> = plan.launches(&memory).unwrap().iter().map(|launch| launch.grid).collect();
    assert_eq!(grids, [[289, 1, 1], [24, 1, 11], [385, 1, 1]]);
}

#[test]
fn no_tokens_make_zeros() {
    let Some(executor) = executor() else { return };
    let (plan, memory) = empty();
    let plan = CpFactorGradientPlan { tokens: 0, ..plan };
    let [du, dv, dscale] =
        [16, 16, 2].map(|length| Tensor::output(&*executor, Element::F32, length));
    let workspace = Tensor::output(&*executor, Element::F32, plan.workspace().unwrap());
    let memory = FactorGradientBuffers {
        workspace: workspace.pointer(),
        du: du.pointer(),
        dv: dv.pointer(),
        dscale: dscale.pointer(),
        ..memory
    };
    run(&*executor, plan.launches(&memory).unwrap());
    for tensor in [du, dv, dscale] {
        assert!(tensor.values().iter().all(|&x| x == 0.0));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (plan, memory) = empty();
    assert_eq!(plan.launches(&memory).unwrap().len(), 3);
    assert!(CpFactorGradientPlan { rank: 0, ..plan }.launches(&memory).unwrap().is_empty());
    let message = |plan: CpFactorGradientPlan| plan.launches(&memory).unwrap_err().to_string();
    assert!(message(CpFactorGradientPlan { x_stride: 7, ..plan }).contains("x_stride"));
    assert!(message(CpFactorGradientPlan { dy_stride: 7, ..plan }).contains("dy_stride"));
    let other = CpFactorGradientPlan { factors: Element::F16, ..plan };
    assert!(message(other).contains("elements of bf16 or f32"));
    assert!(message(CpFactorGradientPlan { tokens: 1 << 40, ..plan }).contains("tokens has shape"));
    let wide = CpFactorGradientPlan { outputs: 1 << 31, dy_stride: 1 << 31, ..plan };
    assert!(message(wide).contains("at most 2147483647"));
    assert!(message(CpFactorGradientPlan { rank: 1 << 62, ..plan }).contains("the workspace"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ragged(
        tokens in 1usize..80,
        inputs in 1usize..90,
        outputs in 1usize..90,
        rank in 1usize..70,
        gap in 0usize..9,
        skip in 0usize..9,
        transposed: [bool; 2],
        single: [bool; 2],
        scaled: bool,
    ) {
        let layout = |by_rank| if by_rank { FactorLayout::ByRank } else { FactorLayout::ByWidth };
        let sizes = Sizes { tokens, inputs, outputs, rank, gap, skip };
        all(&Case { sizes, layouts: transposed.map(layout), single, scaled, sites: 2 });
    }
}
