//! Soft-target cross-entropy on a GPU.

use aurora_kernels::cuda::plan::{
    CrossEntropyTargets, SoftCrossEntropyBackwardBuffers, SoftCrossEntropyForwardBuffers,
    SoftCrossEntropyPlan,
};
use aurora_kernels::cuda::{Element, Executor};
use aurora_kernels::reference;
use candle_core::Result;

use crate::gpu::{Operands, Work};

pub(super) fn cross_entropy(
    executor: &dyn Executor,
    element: Element,
    [rows, classes]: [usize; 2],
    backward: bool,
) -> Result<Work> {
    let mut of = Operands::new(executor);
    let logits = of.normal(element, 0, rows * classes)?;
    let each = 1.0 / classes as f32;
    let weights = of.mapped(element, 1, rows * classes, |x| x * x * each)?;
    let plan =
        SoftCrossEntropyPlan { element, rows, classes, logits_stride: classes, smoothing: 0.0 };
    let [loss, log_sum, weight] = [
        of.output(Element::F32, rows)?,
        of.output(Element::F32, rows)?,
        of.output(Element::F32, rows)?,
    ];
    let workspace = of.output(Element::F32, plan.workspace())?.pointer;
    let targets = CrossEntropyTargets::Soft { targets: weights.pointer(), stride: classes };
    let forward = plan.forward(&SoftCrossEntropyForwardBuffers {
        logits: logits.pointer(),
        targets,
        loss: loss.pointer,
        log_sum: log_sum.pointer,
        weight: weight.pointer,
        workspace,
    })?;
    of.run(&forward)?;
    let (x, t) = (logits.range(0, classes), weights.range(0, classes));
    of.check("soft_cross_entropy", loss, &[reference::soft_cross_entropy(&x, &t, classes)])?;
    if !backward {
        return Ok(of.work(forward));
    }
    let dloss = of.ones(Element::F32, rows)?;
    let dlogits = of.output(element, rows * classes)?;
    let launch = plan.backward(&SoftCrossEntropyBackwardBuffers {
        logits: logits.pointer(),
        targets,
        log_sum: log_sum.pointer,
        weight: weight.pointer,
        dloss: dloss.pointer,
        of_mean: false,
        dlogits: dlogits.pointer,
    })?;
    of.run(&launch)?;
    let sum: f64 = t.iter().sum();
    let softmax = reference::softmax(&x);
    let want: Vec<f64> = softmax.iter().zip(&t).map(|(p, t)| p * sum - t).collect();
    of.check("soft_cross_entropy, dlogits", dlogits, &want)?;
    Ok(of.work(launch))
}
