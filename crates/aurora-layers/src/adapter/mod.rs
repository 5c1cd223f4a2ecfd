//! Adapters: rules that make a frozen layer's delta from named tensors.
//!
//! An adapter is a rule, not a store: it says which named tensors it has and how they change a site's layer. The
//! tensors live in [`crate::AdaptedParams`], so the online model, its moving average and a file on disk are one rule
//! over different tensors.

mod bottleneck;
mod cp;
mod dora;
mod ia3;
mod layer_delta;
mod lora;
mod svd;
mod tensor_train;
mod tucker;
mod vera;

pub use bottleneck::{Bottleneck, ParallelAdapter};
pub use cp::Cp;
pub use dora::Dora;
pub use ia3::Ia3;
pub use layer_delta::{LayerDelta, OutputScale};
pub use lora::Lora;
pub(crate) use lora::lora_names;
pub use tensor_train::TensorTrain;
pub(crate) use tucker::CORE;
pub use tucker::{MlpLayout, Tucker};
pub use vera::Vera;

use crate::tensors::Tensors;
use crate::{Result, Site};
use aurora_kernels::LowRank;
use aurora_kernels::random::Stream;
use candle_core::{Device, Shape, Tensor};
use std::collections::BTreeMap;

/// Initialization of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All this value.
    Constant(f64),
    /// Normal with mean zero and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
}

/// Specification of an adapter's tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Name in the adapter file, without PEFT's `base_model.` prefix.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    /// Initialization.
    pub init: Init,
}

impl ParamSpec {
    pub(crate) fn new(name: impl Into<String>, shape: impl Into<Shape>, init: Init) -> Self {
        Self { name: name.into(), shape: shape.into(), init }
    }

    /// Initial tensor; its values depend on `seed` and the spec's name alone.
    pub(crate) fn init_tensor(&self, seed: u64, device: &Device) -> Result<Tensor> {
        let mut stream = Stream::new(seed, &self.name, 0, 0);
        let shape = self.shape.clone();
        let tensor = match self.init {
            Init::Zeros => Tensor::zeros(shape, candle_core::DType::F32, device)?,
            Init::Ones => Tensor::ones(shape, candle_core::DType::F32, device)?,
            Init::Constant(value) => Tensor::full(value as f32, shape, device)?,
            Init::Normal(std) => stream.normal_tensor(shape, std)?.to_device(device)?,
            Init::Uniform(bound) => {
                stream.uniform_tensor(shape, -bound, bound)?.to_device(device)?
            }
        };
        Ok(tensor)
    }
}

/// Initial tensors of these specs.
pub(crate) fn init_tensors(specs: &[ParamSpec], seed: u64, device: &Device) -> Result<Tensors> {
    specs.iter().map(|spec| Ok((spec.name.clone(), spec.init_tensor(seed, device)?))).collect()
}

/// Adapter: a rule that turns named tensors into deltas of frozen layers.
///
/// [`crate::AdapterConfig`] reaches the implementations in this module only; a type of another crate cannot be bound to
/// a model.
pub trait Adapter: Send + Sync {
    /// Specs of the adapter's tensors for these sites.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when a site cannot take this kind of change.
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>>;

    /// Initial tensors for sites of this `backbone`: from their specs, unless the adapter starts from the weights.
    fn init_params(
        &self,
        sites: &[Site],
        backbone: &Tensors,
        seed: u64,
        device: &Device,
    ) -> Result<Tensors> {
        let _ = backbone;
        init_tensors(&self.param_specs(sites)?, seed, device)
    }

    /// Factors of a site's delta, `dW = b a` with a (rank, in) and b (out, rank), for adapters that add a delta to the
    /// weight and change nothing else. Differentiable with respect to the adapter's tensors.
    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        let _ = (site, tensors);
        Ok(None)
    }

    /// Layer delta of a site with the frozen `weight` (out, in), differentiable with respect to the adapter's tensors.
    fn layer_delta(&self, site: &Site, weight: &Tensor, tensors: &Tensors) -> Result<LayerDelta> {
        let _ = weight;
        Ok(LayerDelta { delta: self.low_rank(site, tensors)?, scale: None })
    }

    /// Parallel adapters by the path of their block, for an adapter that is no change of a weight.
    fn parallel(
        &self,
        sites: &[Site],
        tensors: &Tensors,
    ) -> Result<BTreeMap<String, ParallelAdapter>> {
        let _ = (sites, tensors);
        Ok(BTreeMap::new())
    }

    /// Difference of the merged and the frozen `weight`, (out, in), without graph.
    fn delta(&self, site: &Site, weight: &Tensor, tensors: &Tensors) -> Result<Tensor> {
        if let Some(factors) = self.low_rank(site, tensors)? {
            return Ok(factors.b().matmul(factors.a())?.detach());
        }
        let bias = Tensor::zeros(site.out_dim, weight.dtype(), weight.device())?;
        let (merged, _) = self.layer_delta(site, weight, tensors)?.merged(weight, &bias)?;
        Ok((merged - weight.detach())?)
    }
}

