//! Bottleneck adapter parallel to the MLP of every block (He et al. 2022, arXiv:2110.04366), in the form of UniAdapter
//! (Lu et al. 2023, arXiv:2302.06605).
//!
//! All towers of one width share a layer's down projection; each tower, and fusion, has an up projection of its own:
//!
//! ```text
//! z(x)       = relu(down(norm(x)))
//! vision     : out += 0.1 up_vision(z(x))            x before the MLP
//! text       : out += 0.1 up_text(z(h_self))         alone and in fusion: the query's residual
//! fusion     : out += 0.1 norm_fusion(up_fusion(z(h_cross)) + up_text(z(h_cross)))
//! ```
//!
//! A decoder has its own `up` and fusion, under its own name. The bottleneck is no change of a weight, so it cannot be
//! merged. UniAdapter initializes `up_fusion` at random and lets its norm pass it on; here the weight of that norm
//! starts at zero, so that the adapted model starts as the backbone.

use super::{Adapter, Init, ParamSpec};
use crate::gradient_checkpoint::{MapTensors, TensorMapper};
use crate::layers::{LayerNorm, Linear};
use crate::site::Role;
use crate::tensors::Tensors;
use crate::{Result, Site, Tower};
use aurora_kernels::Precision;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Scale of the bottleneck's output.
const SCALE: f64 = 0.1;
/// Epsilon of the bottleneck's layer norms.
const EPS: f64 = 1e-5;

/// Bottleneck adapter.
#[derive(Debug, Clone)]
pub struct Bottleneck {
    /// Width of the bottleneck.
    pub rank: usize,
}

/// Place of a block's bottleneck, and its up projections.
struct Place {
    tower: Tower,
    layer: usize,
    width: usize,
    /// True if there is an up projection for the block's own states; `fusion` the same for fused states.
    own: bool,
    fusion: bool,
}

impl Place {
    fn part(&self, part: &str) -> String {
        format!("aurora_bottleneck.{}.{part}", self.layer)
    }

    fn norm(&self) -> String {
        self.part(&format!("norm.{}", self.width))
    }

    fn down(&self) -> String {
        self.part(&format!("down.{}", self.width))
    }

    fn up(&self) -> String {
        self.part(self.tower.name())
    }

    fn fused_up(&self) -> String {
        self.part(&format!("{}_fusion", self.tower.name()))
    }

    fn fused_norm(&self) -> String {
        self.part(&format!("{}_fusion_norm", self.tower.name()))
    }
}

/// Blocks of these sites, by path. A block has a bottleneck if it has a site; cross-attention sites stand for fusion,
/// all others for the block itself.
fn places(sites: &[Site]) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for site in sites {
        let width = match site.role {
            Role::Qkv | Role::AttnOut | Role::Fc1 => site.in_dim,
            Role::Fc2 | Role::Query | Role::Key | Role::Value => site.out_dim,
        };
        let place = places.entry(site.block().to_owned()).or_insert(Place {
            tower: site.tower,
            layer: site.layer,
            width,
            own: false,
            fusion: false,
        });
        match site.path.contains(".crossattention.") {
            true => place.fusion = true,
            false => place.own = true,
        }
    }
    places
}

impl Adapter for Bottleneck {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let mut specs: BTreeMap<String, ParamSpec> = BTreeMap::new();
        let mut add = |path: String, weight: Option<(usize, usize)>, width: usize, init: Init| {
            // A linear layer has a weight (out, in), a norm one of its width.
            let shape = weight.map_or(width.into(), candle_core::Shape::from);
            for spec in [
                ParamSpec::new(format!("{path}.weight"), shape, init),
                ParamSpec::new(format!("{path}.bias"), width, Init::Zeros),
            ] {
                specs.insert(spec.name.clone(), spec);
            }
        };
        // PyTorch's default initialization of a linear layer.
        let uniform = |fan_in: usize| Init::Uniform((fan_in as f64).sqrt().recip());
        for place in places(sites).values() {
            let (width, rank) = (place.width, self.rank);
            add(place.norm(), None, width, Init::Ones);
            add(place.down(), Some((rank, width)), rank, uniform(width));
            if place.own {
                add(place.up(), Some((width, rank)), width, Init::Zeros);
            }
            if place.fusion {
                add(place.fused_up(), Some((width, rank)), width, uniform(rank));
                add(place.fused_norm(), None, width, Init::Zeros);
            }
        }
        Ok(specs.into_values().collect())
    }

    fn parallel(
        &self,
        sites: &[Site],
        tensors: &Tensors,
    ) -> Result<BTreeMap<String, ParallelAdapter>> {
        let parallel = |place: Place| -> Result<ParallelAdapter> {
            let own = place.own.then(|| Linear::new(&place.up(), tensors)).transpose()?;
            let fused = || -> Result<(Linear, LayerNorm)> {
                let norm = LayerNorm::new(&place.fused_norm(), EPS, tensors)?;
                Ok((Linear::new(&place.fused_up(), tensors)?, norm))
            };
            Ok(ParallelAdapter {
                norm: LayerNorm::new(&place.norm(), EPS, tensors)?,
                down: Linear::new(&place.down(), tensors)?,
                own,
                fused: place.fusion.then(fused).transpose()?,
            })
        };
        places(sites).into_iter().map(|(path, place)| Ok((path, parallel(place)?))).collect()
    }
}

