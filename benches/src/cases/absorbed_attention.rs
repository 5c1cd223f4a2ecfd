//! Cross-attention of few text tokens: key and value projections absorbed into queries and outputs, and applied.

use aurora_kernels::{
    AbsorbedKv, AttentionOptions, Precision, absorbed_attention, attention, linear, reference,
};
use candle_core::{Result, Tensor};

use super::Shared;
use crate::cost::AttentionShape;
use crate::site::ABSORBED;
use crate::{BenchCase, Setting, check, normal, values};

struct Operands {
    q: Tensor,
    states: Tensor,
    key: Tensor,
    value: Tensor,
    value_bias: Tensor,
}

impl Operands {
    fn shared(shape: AttentionShape) -> Shared<Self> {
        let AttentionShape { queries, keys, q_len, k_len, width } = shape;
        let [queries, keys, q_len, k_len, width] =
            [queries, keys, q_len, k_len, width].map(|n| n as usize);
        Shared::new(move || {
            // Projections that keep the scale of what goes through.
            let map = |index| normal(index, &[width, width])? / (width as f64).sqrt();
            Ok(Self {
                q: normal(0, &[queries, q_len, width])?,
                states: normal(1, &[keys, k_len, width])?,
                key: map(2)?,
                value: map(3)?,
                value_bias: normal(4, &[width])?,
            })
        })
    }

    fn absorbed(&self) -> Result<Tensor> {
        let Self { q, states, key, value, value_bias } = self;
        let precision = Precision::F32;
        let of = AbsorbedKv { states, key, value, value_bias, rows: None, precision };
        absorbed_attention(q, &of, ABSORBED.heads)
    }

    fn formed(&self) -> Result<Tensor> {
        let key = linear(&self.states, &self.key, None)?;
        let value = linear(&self.states, &self.value, Some(&self.value_bias))?;
        attention(&self.q, &key, &value, ABSORBED.heads, &AttentionOptions::default())
    }

    /// Checks the first text against the formula.
    fn check(&self, name: &str, y: &Tensor) -> Result<()> {
        let (_, q_len, width) = self.q.dims3()?;
        let first = |x: &Tensor| values(&x.narrow(0, 0, 1)?);
        let states = first(&self.states)?;
        let bias = values(&self.value_bias)?;
        let key = reference::linear(&states, &values(&self.key)?, None, width);
        let value = reference::linear(&states, &values(&self.value)?, Some(&bias), width);
        let k_len = self.states.dims()[1];
        let plain = reference::AttentionSpec {
            q_len,
            k_len,
            heads: ABSORBED.heads,
            width,
            ..Default::default()
        };
        check(name, y, &reference::attention(&first(&self.q)?, &key, &value, &plain))
    }
}

/// Absorbed and applied projections for the candidates of a text.
pub(super) fn cases(setting: &Setting) -> Vec<BenchCase> {
    let shape = ABSORBED.shape(setting);
    let AttentionShape { queries, keys, q_len, k_len, width } = shape;
    let text = format!("{queries}x{q_len} on {keys}x{k_len} D={width} H={}", ABSORBED.heads);
    let shared = Operands::shared(shape);
    let heads = ABSORBED.heads as u64;

    let of = shared.clone();
    let case = BenchCase::new(ABSORBED.name, "absorbed", &text, move |e| shape.absorbed(heads, e));
    let absorbed = case.on_cpu(move || {
        let of = of.get()?;
        of.check("absorbed", &of.absorbed()?)?;
        Ok(move || of.absorbed().map(drop))
    });
    let of = shared;
    let case = BenchCase::new(ABSORBED.name, "keys_and_values", &text, move |e| shape.formed(e));
    let formed = case.on_cpu(move || {
        let of = of.get()?;
        of.check("keys and values", &of.formed()?)?;
        Ok(move || of.formed().map(drop))
    });
    vec![absorbed, formed]
}
