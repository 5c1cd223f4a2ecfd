//! IA3: a learned scale on each output of a site (Liu et al. 2022, arXiv:2205.05638).

use super::{Adapter, Init, LayerDelta, OutputScale, ParamSpec};
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use candle_core::Tensor;

/// IA3 adapter: `y = l * (x W^T + b)`, with a vector l (out) per site, initialized to ones.
#[derive(Debug, Clone)]
pub struct Ia3;

/// Name of a site's l, (out); PEFT's.
fn scale_name(site: &Site) -> String {
    format!("{}.ia3_l", site.path)
}

impl Adapter for Ia3 {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        Ok(sites
            .iter()
            .map(|site| ParamSpec::new(scale_name(site), site.out_dim, Init::Ones))
            .collect())
    }

    fn layer_delta(&self, site: &Site, _weight: &Tensor, tensors: &Tensors) -> Result<LayerDelta> {
        let factors = get(tensors, &scale_name(site))?;
        Ok(LayerDelta { delta: None, scale: Some(OutputScale { factors, bias: true }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, count, vision_large};

    #[test]
    fn blip_base_has_138_240_values() {
        assert_eq!(count(&Ia3, &crate::sites(&blip_base())), 138_240);
    }

    #[test]
    fn towers_may_differ_in_width() {
        assert_eq!(count(&Ia3, &crate::sites(&vision_large())), 24 * 9 * 1024 + 12 * 6 * 768);
    }

    #[test]
    fn scales_weight_and_bias() {
        let site = &crate::sites(&crate::config::tests::tiny())[0];
        let device = &candle_core::Device::Cpu;
        let ones = |shape: &[usize]| Tensor::ones(shape, candle_core::DType::F32, device).unwrap();
        let l = (ones(&[site.out_dim]) * 3.0).unwrap();
        let tensors = Tensors::from([(scale_name(site), l)]);
        let (weight, bias) = (ones(&[site.out_dim, site.in_dim]), ones(&[site.out_dim]));
        let layer_delta = Ia3.layer_delta(site, &weight, &tensors).unwrap();
        let (weight, bias) = layer_delta.merged(&weight, &bias).unwrap();
        assert!(weight.to_vec2::<f32>().unwrap().iter().flatten().all(|&w| w == 3.0));
        assert!(bias.to_vec1::<f32>().unwrap().iter().all(|&b| b == 3.0));
    }
}