/// Parallel adapter: the bottleneck of one block, ready to apply.
#[derive(Debug, Clone)]
pub struct ParallelAdapter {
    norm: LayerNorm,
    down: Linear,
    own: Option<Linear>,
    fused: Option<(Linear, LayerNorm)>,
}

impl ParallelAdapter {
    fn narrow(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        Ok(self.down.forward(&self.norm.forward(x)?, precision)?.relu()?) // (.., rank)
    }

    /// Part that a pass uses: with the fusion projection or without; none if nothing is left.
    pub(crate) fn part(&self, fused: bool) -> Option<Self> {
        let part = Self { fused: self.fused.clone().filter(|_| fused), ..self.clone() };
        (part.own.is_some() || part.fused.is_some()).then_some(part)
    }

    /// Adds the bottleneck of the block's own states `x` to `out`, both (.., width).
    pub(crate) fn add_self(&self, out: Tensor, x: &Tensor, precision: Precision) -> Result<Tensor> {
        match &self.own {
            None => Ok(out),
            Some(up) => Ok((out + (up.forward(&self.narrow(x, precision)?, precision)? * SCALE)?)?),
        }
    }

    /// Adds the bottleneck of the fused states `h_cross` to `out`, both (.., width).
    pub(crate) fn add_cross(
        &self,
        out: Tensor,
        h_cross: &Tensor,
        precision: Precision,
    ) -> Result<Tensor> {
        let Some((up, norm)) = &self.fused else { return Ok(out) };
        let narrow = self.narrow(h_cross, precision)?;
        let mut wide = up.forward(&narrow, precision)?;
        if let Some(own) = &self.own {
            wide = (wide + own.forward(&narrow, precision)?)?;
        }
        Ok((out + (norm.forward(&wide)? * SCALE)?)?)
    }
}

