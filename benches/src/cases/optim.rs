//! One step of AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), and of the moving average, over every tensor of
//! an adapter.

use aurora_layers::adapter::{Adapter, Lora};
use aurora_layers::{LoraInit, Tensors};
use aurora_train::ema::Ema;
use aurora_train::optimizer::{AdamW, AdamWOptions, Group, Parameter};
use candle_core::{Device, Error, Result, Tensor, Var};

use super::cp::{BaseAdapter, other};
use super::{Shared, optim_gpu};
use crate::{BenchCase, Setting, check, cost, values};

/// Adapters of BLIP-base: CP of rank 64 (few tensors, few values) and LoRA of rank 8.
pub fn cases(_setting: &Setting) -> Vec<BenchCase> {
    let cp = Shared::new(|| Ok(BaseAdapter::new()?.tensors));
    let lora = Shared::new(|| {
        let sites = BaseAdapter::new()?.sites;
        let lora = Lora { rank: 8, alpha: 8.0, use_rslora: false, init: LoraInit::Zero };
        lora.init_params(&sites, &Tensors::new(), 0, &Device::Cpu).map_err(other)
    });
    let mut cases = Vec::new();
    for (name, count, values, tensors) in
        [("blip_base.cp_64", 123, 112_192, cp), ("blip_base.lora_8", 240, 2_064_384, lora)]
    {
        let text = format!("{values} values in {count} tensors");
        let of = tensors.clone();
        let case = BenchCase::new(name, "adamw", &text, move |_| cost::adamw(values));
        let case = case.on_cpu(move || adamw(&*declared(&of, count, values)?));
        let of = tensors.clone();
        cases.push(case.on_gpu(move |executor, element| {
            optim_gpu::adamw(executor, element, &lengths(&*declared(&of, count, values)?))
        }));
        let of = tensors.clone();
        let case = BenchCase::new(name, "average", &text, move |_| cost::moving_average(values));
        let case = case.on_cpu(move || average(&*declared(&of, count, values)?));
        cases.push(case.on_gpu(move |executor, element| {
            optim_gpu::average(executor, element, &lengths(&*declared(&tensors, count, values)?))
        }));
    }
    cases
}

/// Tensors of a case, checked for the declared number and size.
fn declared(of: &Shared<Tensors>, count: usize, values: u64) -> Result<std::rc::Rc<Tensors>> {
    let tensors = of.get()?;
    let held: usize = tensors.values().map(Tensor::elem_count).sum();
    if tensors.len() != count || held as u64 != values {
        candle_core::bail!("{} tensors with {held} values", tensors.len());
    }
    Ok(tensors)
}

fn lengths(tensors: &Tensors) -> Vec<usize> {
    tensors.values().map(Tensor::elem_count).collect()
}

fn failed(error: aurora_train::Error) -> Error {
    Error::msg(error)
}

fn adamw(tensors: &Tensors) -> Result<impl FnMut() -> Result<()> + use<>> {
    const RATE: f64 = 1e-3;
    let mut parameters = Vec::new();
    for (name, tensor) in tensors {
        parameters.push(Parameter::new(name.as_str(), Var::from_tensor(tensor)?, "factors"));
    }
    let vars: Vec<Var> = parameters.iter().map(|parameter| parameter.var.clone()).collect();
    // The sum of everything: a gradient of ones.
    let sums: Vec<Tensor> = vars.iter().map(|var| var.sum_all()).collect::<Result<_>>()?;
    let grads = Tensor::stack(&sums, 0)?.sum_all()?.backward()?;
    let groups = vec![Group::new("factors", RATE, 0.05)];
    let mut optimizer = AdamW::new(parameters, groups, AdamWOptions::default()).map_err(failed)?;
    let before = values(&vars[0])?;
    optimizer.step(&grads, 1.0).map_err(failed)?;
    // The first step from a gradient of one: both means are one after their correction.
    let want: Vec<f64> = before.iter().map(|p| p * (1.0 - RATE * 0.05) - RATE).collect();
    check("adamw", &vars[0], &want)?;
    Ok(move || optimizer.step(&grads, 1.0).map_err(failed))
}

fn average(tensors: &Tensors) -> Result<impl FnMut() -> Result<()> + use<>> {
    let mut ema = Ema::new(0.995);
    let mut first = None;
    for online in tensors.values() {
        let start = (online + 1.0)?;
        let view = ema.track(&start, online).map_err(failed)?;
        first.get_or_insert((view, values(online)?));
    }
    ema.update().map_err(failed)?;
    if let Some((view, online)) = first {
        let want: Vec<f64> = online.iter().map(|online| online + 0.995).collect();
        check("average", &view, &want)?;
    }
    Ok(move || ema.update().map_err(failed))
}
