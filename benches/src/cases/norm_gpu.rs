//! Layer normalization and the activation on a GPU.

use aurora_kernels::cuda::plan::{
    GeluBackwardBuffers, GeluPlan, LayerNormBackwardBuffers, LayerNormForwardBuffers, LayerNormPlan,
};
use aurora_kernels::cuda::{DevicePointer, Element, Executor};
use aurora_kernels::reference;
use candle_core::Result;

use super::norm::{EPS, gelu_slopes, layer_norm_of_ones};
use crate::gpu::{Operands, Work};

const NULL: DevicePointer = DevicePointer::NULL;

pub(super) fn layer_norm(
    executor: &dyn Executor,
    element: Element,
    [rows, columns]: [usize; 2],
    backward: bool,
) -> Result<Work> {
    let mut of = Operands::new(executor);
    let x = of.normal(element, 0, rows * columns)?;
    let weight = of.normal(element, 1, columns)?;
    let bias = of.normal(element, 2, columns)?;
    let y = of.output(element, rows * columns)?;
    let [mean, rstd] = [of.output(Element::F32, rows)?, of.output(Element::F32, rows)?];
    let plan = LayerNormPlan { element, rows, columns, x_stride: columns, eps: EPS as f32 };
    let forward = plan.forward(&LayerNormForwardBuffers {
        x: x.pointer(),
        residual: NULL,
        weight: weight.pointer(),
        bias: bias.pointer(),
        y: y.pointer,
        sum: NULL,
        mean: mean.pointer,
        rstd: rstd.pointer,
    })?;
    of.run(&forward)?;
    let (first, scale) = (x.range(0, columns), weight.range(0, columns));
    if !backward {
        let want = reference::layer_norm(&first, &scale, &bias.range(0, columns), EPS);
        of.check("layer_norm", y, &want)?;
        return Ok(of.work(forward));
    }
    let dy = of.ones(element, rows * columns)?;
    let dx = of.output(element, rows * columns)?;
    let launches = plan.backward(&LayerNormBackwardBuffers {
        x: x.pointer(),
        weight: weight.pointer(),
        dy: dy.pointer,
        dsum: NULL,
        mean: mean.pointer,
        rstd: rstd.pointer,
        dx: dx.pointer,
        dweight: NULL,
        dbias: NULL,
        workspace: NULL,
    })?;
    of.run(&launches)?;
    of.check("layer_norm, dx", dx, &layer_norm_of_ones(&first, &scale))?;
    Ok(of.work(launches))
}

pub(super) fn gelu(
    executor: &dyn Executor,
    element: Element,
    [rows, columns]: [usize; 2],
    backward: bool,
) -> Result<Work> {
    let mut of = Operands::new(executor);
    let x = of.normal(element, 0, rows * columns)?;
    let y = of.output(element, rows * columns)?;
    let plan = GeluPlan { element, rows, columns };
    let first = x.range(0, columns);
    if !backward {
        let forward = plan.forward(x.pointer(), NULL, y.pointer)?;
        of.run(&forward)?;
        of.check("gelu", y, &reference::gelu(&first))?;
        return Ok(of.work(forward));
    }
    let dy = of.ones(element, rows * columns)?;
    let launches = plan.backward(&GeluBackwardBuffers {
        x: x.pointer(),
        bias: NULL,
        dy: dy.pointer,
        dx: y.pointer,
        dbias: NULL,
        workspace: NULL,
    })?;
    of.run(&launches)?;
    of.check("gelu, dx", y, &gelu_slopes(&first))?;
    Ok(of.work(launches))
}