impl MapTensors for ParallelAdapter {
    fn map_tensors(&self, mapper: &mut TensorMapper) -> Result<Self> {
        let (norm, down) = (self.norm.map_tensors(mapper)?, self.down.map_tensors(mapper)?);
        let own = self.own.as_ref().map(|own| own.map_tensors(mapper)).transpose()?;
        let fused = self.fused.as_ref();
        let fused = fused.map(|(up, norm)| -> Result<(Linear, LayerNorm)> {
            let up = up.map_tensors(mapper)?;
            Ok((up, norm.map_tensors(mapper)?))
        });
        Ok(Self { norm, down, own, fused: fused.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, count, random, vision_large};
    use crate::config::tests::tiny;
    use aurora_kernels::Precision::F32;

    #[test]
    fn blip_base_at_width_128_has_4_784_640_values() {
        assert_eq!(count(&Bottleneck { rank: 128 }, &crate::sites(&blip_base())), 4_784_640);
    }

    #[test]
    fn towers_of_different_width_share_no_narrowing_map() {
        let (r, up, down) = (8, |d: usize| 8 * d + d, |d: usize| 8 * d + 8);
        let vision = 24 * (2 * 1024 + down(1024) + up(1024));
        let text = 12 * (2 * 768 + down(768) + 2 * up(768) + 2 * 768);
        assert_eq!(count(&Bottleneck { rank: r }, &crate::sites(&vision_large())), vision + text);
    }

    /// Forward pass against the formulas at the top of this file, in f64 and with loops.
    #[test]
    fn forward_is_the_formula() {
        let adapter = Bottleneck { rank: 3 };
        let sites = crate::sites(&tiny());
        let tensors = random(&adapter, &sites);
        let parallel = adapter.parallel(&sites, &tensors).unwrap();
        let get = |name: &str, part: &str| -> Vec<f64> {
            let tensor = &tensors[&format!("aurora_bottleneck.1.{name}.{part}")];
            let flat = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            flat.into_iter().map(f64::from).collect()
        };
        let norm = |x: &[f64], name: &str| -> Vec<f64> {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let (weight, bias) = (get(name, "weight"), get(name, "bias"));
            let unit = x.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
            unit.zip(weight.iter().zip(&bias)).map(|(x, (w, b))| x * w + b).collect()
        };
        let map = |x: &[f64], name: &str| -> Vec<f64> {
            let (weight, bias) = (get(name, "weight"), get(name, "bias"));
            let rows = weight.chunks(x.len()).zip(bias);
            rows.map(|(row, b)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
        };
        let narrow = |x: &[f64], width: usize| -> Vec<f64> {
            let z = map(&norm(x, &format!("norm.{width}")), &format!("down.{width}"));
            z.into_iter().map(|z| z.max(0.0)).collect()
        };
        for (path, tower, width) in [
            ("visual_encoder.blocks.1", "vision", 24),
            ("text_encoder.encoder.layer.1", "text", 16),
        ] {
            let x = ParamSpec::new("x", (1, width), Init::Normal(1.0));
            let x = x.init_tensor(4, &candle_core::Device::Cpu).unwrap();
            let values: Vec<f64> =
                x.to_vec2::<f32>().unwrap()[0].iter().map(|&x| f64::from(x)).collect();
            let z = narrow(&values, width);
            let own = map(&z, tower);
            let mut cases =
                vec![(parallel[path].add_self(x.clone(), &x, F32).unwrap(), own.clone())];
            if tower == "text" {
                let fused = map(&z, "text_fusion");
                let sum: Vec<f64> = fused.iter().zip(&own).map(|(a, b)| a + b).collect();
                cases.push((
                    parallel[path].add_cross(x.clone(), &x, F32).unwrap(),
                    norm(&sum, "text_fusion_norm"),
                ));
            }
            for (found, added) in cases {
                let found = found.to_vec2::<f32>().unwrap();
                for ((found, x), added) in found[0].iter().zip(&values).zip(&added) {
                    assert!((f64::from(*found) - (x + 0.1 * added)).abs() < 1e-5, "{path}");
                }
            }
        }
    }

    /// Gradients of all tensors and inputs of a text layer's bottleneck, against central differences.
    #[test]
    fn gradients() {
        let adapter = Bottleneck { rank: 3 };
        let sites: Vec<Site> = crate::sites(&tiny())
            .into_iter()
            .filter(|site| site.tower == Tower::Text && site.layer == 0)
            .collect();
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut shapes = BTreeMap::from([("x".to_string(), candle_core::Shape::from((2, 16)))]);
        for spec in adapter.param_specs(&sites).unwrap() {
            shapes.insert(spec.name, spec.shape);
        }
        for (name, shape) in &shapes {
            let spec = ParamSpec::new(name, shape.clone(), Init::Normal(1.0));
            let start =
                spec.init_tensor(6, &candle_core::Device::Cpu).unwrap().flatten_all().unwrap();
            let start = start.to_vec1::<f32>().unwrap().into_iter().map(f64::from);
            values.insert(name.clone(), start.collect());
        }
        let loss = |values: &BTreeMap<String, Vec<f64>>| {
            let var = |(name, shape): (&String, &candle_core::Shape)| {
                let device = &candle_core::Device::Cpu;
                let tensor = Tensor::from_vec(values[name].clone(), shape.clone(), device).unwrap();
                (name.clone(), candle_core::Var::from_tensor(&tensor).unwrap())
            };
            let vars: BTreeMap<_, _> = shapes.iter().map(var).collect();
            let tensors: Tensors =
                vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
            let parallel =
                &adapter.parallel(&sites, &tensors).unwrap()["text_encoder.encoder.layer.0"];
            let x = &tensors["x"];
            let out =
                parallel.add_cross(parallel.add_self(x.clone(), x, F32).unwrap(), x, F32).unwrap();
            (out.sqr().unwrap().sum_all().unwrap(), vars)
        };
        let (found, vars) = loss(&values);
        let gradients = found.backward().unwrap();
        for (name, var) in &vars {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap();
            for (at, found) in gradient.to_vec1::<f64>().unwrap().into_iter().enumerate() {
                let mut side = |step: f64| -> f64 {
                    let before = values[name][at];
                    values.get_mut(name).unwrap()[at] = before + step;
                    let loss = loss(&values).0.to_scalar::<f64>().unwrap();
                    values.get_mut(name).unwrap()[at] = before;
                    loss
                };
                let wanted = (side(1e-6) - side(-1e-6)) / 2e-6;
                let scale = 1.0 + wanted.abs();
                assert!((found - wanted).abs() < 1e-6 * scale, "{name} {at}: {found} {wanted}");
            }
        }
    }
}
