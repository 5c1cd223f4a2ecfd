//! Layer normalization and the activation: memory-bound operations.

use aurora_kernels::{gelu, layer_norm, reference};
use candle_core::Var;

use super::{backward, dot, gradient, norm_gpu};
use crate::site::{GELU, NORM};
use crate::{BenchCase, Setting, check, cost, normal, values};

pub(super) const EPS: f64 = 1e-6;

/// Forward and backward at each site.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for site in NORM {
        let (tokens, width) = (site.rows(setting), site.width);
        let (all, wide) = (tokens as u64, width as u64);
        let text = format!("{tokens}x{width}");
        let case =
            BenchCase::new(site.name, "layer_norm", &text, move |e| cost::layer_norm(all, wide, e));
        let case = case.on_cpu(move || {
            let x = normal(0, &[tokens, width])?;
            let (weight, bias) = (normal(1, &[width])?, normal(2, &[width])?);
            let first = values(&x.narrow(0, 0, 4)?)?;
            let want = reference::layer_norm(&first, &values(&weight)?, &values(&bias)?, EPS);
            check("layer_norm", &layer_norm(&x, &weight, &bias, EPS)?, &want)?;
            Ok(move || layer_norm(&x, &weight, &bias, EPS).map(drop))
        });
        cases.push(case.on_gpu(move |executor, element| {
            norm_gpu::layer_norm(executor, element, [tokens, width], false)
        }));
        let case = BenchCase::new(site.name, "layer_norm_backward", &text, move |e| {
            cost::layer_norm_backward(all, wide, e)
        });
        let case = case.on_cpu(move || {
            let x = Var::from_tensor(&normal(0, &[tokens, width])?)?;
            let (weight, bias) = (normal(1, &[width])?, normal(2, &[width])?);
            let y = layer_norm(&x, &weight, &bias, EPS)?;
            let first = values(&x.narrow(0, 0, 1)?)?;
            let want = layer_norm_of_ones(&first, &values(&weight)?);
            check("layer_norm, dx", gradient(&y.backward()?, &x, "x")?, &want)?;
            Ok(backward(y))
        });
        cases.push(case.on_gpu(move |executor, element| {
            norm_gpu::layer_norm(executor, element, [tokens, width], true)
        }));
    }
    for site in GELU {
        let (tokens, width) = (site.rows(setting), site.width);
        let all = (tokens * width) as u64;
        let text = format!("{tokens}x{width}");
        let case = BenchCase::new(site.name, "gelu", &text, move |e| cost::gelu(all, e));
        let case = case.on_cpu(move || {
            let x = normal(0, &[tokens, width])?;
            check("gelu", &gelu(&x)?, &reference::gelu(&values(&x.narrow(0, 0, 4)?)?))?;
            Ok(move || gelu(&x).map(drop))
        });
        cases.push(case.on_gpu(move |executor, element| {
            norm_gpu::gelu(executor, element, [tokens, width], false)
        }));
        let case =
            BenchCase::new(site.name, "gelu_backward", &text, move |e| cost::gelu_backward(all, e));
        let case = case.on_cpu(move || {
            let x = Var::from_tensor(&normal(0, &[tokens, width])?)?;
            let y = gelu(&x)?;
            let want = gelu_slopes(&values(&x.narrow(0, 0, 4)?)?);
            check("gelu, dx", gradient(&y.backward()?, &x, "x")?, &want)?;
            Ok(backward(y))
        });
        cases.push(case.on_gpu(move |executor, element| {
            norm_gpu::gelu(executor, element, [tokens, width], true)
        }));
    }
    cases
}

/// Derivative of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415): `Phi(x) + x phi(x)`, with `Phi(x) = gelu(x) / x`.
pub(super) fn gelu_slopes(x: &[f64]) -> Vec<f64> {
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    x.iter().zip(reference::gelu(x)).map(|(x, y)| y / x + x * density(*x)).collect()
}

/// Gradient dx of layer normalization (Ba et al. 2016, arXiv:1607.06450) for one row from a gradient of ones: with n
/// the normalized row, `rstd (weight - mean(weight) - n mean(weight n))`.
pub(super) fn layer_norm_of_ones(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let width = x.len() as f64;
    let mean = x.iter().sum::<f64>() / width;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
    let rstd = (variance + EPS).sqrt().recip();
    let normal: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let along = dot(weight, &normal) / width;
    let level = weight.iter().sum::<f64>() / width;
    weight.iter().zip(&normal).map(|(w, n)| rstd * (w - level - n * along)).collect()
}
