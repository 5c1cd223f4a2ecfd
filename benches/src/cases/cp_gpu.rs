//! CP delta on a GPU.

use aurora_kernels::cuda::plan::{
    ApplyBuffers, CpApplyPlan, CpFactorGradientPlan, CpReconstructPlan, FactorGradientBuffers,
    FactorLayout, FactorPair, Slice,
};
use aurora_kernels::cuda::{Element, Executor};
use aurora_kernels::reference;
use candle_core::{Error, Result};

use super::dot;
use crate::cost::{LinearShape, SlicesShape};
use crate::gpu::{Operands, Work};

/// Reconstruction of every slice in one launch.
pub(super) fn reconstruct(
    executor: &dyn Executor,
    element: Element,
    shape: SlicesShape,
) -> Result<Work> {
    let [count, width, rank] = [shape.slices, shape.width, shape.rank].map(|n| n as usize);
    let mut of = Operands::new(executor);
    let u = of.mapped(Element::F32, 0, width * rank, |x| x * 0.04)?;
    let v = of.normal(Element::F32, 1, width * rank)?;
    let lambda = of.ones(Element::F32, rank)?;
    let (mut slices, mut seen) = (Vec::new(), Vec::new());
    for index in 0..count {
        let weight = of.normal(element, 2, width * width)?;
        let modes = of.normal(Element::F32, 3 + index as u64, rank)?;
        let merged = of.output(element, width * width)?;
        slices.push(Slice {
            pair: 0,
            weight: weight.pointer(),
            merged: merged.pointer,
            modes: modes.pointer(),
            weight_stride: width,
            merged_stride: width,
        });
        seen.push((weight, modes, merged));
    }
    let pair = FactorPair { u: u.pointer(), v: v.pointer(), inputs: width, outputs: width };
    let plan = CpReconstructPlan { element, rank, cores: false, pairs: vec![pair], slices };
    let table = plan.table()?.ok_or_else(|| Error::msg("there are slices"))?;
    let held = of.bytes(element, &table.bytes)?;
    let launch = table.launch(held.pointer, lambda.pointer)?;
    of.run([&launch])?;

    // The first rows of the first and the last slice: A = U^T, B = V diag(p).
    const ROWS: usize = 4;
    let a: Vec<f64> =
        (0..rank * width).map(|index| u.at(index % width * rank + index / width)).collect();
    for (weight, modes, merged) in [seen.first(), seen.last()].into_iter().flatten() {
        let b: Vec<f64> =
            (0..ROWS * rank).map(|index| v.at(index) * modes.at(index % rank)).collect();
        let want = reference::merged_weight(&weight.range(0, ROWS * width), &a, &b, width);
        of.check("reconstruct", *merged, &want)?;
    }
    Ok(of.work([launch]))
}

/// Low-rank update `y += (x A^T) B^T`; the timed runs go on adding, with numbers that stay small.
pub(super) fn low_rank(
    executor: &dyn Executor,
    element: Element,
    shape: LinearShape,
) -> Result<Work> {
    let [tokens, inputs, outputs, rank] = sizes(shape);
    let mut of = Operands::new(executor);
    let x = of.normal(element, 0, tokens * inputs)?;
    let a = of.mapped(element, 1, rank * inputs, |x| x / (inputs as f32).sqrt())?;
    let b = of.mapped(element, 2, outputs * rank, |x| x / (rank as f32).sqrt())?;
    let y = of.tensor(element, &vec![0.0; tokens * outputs])?;
    let plan =
        CpApplyPlan { element, tokens, inputs, outputs, rank, x_stride: inputs, y_stride: outputs };
    let memory = ApplyBuffers { x: x.pointer(), a: a.pointer(), b: b.pointer(), y: y.pointer };
    let launch = plan.launch(&memory)?;
    of.run(&launch)?;
    let z = reference::linear(&x.range(0, inputs), &a.range(0, rank * inputs), None, inputs);
    let want = reference::linear(&z, &b.range(0, outputs * rank), None, rank);
    of.check("low_rank", y, &want)?;
    Ok(of.work(launch))
}

/// Gradients of the factors from a gradient of ones: `dU[i] = s * sum_o V[o] sum_t x[t, i]`,
/// `dV[o] = s * sum_i U[i] sum_t x[t, i]`.
pub(super) fn factor_gradient(
    executor: &dyn Executor,
    element: Element,
    shape: LinearShape,
) -> Result<Work> {
    let [tokens, inputs, outputs, rank] = sizes(shape);
    let mut of = Operands::new(executor);
    let x = of.normal(element, 0, tokens * inputs)?;
    let dy = of.ones(element, tokens * outputs)?;
    let u = of.mapped(Element::F32, 1, inputs * rank, |x| x / (inputs as f32).sqrt())?;
    let v = of.mapped(Element::F32, 2, outputs * rank, |x| x / (outputs as f32).sqrt())?;
    let scale = of.normal(Element::F32, 3, rank)?;
    let plan = CpFactorGradientPlan {
        element,
        factors: Element::F32,
        gradients: Element::F32,
        tokens,
        inputs,
        outputs,
        rank,
        x_stride: inputs,
        dy_stride: outputs,
        u_layout: FactorLayout::ByWidth,
        v_layout: FactorLayout::ByWidth,
        accumulate: false,
    };
    let du = of.output(Element::F32, inputs * rank)?;
    let dv = of.output(Element::F32, outputs * rank)?;
    let launches = plan.launches(&FactorGradientBuffers {
        x: x.pointer(),
        dy: dy.pointer,
        u: u.pointer(),
        v: v.pointer(),
        z: of.output(element, tokens * rank)?.pointer,
        g: of.output(element, tokens * rank)?.pointer,
        workspace: of.output(Element::F32, plan.workspace()?)?.pointer,
        scale: scale.pointer(),
        du: du.pointer,
        dv: dv.pointer,
        dscale: of.output(Element::F32, rank)?.pointer,
    })?;
    of.run(&launches)?;
    let sums: Vec<f64> =
        (0..inputs).map(|i| (0..tokens).map(|token| x.at(token * inputs + i)).sum()).collect();
    let column = |of: &crate::gpu::Numbers, width: usize, r: usize| -> Vec<f64> {
        (0..width).map(|row| of.at(row * rank + r)).collect()
    };
    let g: Vec<f64> = (0..rank).map(|r| column(&v, outputs, r).iter().sum()).collect();
    let want: Vec<f64> = (0..inputs * rank)
        .map(|index| sums[index / rank] * g[index % rank] * scale.at(index % rank))
        .collect();
    of.check_as("factor_gradient, dU", element, du, &want)?;
    let z: Vec<f64> = (0..rank).map(|r| dot(&column(&u, inputs, r), &sums) * scale.at(r)).collect();
    of.check_as("factor_gradient, dV", element, dv, &z.repeat(outputs))?;
    Ok(of.work(launches))
}

fn sizes(shape: LinearShape) -> [usize; 4] {
    [shape.tokens, shape.input, shape.output, shape.rank].map(|n| n as usize)
}
