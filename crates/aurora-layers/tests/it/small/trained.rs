//! Small model under training, in f32 or f64, and its gradients.

use super::{every_spec, moved};
use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Backbone, Blip, BlipConfig, Variant,
};
use candle_core::{DType, Device, Shape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

fn random(config: &BlipConfig) -> Backbone {
    Backbone::random(config.clone(), 1, &Device::Cpu).unwrap()
}

pub fn backbone(config: BlipConfig, dtype: DType) -> Backbone {
    let mut backbone = random(&config);
    for tensor in backbone.tensors.values_mut() {
        *tensor = tensor.to_dtype(dtype).unwrap();
    }
    backbone
}

pub fn normal(name: &str, shape: impl Into<Shape>, dtype: DType) -> Tensor {
    Stream::new(2, name, 0, 0).normal_tensor(shape, 1.0).unwrap().to_dtype(dtype).unwrap()
}

/// Adapter configurations of every kind and of both variants.
pub fn specs() -> Vec<AdapterConfig> {
    let reference = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, 4);
    every_spec().into_iter().chain([reference]).collect()
}

/// Adapter over variables, moved from its initialization, with its model.
pub fn trained(
    backbone: &Backbone,
    adapter_config: AdapterConfig,
) -> (Arc<Blip>, AdaptedParams, Vec<(String, Var)>) {
    let frozen = Arc::new(backbone.model().unwrap());
    let dtype = backbone.tensors["visual_encoder.cls_token"].dtype();
    let mut tuned = moved(&random(&backbone.config), adapter_config, 0.3);
    for tensor in tuned.tensors.values_mut() {
        *tensor = tensor.to_dtype(dtype).unwrap();
    }
    let (tuned, variables) = tuned.into_variables().unwrap();
    (tuned.model(&frozen).unwrap(), tuned, variables)
}

/// Loss that depends on every value of a tensor, unevenly.
pub fn loss(tensor: &Tensor) -> Tensor {
    let weights = normal("towards", tensor.shape(), tensor.dtype());
    (tensor * weights).unwrap().sum_all().unwrap()
}

/// Gradients by name, of the variables that have one.
pub fn gradients(loss: &Tensor, variables: &[(String, Var)]) -> BTreeMap<String, Tensor> {
    let store = loss.backward().unwrap();
    let found = variables
        .iter()
        .filter_map(|(name, variable)| Some((name.clone(), store.get(variable)?.detach())));
    found.collect()
}

pub fn largest(tensor: &Tensor) -> f64 {
    let largest = tensor.abs().unwrap().max_all().unwrap();
    largest.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// Asserts equal names, and values within this share of the tensor's largest value, or of a thousandth of the largest
/// value of all where that is more.
pub fn assert_same(
    what: &str,
    found: &BTreeMap<String, Tensor>,
    wanted: &BTreeMap<String, Tensor>,
    tolerance: f64,
) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{what}");
    assert!(!found.is_empty());
    let all = wanted.values().map(largest).fold(0.0, f64::max);
    for (name, wanted) in wanted {
        let off = largest(&(&found[name] - wanted).unwrap());
        let scale = largest(wanted).max(1e-3 * all);
        assert!(off <= tolerance * scale, "{what}, {name}: {off:e} of {scale:e}");
    }
}
