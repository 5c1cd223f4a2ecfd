//! Layer delta: the change an adapter makes to a site's frozen linear layer.

use crate::Result;
use crate::gradient_checkpoint::{MapTensors, TensorMapper};
use aurora_kernels::{DeltaMode, Epilogue, LowRank, adapted_linear_with, linear_with};
use candle_core::Tensor;

/// Layer delta of a site: `y = s * (x (W + dW)^T) + b`, or with the bias inside the scale. Either part may be missing;
/// with neither the layer is the frozen one.
///
/// One value stands for one state of the adapter, such as one training step.
#[derive(Debug, Default)]
pub struct LayerDelta {
    /// Delta of the weight, dW.
    pub delta: Option<LowRank>,
    /// Scale of the outputs.
    pub scale: Option<OutputScale>,
}

impl MapTensors for LayerDelta {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        let delta = self.delta.as_ref();
        let delta = delta.map(|delta| -> Result<LowRank> {
            let a = mapper(delta.a())?;
            Ok(LowRank::new(a, mapper(delta.b())?)?)
        });
        let delta = delta.transpose()?;
        let scale = self.scale.as_ref();
        let scale = scale.map(|scale| -> Result<OutputScale> {
            Ok(OutputScale { factors: mapper(&scale.factors)?, bias: scale.bias })
        });
        Ok(Self { delta, scale: scale.transpose()? })
    }
}

/// Output scale of a linear layer.
#[derive(Debug, Clone)]
pub struct OutputScale {
    /// Scale factors s, (out).
    pub factors: Tensor,
    /// True if they scale the bias too.
    pub bias: bool,
}

impl LayerDelta {
    /// Adapted linear layer: `x` (.., in) with the frozen `weight` (out, in) and `bias` (out) to (.., out).
    pub(crate) fn apply(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        options: Epilogue,
        mode: DeltaMode,
    ) -> Result<Tensor> {
        let map = |options: &Epilogue| match &self.delta {
            None => linear_with(x, weight, Some(bias), options),
            Some(delta) => adapted_linear_with(x, weight, Some(bias), delta, mode, options),
        };
        let Some(OutputScale { factors, bias: with_bias }) = &self.scale else {
            return Ok(map(&options)?);
        };
        let mut y = map(&options.precision.into())?.broadcast_mul(factors)?;
        if !*with_bias {
            // The bias has been scaled with the rest. The difference is added back, instead of adding the bias at the
            // end, so that a scale of one changes no bit.
            y = y.broadcast_add(&(bias - bias.mul(factors)?)?)?;
        }
        Ok(options.apply(y)?)
    }

    /// Part of the delta that makes the outputs `first..first + count`.
    pub(crate) fn outputs(&self, first: usize, count: usize) -> Result<Self> {
        let rows = |tensor: &Tensor| tensor.narrow(0, first, count);
        let delta = self.delta.as_ref();
        let delta = delta.map(|delta| LowRank::new(delta.a().clone(), rows(delta.b())?));
        let scale = self.scale.as_ref();
        let scale = scale.map(|scale| -> Result<OutputScale> {
            Ok(OutputScale { factors: rows(&scale.factors)?, bias: scale.bias })
        });
        Ok(Self { delta: delta.transpose()?, scale: scale.transpose()? })
    }

    /// Merged weight (out, in) and bias (out), without graph. Unchanged tensors are shared, not copied.
    pub(crate) fn merged(&self, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
        let summed = match &self.delta {
            None => weight.detach(),
            Some(delta) => delta.merged_weight(weight)?,
        };
        let Some(OutputScale { factors, bias: with_bias }) = &self.scale else {
            return Ok((summed, bias.detach()));
        };
        let factors = factors.detach();
        let weight = summed.broadcast_mul(&factors.unsqueeze(1)?)?;
        Ok((weight, if *with_bias { bias.detach().mul(&factors)? } else { bias.detach() }))
    }

    /// Scales the rank components by `mask` (rank). Where a delta consists of several sets of the same components, one
    /// after the other, the mask acts on each.
    pub(crate) fn masked(self, mask: &Tensor) -> Result<Self> {
        let Some(delta) = self.delta else { return Ok(self) };
        let sets = delta.rank() / mask.elem_count().max(1);
        let a = delta.a().broadcast_mul(&mask.repeat(sets)?.unsqueeze(1)?)?; // (rank, in)
        Ok(Self { delta: Some(LowRank::new(a, delta.b().clone())?), ..self })
    }
}

#[cfg(test)]
mod tests {
    use crate::adapter::{Adapter, Dora, Ia3, Init, Lora, ParamSpec};
    use crate::tensors::Tensors;
    use crate::{Site, Tower};
    use aurora_kernels::{DeltaMode, Epilogue};
    use candle_core::{DType, Device, Tensor, Var};

    const SITE: (usize, usize) = (5, 4); // (out, in)

    fn site() -> Site {
        Site {
            path: "p".into(),
            tower: Tower::Text,
            layer: 0,
            role: crate::Role::Query,
            in_dim: SITE.1,
            out_dim: SITE.0,
            slices: 1,
        }
    }

