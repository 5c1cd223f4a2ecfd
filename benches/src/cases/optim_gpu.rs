//! AdamW and the moving average on a GPU: all tensors in one launch.

use aurora_kernels::cuda::plan::{
    AdamWBuffers, AdamWConstants, AdamWPlan, AveragedBuffers, MovingAveragePlan,
};
use aurora_kernels::cuda::{Element, Executor};
use candle_core::Result;

use crate::gpu::{Operands, Work};

/// The first step from a gradient of ones: both means are one after their correction.
pub(super) fn adamw(executor: &dyn Executor, element: Element, lengths: &[usize]) -> Result<Work> {
    const RATE: f64 = 1e-3;
    let constants = AdamWConstants {
        shrink: (1.0 - RATE * 0.05) as f32,
        blend1: 0.1,
        beta2: 0.999,
        blend2: 0.001,
        root_correction2: 0.001f64.sqrt() as f32,
        eps: 1e-8,
        step_size: (RATE / 0.1) as f32,
    };
    let mut of = Operands::new(executor);
    let mut parameters = Vec::new();
    let mut tensors = Vec::new();
    for (index, &length) in lengths.iter().enumerate() {
        let parameter = of.normal(Element::F32, index as u64, length)?;
        let memory = AdamWBuffers {
            parameter: parameter.pointer(),
            gradient: of.ones(element, length)?.pointer,
            first: of.tensor(Element::F32, &vec![0.0; length])?.pointer,
            second: of.tensor(Element::F32, &vec![0.0; length])?.pointer,
        };
        parameters.push(parameter);
        tensors.push((memory, constants));
    }
    let plan = AdamWPlan::new(element, lengths)?;
    let table = of.bytes(element, &plan.tensors(&tensors)?)?;
    let blocks = of.bytes(element, &plan.blocks())?;
    let launch = plan.step(table.pointer, blocks.pointer)?;
    of.run(&launch)?;
    for (parameter, &length) in parameters.iter().zip(lengths) {
        let before = parameter.range(0, length);
        let want: Vec<f64> = before.iter().map(|p| p * (1.0 - RATE * 0.05) - RATE).collect();
        of.check("adamw", parameter.held, &want)?;
    }
    Ok(of.work(launch))
}

pub(super) fn average(
    executor: &dyn Executor,
    element: Element,
    lengths: &[usize],
) -> Result<Work> {
    const DECAY: f64 = 0.995;
    let mut of = Operands::new(executor);
    let (mut pairs, mut tensors) = (Vec::new(), Vec::new());
    for (index, &length) in lengths.iter().enumerate() {
        let average = of.normal(Element::F32, 2 * index as u64, length)?;
        let live = of.normal(element, 2 * index as u64 + 1, length)?;
        let memory = AveragedBuffers { average: average.pointer(), live: live.pointer() };
        tensors.push((memory, length));
        pairs.push((average, live));
    }
    let plan = MovingAveragePlan::new(element, &tensors)?;
    let table = of.bytes(element, &plan.tensors())?;
    let blocks = of.bytes(element, &plan.blocks())?;
    let launch = plan.step(table.pointer, blocks.pointer, DECAY)?;
    of.run(&launch)?;
    for ((average, live), &length) in pairs.iter().zip(lengths) {
        let (old, new) = (average.range(0, length), live.range(0, length));
        let each = old.iter().zip(&new);
        let want: Vec<f64> = each.map(|(a, l)| DECAY * a + (1.0 - DECAY) * l).collect();
        of.check("average", average.held, &want)?;
    }
    Ok(of.work(launch))
}
