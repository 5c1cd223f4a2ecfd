//! Cases of the CP delta (arXiv:2305.08381): every slice of a model formed at once, applied beside the frozen linear
//! layer, and the gradients of its factors.

use std::path::Path;

use aurora_kernels::{DeltaMode, adapted_linear, reference};
use aurora_layers::adapter::{Adapter, Cp};
use aurora_layers::{BlipConfig, Site, Tensors, sites};
use candle_core::{Device, Error, Result, Tensor};

use super::linear::Operands;
use super::{backward, cp_gpu};
use crate::cost::{LinearShape, SlicesShape};
use crate::site::LINEAR;
use crate::{BenchCase, Setting, check, normal, values};

/// Sizes of BLIP-base.
const BLIP_BASE: &str = r#"{
    "model_type": "blip",
    "image_text_hidden_size": 256,
    "vision_config": {"image_size": 384, "patch_size": 16, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "layer_norm_eps": 1e-6},
    "text_config": {"vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512, "layer_norm_eps": 1e-12}
}"#;

/// CP adapter of rank 64 over all sites of BLIP-base.
pub(super) struct BaseAdapter {
    pub(super) cp: Cp,
    pub(super) sites: Vec<Site>,
    /// Initial tensors, except V, which would be zero.
    pub(super) tensors: Tensors,
}

impl BaseAdapter {
    pub(super) fn new() -> Result<Self> {
        let config = BlipConfig::from_json(BLIP_BASE, Path::new("BLIP-base")).map_err(other)?;
        let (cp, sites) = (Cp { rank: 64 }, sites(&config));
        let mut tensors =
            cp.init_params(&sites, &Tensors::new(), 0, &Device::Cpu).map_err(other)?;
        for (index, (name, tensor)) in tensors.iter_mut().enumerate() {
            if name.starts_with("aurora_v") {
                *tensor = (normal(index as u64, tensor.dims())? * 0.04)?;
            }
        }
        Ok(Self { cp, sites, tensors })
    }
}

pub(super) fn other(error: aurora_layers::Error) -> Error {
    Error::msg(error)
}

/// Reconstruction of every slice of BLIP-base; the Khatri-Rao products that bring its factors into their layout; for
/// each linear site the delta applied beside the linear layer (on a GPU its own part alone), and the gradients of its
/// factors alone.
pub fn cases(setting: &Setting) -> Vec<BenchCase> {
    let mut cases = vec![reconstruct()];
    cases.extend(super::khatri_rao::cases());
    for site in LINEAR {
        let shape = site.shape(setting);
        let LinearShape { tokens, input, output, rank } = shape;
        let text = format!("T={tokens} {input}->{output} R={rank}");
        let shared = Operands::shared(shape);

        let of = shared.clone();
        let case = BenchCase::new(site.name, "apply", &text, move |e| shape.apply(e));
        cases.push(case.on_cpu(move || {
            let (of, mode) = (of.get()?, DeltaMode::Apply);
            let (x, delta) = (of.x.as_detached_tensor(), of.delta()?);
            let y = adapted_linear(&x, &of.weight, Some(&of.bias), &delta, mode)?.detach();
            of.check_output("apply", &y, &of.merged_weight()?)?;
            Ok(move || adapted_linear(&x, &of.weight, Some(&of.bias), &delta, mode).map(drop))
        }));

        let case = BenchCase::new(site.name, "low_rank", &text, move |e| shape.low_rank(e));
        cases
            .push(case.on_gpu(move |executor, element| cp_gpu::low_rank(executor, element, shape)));

        let of = shared;
        let case =
            BenchCase::new(site.name, "factor_gradient", &text, move |e| shape.factor_gradient(e));
        let case = case.on_cpu(move || {
            let (of, mode) = (of.get()?, DeltaMode::Reconstruct);
            let x = of.x.as_detached_tensor();
            let y = adapted_linear(&x, &of.weight, Some(&of.bias), &of.delta()?, mode)?;
            of.check_factors("factor_gradient", &y)?;
            Ok(backward(y))
        });
        cases.push(
            case.on_gpu(move |executor, element| cp_gpu::factor_gradient(executor, element, shape)),
        );
    }
    cases
}

/// Reconstruction of all 216 slices, from the adapter's own tensors to the weights that a step uses.
fn reconstruct() -> BenchCase {
    let shape = SlicesShape { slices: 216, width: 768, rank: 64 };
    let case = BenchCase::new("blip_base.cp_64", "reconstruct", "N=216 768x768 R=64", move |e| {
        shape.reconstruct(e)
    });
    case.on_gpu(move |executor, element| cp_gpu::reconstruct(executor, element, shape)).on_cpu(
        || {
            let BaseAdapter { cp, sites, tensors } = BaseAdapter::new()?;
            // Values do not matter to the time, memory locations do: one random row, and a weight of its own for each
            // site.
            let row = normal(1000, &[3072])?;
            let weight = |(index, site): (usize, &Site)| {
                let slope = Tensor::arange(0f32, site.out_dim as f32, &Device::Cpu)?;
                let slope = ((slope * 1e-3)? + index as f64)?.unsqueeze(1)?;
                row.narrow(0, 0, site.in_dim)?.unsqueeze(0)?.broadcast_add(&slope)
            };
            let weights: Vec<Tensor> =
                sites.iter().enumerate().map(weight).collect::<Result<_>>()?;
            let form = move |site: &Site, weight: &Tensor| {
                let delta = cp.low_rank(site, &tensors).map_err(other)?;
                let delta = delta.ok_or_else(|| Error::msg("CP has a delta at every site"))?;
                Ok::<_, Error>((delta.merged_weight(weight)?, delta))
            };
            // The first site has its slices along the output, the fourth along the input.
            for index in [0, 3] {
                let (merged, delta) = form(&sites[index], &weights[index])?;
                let few = |matrix: &Tensor| values(&matrix.narrow(0, 0, 8)?);
                let (w, a, b) = (few(&weights[index])?, values(delta.a())?, few(delta.b())?);
                let want = reference::merged_weight(&w, &a, &b, sites[index].in_dim);
                check("reconstruct", &merged, &want)?;
            }
            Ok(move || {
                let each = sites.iter().zip(&weights);
                each.map(|(site, weight)| form(site, weight)).collect::<Result<Vec<_>>>().map(drop)
            })
        },
    )
}
