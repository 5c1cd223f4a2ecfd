//! DoRA: `W' = m (W + dW) / |W + dW|`, the row norms of a LoRA-tuned weight as parameters of their own (Liu et al.
//! 2024, arXiv:2402.09353).

use super::{Adapter, Init, LayerDelta, Lora, OutputScale, ParamSpec, init_tensors};
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use candle_core::{D, Device, Tensor};

/// DoRA adapter: the factors of a LoRA, and per site the magnitudes m of the weight's rows, initialized as the row
/// norms of the frozen weight.
///
/// The norm in the denominator is a constant to the gradient, as in section 4.3 of the paper.
#[derive(Debug, Clone)]
pub struct Dora {
    /// LoRA that gives the direction.
    pub lora: Lora,
}

/// Name of a site's magnitudes m, (out); PEFT's.
fn magnitude_name(site: &Site) -> String {
    format!("{}.lora_magnitude_vector", site.path)
}

/// Row norms, (out, in) to (out). Rows of zeros have the smallest positive norm, so that nothing is divided by zero.
fn row_lengths(weight: &Tensor) -> Result<Tensor> {
    let squares = weight.detach().contiguous()?.sqr()?.sum(D::Minus1)?;
    Ok(squares.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?)
}

impl Adapter for Dora {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let mut specs = self.lora.param_specs(sites)?;
        specs.extend(
            sites.iter().map(|site| ParamSpec::new(magnitude_name(site), site.out_dim, Init::Ones)),
        );
        Ok(specs)
    }

    fn init_params(
        &self,
        sites: &[Site],
        backbone: &Tensors,
        seed: u64,
        device: &Device,
    ) -> Result<Tensors> {
        let mut tensors = init_tensors(&self.param_specs(sites)?, seed, device)?;
        for site in sites {
            let weight = get(backbone, &format!("{}.weight", site.path))?;
            tensors.insert(magnitude_name(site), row_lengths(&weight)?);
        }
        Ok(tensors)
    }

    fn layer_delta(&self, site: &Site, weight: &Tensor, tensors: &Tensors) -> Result<LayerDelta> {
        let delta = self.lora.factors(site, tensors)?;
        let lengths = row_lengths(&delta.merged_weight(weight)?)?; // (out)
        let factors = (get(tensors, &magnitude_name(site))? / lengths)?;
        Ok(LayerDelta { delta: Some(delta), scale: Some(OutputScale { factors, bias: false }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, count, random, vision_large};
    use crate::config::tests::tiny;

    fn dora(rank: usize) -> Dora {
        Dora { lora: Lora { alpha: 2.0 * rank as f64, ..Lora::new(rank) } }
    }

    /// `m (W + 2 B A) / |W + 2 B A|`, element by element in f64.
    #[test]
    fn merged_is_the_formula() {
        let adapter = dora(3);
        let sites = crate::sites(&tiny());
        let tensors = random(&adapter, &sites);
        let rows = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
        for site in &sites {
            let shape = (site.out_dim, site.in_dim);
            let weight =
                ParamSpec::new("w", shape, Init::Normal(1.0)).init_tensor(3, &Device::Cpu).unwrap();
            let bias = Tensor::ones(site.out_dim, weight.dtype(), &Device::Cpu).unwrap();
            let layer_delta = adapter.layer_delta(site, &weight, &tensors).unwrap();
            let (merged, same) = layer_delta.merged(&weight, &bias).unwrap();
            assert_eq!(same.id(), bias.detach().id(), "the bias is not DoRA's");
            let (a, b) = crate::adapter::lora_names(site);
            let (w, a, b) = (rows(&weight), rows(&tensors[&a]), rows(&tensors[&b]));
            let m = tensors[&magnitude_name(site)].to_vec1::<f32>().unwrap();
            for (o, found) in rows(&merged).iter().enumerate() {
                let sum = |i: usize| {
                    let low = (0..3).map(|r| f64::from(b[o][r]) * f64::from(a[r][i])).sum::<f64>();
                    f64::from(w[o][i]) + 2.0 * low
                };
                let length = (0..site.in_dim).map(|i| sum(i).powi(2)).sum::<f64>().sqrt();
                for (i, found) in found.iter().enumerate() {
                    let wanted = f64::from(m[o]) * sum(i) / length;
                    assert!((f64::from(*found) - wanted).abs() < 1e-5, "{} {o} {i}", site.path);
                }
            }
        }
    }

    #[test]
    fn blip_base_at_rank_8_has_2_202_624_values() {
        assert_eq!(count(&dora(8), &crate::sites(&blip_base())), 2_202_624);
    }

    #[test]
    fn towers_may_differ_in_width() {
        // LoRA's r (in + out) and out, site by site: 24 blocks of 1024 beside 12 layers of 768 whose cross-attention
        // reads 1024.
        let vision = 24 * (8 * (16 * 1024) + 9 * 1024);
        let text = 12 * (8 * (10 * 768 + 2 * 1024) + 6 * 768);
        assert_eq!(count(&dora(8), &crate::sites(&vision_large())), vision + text);
    }
}