    fn normal(name: &str, shape: &[usize]) -> Tensor {
        let tensor =
            ParamSpec::new(name, shape, Init::Normal(1.0)).init_tensor(5, &Device::Cpu).unwrap();
        tensor.to_dtype(DType::F64).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Gradients of `sum(weights * y)` by x and by the adapter's tensors, against central differences of `formula`,
    /// which takes the tensors by name and returns y, (3, out), row-major.
    fn check(adapter: &dyn Adapter, formula: impl Fn(&[(String, Vec<f64>)]) -> Vec<f64>) {
        let (weight, bias) = (normal("w", &[SITE.0, SITE.1]), normal("b", &[SITE.0]));
        let mut inputs =
            vec![("x".to_string(), Var::from_tensor(&normal("x", &[3, SITE.1])).unwrap())];
        for spec in adapter.param_specs(&[site()]).unwrap() {
            let start = normal(&spec.name, spec.shape.dims());
            inputs.push((spec.name, Var::from_tensor(&start).unwrap()));
        }
        let tensors: Tensors =
            inputs.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let towards = normal("towards", &[3, SITE.0]);
        for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
            let layer_delta = adapter.layer_delta(&site(), &weight, &tensors).unwrap();
            let y =
                layer_delta.apply(&inputs[0].1, &weight, &bias, Epilogue::default(), mode).unwrap();
            let mut point: Vec<(String, Vec<f64>)> =
                inputs.iter().map(|(name, var)| (name.clone(), values(var))).collect();
            for (found, wanted) in values(&y).iter().zip(formula(&point)) {
                assert!((found - wanted).abs() < 1e-10, "{found} {wanted}");
            }
            let gradients = (y * &towards).unwrap().sum_all().unwrap().backward().unwrap();
            let towards = values(&towards);
            for (index, (name, var)) in inputs.iter().enumerate() {
                let gradient = values(gradients.get(var).unwrap());
                for (at, found) in gradient.iter().enumerate() {
                    let mut side = |step: f64| -> f64 {
                        let before = point[index].1[at];
                        point[index].1[at] = before + step;
                        let sum = formula(&point).iter().zip(&towards).map(|(y, t)| y * t).sum();
                        point[index].1[at] = before;
                        sum
                    };
                    let wanted = (side(1e-5) - side(-1e-5)) / 2e-5;
                    assert!((found - wanted).abs() < 1e-7, "{name} {at}: {found} {wanted}");
                }
            }
        }
    }

    fn find<'a>(point: &'a [(String, Vec<f64>)], end: &str) -> &'a [f64] {
        &point.iter().find(|(name, _)| name.ends_with(end)).unwrap().1
    }

    /// x W^T without the bias, (3, out).
    fn product(x: &[f64], weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let (out, input) = SITE;
        let entry = |row: usize, o: usize| -> f64 {
            (0..input).map(|i| x[row * input + i] * weight(o, i)).sum()
        };
        (0..3 * out).map(|at| entry(at / out, at % out)).collect()
    }

    #[test]
    fn gradients_of_ia3() {
        let (weight, bias) =
            (values(&normal("w", &[SITE.0, SITE.1])), values(&normal("b", &[SITE.0])));
        check(&Ia3, |point| {
            let l = find(point, "ia3_l");
            let y = product(find(point, "x"), |o, i| weight[o * SITE.1 + i]);
            let scaled = |(at, y): (usize, &f64)| l[at % SITE.0] * (y + bias[at % SITE.0]);
            y.iter().enumerate().map(scaled).collect()
        });
    }

    /// Gradients with the norm held at its value where the gradient is taken, as the formula says.
    #[test]
    fn gradients_of_dora() {
        let adapter = Dora { lora: Lora { alpha: 3.0, ..Lora::new(2) } };
        let (weight, bias) =
            (values(&normal("w", &[SITE.0, SITE.1])), values(&normal("b", &[SITE.0])));
        let summed = |a: &[f64], b: &[f64], o: usize, i: usize| -> f64 {
            let low: f64 = (0..2).map(|r| b[o * 2 + r] * a[r * SITE.1 + i]).sum();
            weight[o * SITE.1 + i] + 1.5 * low
        };
        let (a0, b0) = (
            values(&normal("p.lora_A.weight", &[2, SITE.1])),
            values(&normal("p.lora_B.weight", &[SITE.0, 2])),
        );
        let length = |o: usize| -> f64 {
            (0..SITE.1).map(|i| summed(&a0, &b0, o, i).powi(2)).sum::<f64>().sqrt()
        };
        check(&adapter, |point| {
            let (a, b) = (find(point, "lora_A.weight"), find(point, "lora_B.weight"));
            let m = find(point, "magnitude_vector");
            let y = product(find(point, "x"), |o, i| m[o] / length(o) * summed(a, b, o, i));
            y.iter().enumerate().map(|(at, y)| y + bias[at % SITE.0]).collect()
        });
    }

    /// The mask has one number per component; a delta of two sets of components has each component twice.
    #[test]
    fn a_mask_acts_on_every_set_of_components() {
        let device = &Device::Cpu;
        let (a, b) = (normal("a", &[4, 3]), normal("b", &[2, 4]));
        let layer_delta = super::LayerDelta {
            delta: Some(aurora_kernels::LowRank::new(a.clone(), b.clone()).unwrap()),
            scale: None,
        };
        let mask = Tensor::new(&[0.0, 2.0], device).unwrap();
        let delta = layer_delta.masked(&mask).unwrap().delta.unwrap();
        let rows = a.to_vec2::<f64>().unwrap();
        let wanted: Vec<f64> = [0.0, 2.0, 0.0, 2.0]
            .iter()
            .zip(&rows)
            .flat_map(|(factor, row)| row.iter().map(move |value| factor * value))
            .collect();
        assert_eq!(values(delta.a()), wanted);
        assert_eq!(values(delta.b()), values(&b));
    }
}
