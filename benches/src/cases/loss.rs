//! The soft-target cross-entropy over a long queue.

use aurora_kernels::{reference, soft_cross_entropy};
use candle_core::Var;

use super::{backward, gradient, loss_gpu};
use crate::site::LOSS;
use crate::{BenchCase, Setting, check, cost, normal, values};

/// Forward and backward at each site.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for site in LOSS {
        let (count, classes) = (site.rows(setting), site.width);
        let (all, wide) = (count as u64, classes as u64);
        let text = format!("{count}x{classes}");
        let case = BenchCase::new(site.name, "soft_cross_entropy", &text, move |e| {
            cost::cross_entropy(all, wide, e)
        });
        let case = case.on_cpu(move || {
            let logits = normal(0, &[count, classes])?;
            let targets = (normal(1, &[count, classes])?.sqr()? / classes as f64)?;
            let loss =
                reference::soft_cross_entropy(&values(&logits)?, &values(&targets)?, classes);
            check("soft_cross_entropy", &soft_cross_entropy(&logits, &targets)?, &[loss])?;
            Ok(move || soft_cross_entropy(&logits, &targets).map(drop))
        });
        cases.push(case.on_gpu(move |executor, element| {
            loss_gpu::cross_entropy(executor, element, [count, classes], false)
        }));
        let case = BenchCase::new(site.name, "soft_cross_entropy_backward", &text, move |e| {
            cost::cross_entropy_backward(all, wide, e)
        });
        let case = case.on_cpu(move || {
            let logits = Var::from_tensor(&normal(0, &[count, classes])?)?;
            let targets = (normal(1, &[count, classes])?.sqr()? / classes as f64)?;
            let loss = soft_cross_entropy(&logits, &targets)?;
            // (softmax sum(targets) - targets) / rows
            let target = values(&targets.narrow(0, 0, 1)?)?;
            let sum: f64 = target.iter().sum();
            let softmax = reference::softmax(&values(&logits.narrow(0, 0, 1)?)?);
            let each = softmax.iter().zip(&target);
            let want: Vec<f64> = each.map(|(p, t)| (p * sum - t) / count as f64).collect();
            let grads = loss.backward()?;
            check("soft_cross_entropy, dlogits", gradient(&grads, &logits, "logits")?, &want)?;
            Ok(backward(loss))
        });
        cases.push(case.on_gpu(move |executor, element| {
            loss_gpu::cross_entropy(executor, element, [count, classes], true)
        }));
    }
    cases
}
