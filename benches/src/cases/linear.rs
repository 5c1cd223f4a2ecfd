//! Linear layers: the GEMM alone, the frozen layer, and one with a low-rank delta merged into its weight.

use aurora_kernels::{
    DeltaMode, LowRank, Precision, adapted_linear, linear, linear_with, reference,
};
use candle_core::{Result, Tensor, Var};

use super::{Shared, backward, column_sums, dot, epilogue, gradient};
use crate::cost::LinearShape;
use crate::site::LINEAR;
use crate::{BenchCase, Setting, check, normal, values};

/// Operands of a linear layer with a delta.
pub(super) struct Operands {
    pub(super) x: Var,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) a: Var,
    pub(super) b: Var,
}

impl Operands {
    pub(super) fn shared(shape: LinearShape) -> Shared<Self> {
        let LinearShape { tokens, input, output, rank } = shape;
        let [tokens, input, output, rank] = [tokens, input, output, rank].map(|n| n as usize);
        Shared::new(move || {
            Ok(Self {
                x: Var::from_tensor(&normal(0, &[tokens, input])?)?,
                weight: normal(1, &[output, input])?,
                bias: normal(2, &[output])?,
                a: Var::from_tensor(&normal(3, &[rank, input])?)?,
                b: Var::from_tensor(&normal(4, &[output, rank])?)?,
            })
        })
    }

    pub(super) fn delta(&self) -> Result<LowRank> {
        LowRank::new(self.a.as_tensor().clone(), self.b.as_tensor().clone())
    }

    pub(super) fn input(&self) -> usize {
        self.a.dims()[1]
    }

    /// First rows of x.
    pub(super) fn first_rows(&self) -> Result<Vec<f64>> {
        values(&self.x.narrow(0, 0, 2)?)
    }

    /// Merged weight, `W + B A`.
    pub(super) fn merged_weight(&self) -> Result<Vec<f64>> {
        let [w, a, b] = [&self.weight, self.a.as_tensor(), self.b.as_tensor()].map(values);
        Ok(reference::merged_weight(&w?, &a?, &b?, self.input()))
    }

    /// Checks `y = x weight^T + bias` against the reference on its first rows.
    pub(super) fn check_output(&self, name: &str, y: &Tensor, weight: &[f64]) -> Result<()> {
        let bias = values(&self.bias)?;
        let want = reference::linear(&self.first_rows()?, weight, Some(&bias), self.input());
        check(name, y, &want)
    }

    /// Checks the factors' gradients from a gradient of ones against the formulas: `dA[r] = sum(B[:, r]) sum_t x[t]`
    /// and `dB[o, r] = sum_t x[t] . A[r]`.
    pub(super) fn check_factors(&self, name: &str, y: &Tensor) -> Result<()> {
        let grads = y.backward()?;
        let (input, rank) = (self.input(), self.a.dims()[0]);
        let x = column_sums(&values(&self.x)?, input);
        let (a, b) = (values(&self.a)?, values(&self.b)?);
        let g = column_sums(&b, rank);
        let da: Vec<f64> = g.iter().flat_map(|g| x.iter().map(move |x| g * x)).collect();
        check(&format!("{name}, dA"), gradient(&grads, &self.a, "A")?, &da)?;
        let z: Vec<f64> = a.chunks_exact(input).map(|a| dot(&x, a)).collect();
        let db = z.repeat(self.weight.dims()[0]);
        check(&format!("{name}, dB"), gradient(&grads, &self.b, "B")?, &db)
    }

    /// Checks dx from a gradient of ones against the column sums of the weight.
    fn check_input(&self, name: &str, y: &Tensor, weight: &[f64]) -> Result<()> {
        let grads = y.backward()?;
        let want = column_sums(weight, self.input());
        check(&format!("{name}, dx"), gradient(&grads, &self.x, "x")?, &want)
    }
}

/// Rounds each to the nearest bf16, as `half` rounds an f32. (From f64 it drops bits before it looks for a tie.)
pub(super) fn rounded(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| half::bf16::from_f32(x as f32).to_f64()).collect()
}

/// For each site the GEMM alone, the frozen linear layer forward (in bf16 too, and with its epilogue) and backward,
/// its merged weight, and the backward pass of the linear layer with a delta.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for site in LINEAR {
        let shape = site.shape(setting);
        let LinearShape { tokens, input, output, rank } = shape;
        let text = format!("T={tokens} {input}->{output} R={rank}");
        let shared = Operands::shared(shape);

        let of = shared.clone();
        let case = BenchCase::new(site.name, "product", &text, move |e| shape.product(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            Ok(move || of.x.as_detached_tensor().matmul(&of.weight.t()?).map(drop))
        }));

        let of = shared.clone();
        let case = BenchCase::new(site.name, "linear", &text, move |e| shape.linear(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            let x = of.x.as_detached_tensor();
            let y = linear(&x, &of.weight, Some(&of.bias))?;
            of.check_output("linear", &y, &values(&of.weight)?)?;
            Ok(move || linear(&x, &of.weight, Some(&of.bias)).map(drop))
        }));

        let of = shared.clone();
        let case = BenchCase::new(site.name, "linear_bf16", &text, move |e| shape.linear(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            let x = of.x.as_detached_tensor();
            let run = move |of: &Operands| {
                linear_with(&x, &of.weight, Some(&of.bias), &Precision::Bf16.into())
            };
            let (x, weight) = (rounded(of.first_rows()?), rounded(values(&of.weight)?));
            let bias = values(&of.bias)?;
            let want = reference::linear(&x, &weight, Some(&bias), of.input());
            check("linear_bf16", &run(&of)?, &want)?;
            Ok(move || run(&of).map(drop))
        }));
        cases.extend(epilogue::cases(site.name, &text, shape, &shared));

        let of = shared.clone();
        let case = BenchCase::new(site.name, "linear_backward", &text, move |e| shape.product(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            let y = linear(&of.x, &of.weight, Some(&of.bias))?;
            of.check_input("linear", &y, &values(&of.weight)?)?;
            Ok(backward(y))
        }));

        let of = shared.clone();
        let case = BenchCase::new(site.name, "reconstruct", &text, move |e| shape.reconstruct(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            check("reconstruct", &of.delta()?.merged_weight(&of.weight)?, &of.merged_weight()?)?;
            Ok(move || of.delta()?.merged_weight(&of.weight).map(drop))
        }));

        let of = shared;
        let cost = move |e| shape.product(e) + shape.factor_gradient(e);
        let case = BenchCase::new(site.name, "adapted_backward", &text, cost);
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            let mode = DeltaMode::Reconstruct;
            let y = adapted_linear(&of.x, &of.weight, Some(&of.bias), &of.delta()?, mode)?;
            of.check_output("adapted_linear", &y, &of.merged_weight()?)?;
            of.check_input("adapted_linear", &y, &of.merged_weight()?)?;
            of.check_factors("adapted_linear", &y)?;
            Ok(backward(y))
        }));
    }
    cases
}
