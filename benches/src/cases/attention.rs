//! Attention cases, forward and backward.

use std::sync::Arc;

use aurora_kernels::{AttentionOptions, Precision, attention, reference};
use candle_core::{Result, Tensor, Var};

use super::linear::rounded;
use super::{Shared, absorbed_attention, attention_gpu, backward, dot, gradient};
use crate::cost::{self, AttentionShape};
use crate::site::{ATTENTION, AttentionSite, GATE};
use crate::{BenchCase, Setting, check, check_within, normal, values};

struct Operands {
    q: Var,
    k: Var,
    v: Var,
    heads: usize,
    options: AttentionOptions,
}

impl Operands {
    fn shared(site: AttentionSite, shape: AttentionShape) -> Shared<Self> {
        let AttentionShape { queries, keys, q_len, k_len, width } = shape;
        Shared::new(move || {
            let tensor = |index, rows: u64, len: u64| {
                let shape = [rows, len, width].map(|n| n as usize);
                Var::from_tensor(&normal(index, &shape)?)
            };
            let shared: Option<Arc<[u32]>> =
                (queries != keys).then(|| (0..queries).map(|row| (row % keys) as u32).collect());
            Ok(Self {
                q: tensor(0, queries, q_len)?,
                k: tensor(1, keys, k_len)?,
                v: tensor(2, keys, k_len)?,
                heads: site.heads,
                options: AttentionOptions { kv_rows: shared, ..Default::default() },
            })
        })
    }

    fn run(&self, [q, k, v]: &[Tensor; 3]) -> Result<Tensor> {
        attention(q, k, v, self.heads, &self.options)
    }

    fn run_in_bf16(&self, [q, k, v]: &[Tensor; 3]) -> Result<Tensor> {
        let options = AttentionOptions { precision: Precision::Bf16, ..self.options.clone() };
        attention(q, k, v, self.heads, &options)
    }

    fn detached(&self) -> [Tensor; 3] {
        [&self.q, &self.k, &self.v].map(|var| var.as_detached_tensor())
    }

    fn tracked(&self) -> [Tensor; 3] {
        [&self.q, &self.k, &self.v].map(|var| var.as_tensor().clone())
    }

    /// First row of each of q, k and v.
    fn first(&self) -> Result<[Vec<f64>; 3]> {
        let [q, k, v] = self.detached().map(|x| values(&x.narrow(0, 0, 1)?));
        Ok([q?, k?, v?])
    }

    fn check_output(&self, y: &Tensor) -> Result<()> {
        check("attention", y, &self.plain(self.first()?))
    }

    /// Checks the output within a unit of a bf16's last place: the reference rounds what goes in, but not the
    /// probabilities.
    fn check_output_in_bf16(&self, y: &Tensor) -> Result<()> {
        let want = self.plain(self.first()?.map(rounded));
        check_within("attention_bf16", &values(y)?, &want, 2f64.powi(-8))
    }

    fn plain(&self, [q, k, v]: [Vec<f64>; 3]) -> Vec<f64> {
        let plain = reference::AttentionSpec {
            q_len: self.q.dims()[1],
            k_len: self.k.dims()[1],
            heads: self.heads,
            width: self.q.dims()[2],
            ..Default::default()
        };
        reference::attention(&q, &k, &v, &plain)
    }

    /// Checks dq of the first query and head against the formula.
    fn check_gradient(&self, y: &Tensor) -> Result<()> {
        let want = query_gradient_of_ones(&self.first()?, self.q.dims()[2], self.heads);
        check("attention, dq", gradient(&y.backward()?, &self.q, "q")?, &want)
    }
}

/// dq of the first query and head of a row of each of q, k and v, from a gradient of ones: with p the probabilities and
/// s the sums of the values, `dq = sum_j p_j (s_j - p . s) k_j / sqrt(head)`.
pub(super) fn query_gradient_of_ones(
    [q, k, v]: &[Vec<f64>; 3],
    width: usize,
    heads: usize,
) -> Vec<f64> {
    let head = width / heads;
    let root = (head as f64).sqrt();
    let keys: Vec<&[f64]> = k.chunks_exact(width).map(|k| &k[..head]).collect();
    let scores: Vec<f64> = keys.iter().map(|k| dot(&q[..head], k) / root).collect();
    let p = reference::softmax(&scores);
    let s: Vec<f64> = v.chunks_exact(width).map(|v| v[..head].iter().sum()).collect();
    let level = dot(&p, &s);
    let mut want = vec![0.0; head];
    for ((k, p), s) in keys.iter().zip(&p).zip(&s) {
        want.iter_mut().zip(*k).for_each(|(want, k)| *want += p * (s - level) * k / root);
    }
    want
}

/// Forward and backward at each site; absorbed projections, where that is less; the gated query after a fusion layer
/// on a GPU alone, where it is one kernel.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for site in ATTENTION {
        let shape = site.shape(setting);
        let AttentionShape { queries, keys, q_len, k_len, width } = shape;
        let text = format!("{queries}x{q_len} on {keys}x{k_len} D={width} H={}", site.heads);
        let shared = Operands::shared(site, shape);

        let of = shared.clone();
        let case = BenchCase::new(site.name, "attention", &text, move |e| shape.forward(e));
        let case = case.on_cpu(move || {
            let of = of.get()?;
            let operands = of.detached();
            of.check_output(&of.run(&operands)?)?;
            Ok(move || of.run(&operands).map(drop))
        });
        let heads = site.heads;
        cases.push(case.on_gpu(move |executor, element| {
            attention_gpu::attention(executor, element, shape, heads, false)
        }));

        let of = shared.clone();
        let case = BenchCase::new(site.name, "attention_bf16", &text, move |e| shape.forward(e));
        cases.push(case.on_cpu(move || {
            let of = of.get()?;
            let operands = of.detached();
            of.check_output_in_bf16(&of.run_in_bf16(&operands)?)?;
            Ok(move || of.run_in_bf16(&operands).map(drop))
        }));

        let of = shared;
        let case =
            BenchCase::new(site.name, "attention_backward", &text, move |e| shape.backward(e));
        let case = case.on_cpu(move || {
            let of = of.get()?;
            let y = of.run(&of.tracked())?;
            of.check_gradient(&y)?;
            Ok(backward(y))
        });
        cases.push(case.on_gpu(move |executor, element| {
            attention_gpu::attention(executor, element, shape, heads, true)
        }));
    }
    cases.extend(absorbed_attention::cases(setting));
    for site in GATE {
        let size = [site.rows(setting), site.width];
        let [all, wide] = size.map(|n| n as u64);
        let text = format!("{all}x{wide}");
        let case =
            BenchCase::new(site.name, "gated_query", &text, move |e| cost::gate(all, wide, e));
        cases.push(
            case.on_gpu(move |executor, element| {
                attention_gpu::gate(executor, element, size, false)
            }),
        );
        let cost = move |e| cost::gate_backward(all, wide, e);
        let case = BenchCase::new(site.name, "gated_query_backward", &text, cost);
        cases.push(
            case.on_gpu(move |executor, element| {
                attention_gpu::gate(executor, element, size, true)
            }),
        );
    }
    cases
}