/// Name of a site's modes p_n, one row per slice: (slices, rank).
pub(crate) fn modes_name(site: &Site) -> String {
    format!("{}.aurora_modes", site.path)
}

/// Widths of the slices' inputs (`true`) or outputs, each once, ascending: there is one shared factor per width.
pub(crate) fn widths(sites: &[Site], inputs: bool) -> Vec<usize> {
    let width = |site: &Site| if inputs { site.slice_in() } else { site.slice_out() };
    let mut widths: Vec<usize> = sites.iter().map(width).collect();
    widths.sort_unstable();
    widths.dedup();
    widths
}

/// Name of the shared input factor U for slices of this input width.
pub(crate) fn u_name(width: usize) -> String {
    format!("aurora_u.{width}")
}

/// Name of the shared output factor V for slices of this output width.
pub(crate) fn v_name(width: usize) -> String {
    format!("aurora_v.{width}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::BlipConfig;
    use crate::config::tests::tiny;
    use crate::site::Role;

    /// BLIP-base's towers; only the widths that sites have matter.
    pub(crate) fn blip_base() -> BlipConfig {
        let mut config = tiny();
        config.vision = crate::VisionConfig {
            hidden_size: 768,
            num_hidden_layers: 12,
            intermediate_size: 3072,
            ..config.vision
        };
        config.text = crate::TextConfig {
            hidden_size: 768,
            num_hidden_layers: 12,
            intermediate_size: 3072,
            ..config.text
        };
        config
    }

    /// Towers of BLIP with ViT-L: a vision tower of width 1024 beside a text tower of 768.
    pub(crate) fn vision_large() -> BlipConfig {
        let mut config = blip_base();
        config.vision = crate::VisionConfig {
            hidden_size: 1024,
            num_hidden_layers: 24,
            intermediate_size: 4096,
            ..config.vision
        };
        config
    }

    /// Number of values of an adapter.
    pub(crate) fn count(adapter: &dyn Adapter, sites: &[Site]) -> usize {
        adapter.param_specs(sites).unwrap().iter().map(|spec| spec.shape.elem_count()).sum()
    }

    /// Delta on a weight of zeros: that on any weight, for adapters that only add.
    pub(crate) fn delta(adapter: &dyn Adapter, site: &Site, tensors: &Tensors) -> Tensor {
        let shape = (site.out_dim, site.in_dim);
        let zeros = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        adapter.delta(site, &zeros, tensors).unwrap()
    }

    /// Random tensors of an adapter, none zero, so that no initialization hides an error.
    pub(crate) fn random(adapter: &dyn Adapter, sites: &[Site]) -> Tensors {
        let specs = adapter.param_specs(sites).unwrap();
        let start = |spec: ParamSpec| {
            let random = ParamSpec { init: Init::Normal(1.0), ..spec };
            (random.name.clone(), random.init_tensor(7, &Device::Cpu).unwrap())
        };
        specs.into_iter().map(start).collect()
    }

    /// Checks that every slice of every site's delta is `expected`, (slice out, slice in).
    pub(crate) fn assert_slices(
        adapter: &dyn Adapter,
        sites: &[Site],
        tensors: &Tensors,
        expected: impl Fn(&Site, usize) -> Tensor,
    ) {
        for site in sites {
            let delta = delta(adapter, site, tensors);
            assert_eq!(delta.dims(), [site.out_dim, site.in_dim]);
            let (si, so) = (site.slice_in(), site.slice_out());
            for slice in 0..site.slices {
                let found = match site.role {
                    Role::Fc2 => delta.narrow(1, slice * si, si).unwrap(),
                    _ => delta.narrow(0, slice * so, so).unwrap(),
                };
                let worst = (expected(site, slice) - found).unwrap().abs().unwrap();
                let worst = worst.max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(worst < 1e-5, "{} slice {slice}", site.path);
            }
        }
    }
}
