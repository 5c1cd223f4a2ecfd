//! LoRA: `dW = scale B A`, two factors per site (Hu et al. 2021, arXiv:2106.09685).
//!
//! With PiSSA initialization (Meng et al. 2024, arXiv:2404.02948) A and B start from the largest singular values and
//! vectors of the frozen weight, and the delta is their change: `dW = scale (B A - B0 A0)`. The frozen weight stays
//! whole and shared; A0 and B0 are stored beside. Written as `(B - B0) A + B0 (A - A0)` the delta has twice the rank
//! and is zero to the bit at initialization.

use super::svd::largest;
use super::{Adapter, Init, ParamSpec, init_tensors};
use crate::tensors::{Tensors, get};
use crate::{Error, LoraInit, Result, Site};
use aurora_kernels::LowRank;
use aurora_kernels::random::Stream;
use candle_core::{DType, Device, Tensor};

/// LoRA adapter: A (rank, in) and B (out, rank) of every site, under PEFT's names.
#[derive(Debug, Clone)]
pub struct Lora {
    /// Rank of the factors.
    pub rank: usize,
    /// Alpha, divided by the rank or by its root.
    pub alpha: f64,
    /// rsLoRA: `scale = alpha / sqrt(rank)`, which does not fade as the rank grows, instead of `alpha / rank`
    /// (Kalajdzievski 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// Initialization of A and B.
    pub init: LoraInit,
}

/// Names of a site's A, (rank, in), and B, (out, rank).
pub(crate) fn lora_names(site: &Site) -> (String, String) {
    (a_name(site), b_name(site))
}

fn a_name(site: &Site) -> String {
    format!("{}.lora_A.weight", site.path)
}

fn b_name(site: &Site) -> String {
    format!("{}.lora_B.weight", site.path)
}

/// Names of a site's A0 and B0, the initial factors of PiSSA.
fn init_names(site: &Site) -> (String, String) {
    (format!("{}.lora_A.init", site.path), format!("{}.lora_B.init", site.path))
}

impl Lora {
    /// True if a tensor of this name is an initial factor of PiSSA.
    pub(crate) fn is_init(name: &str) -> bool {
        name.ends_with(".lora_A.init") || name.ends_with(".lora_B.init")
    }

    /// LoRA with scale 1, so that `dW = B A`.
    pub fn new(rank: usize) -> Self {
        Self { rank, alpha: rank as f64, use_rslora: false, init: LoraInit::Zero }
    }

    /// Scale of B A.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    pub(super) fn factors(&self, site: &Site, tensors: &Tensors) -> Result<LowRank> {
        let a = get(tensors, &a_name(site))?;
        let b = get(tensors, &b_name(site))?;
        let (a, b) = match self.init {
            LoraInit::Zero => (a, b),
            LoraInit::Pissa => {
                let (a_init, b_init) = init_names(site);
                let (a0, b0) = (get(tensors, &a_init)?, get(tensors, &b_init)?);
                let moved = (&a - a0)?;
                (Tensor::cat(&[&a, &moved], 0)?, Tensor::cat(&[&(b - &b0)?, &b0], 1)?)
            }
        };
        Ok(LowRank::new(a, (b * self.scale())?)?)
    }

    /// PiSSA initialization of a site: A and B from the largest singular values of its weight, so that `scale B A` is
    /// the best approximation of the weight of this rank.
    fn principal(&self, site: &Site, weight: &Tensor, seed: u64) -> Result<(Tensor, Tensor)> {
        let most = site.in_dim.min(site.out_dim);
        if self.rank > most {
            let reason = format!("the start of PiSSA takes at most {most} of {}", site.path);
            return Err(Error::config("rank", self.rank, reason));
        }
        let mut stream = Stream::new(seed, &a_name(site), 0, 0);
        let found = largest(weight, self.rank, &mut stream)?;
        let share = found.values.iter().map(|value| (value / self.scale()).sqrt());
        let share = Tensor::from_vec(share.collect::<Vec<_>>(), self.rank, weight.device())?;
        let a = found.right.broadcast_mul(&share.unsqueeze(1)?)?;
        let b = found.left.broadcast_mul(&share)?;
        Ok((a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?))
    }
}

impl Adapter for Lora {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let mut specs = Vec::new();
        for site in sites {
            // PyTorch's uniform Kaiming with a = sqrt(5), as PEFT initializes A: variance 1 / (3 in).
            let bound = (site.in_dim as f64).sqrt().recip();
            let (a, b) = ((self.rank, site.in_dim), (site.out_dim, self.rank));
            specs.push(ParamSpec::new(a_name(site), a, Init::Uniform(bound)));
            specs.push(ParamSpec::new(b_name(site), b, Init::Zeros));
            if self.init == LoraInit::Pissa {
                let (a_init, b_init) = init_names(site);
                specs.push(ParamSpec::new(a_init, a, Init::Zeros));
                specs.push(ParamSpec::new(b_init, b, Init::Zeros));
            }
        }
        Ok(specs)
    }

    fn init_params(
        &self,
        sites: &[Site],
        backbone: &Tensors,
        seed: u64,
        device: &Device,
    ) -> Result<Tensors> {
        if self.init == LoraInit::Zero {
            return init_tensors(&self.param_specs(sites)?, seed, device);
        }
        let mut tensors = Tensors::new();
        for site in sites {
            let weight = get(backbone, &format!("{}.weight", site.path))?;
            let (a, b) = self.principal(site, &weight, seed)?;
            let (a_init, b_init) = init_names(site);
            tensors.extend([(a_init, a.clone()), (b_init, b.clone())]);
            tensors.extend([(a_name(site), a), (b_name(site), b)]);
        }
        Ok(tensors)
    }

    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        Ok(Some(self.factors(site, tensors)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, delta, random};
    use crate::config::tests::tiny;

    #[test]
    fn scales_as_lora_and_as_rslora() {
        let sites = crate::sites(&tiny());
        let plain = Lora { alpha: 8.0, ..Lora::new(4) };
        let stable = Lora { use_rslora: true, ..plain.clone() };
        assert_eq!((plain.scale(), stable.scale()), (2.0, 4.0));
        let tensors = random(&plain, &sites);
        for site in &sites {
            let product = tensors[&b_name(site)].matmul(&tensors[&a_name(site)]).unwrap();
            let found = delta(&plain, site, &tensors);
            let worst =
                ((product * 2.0).unwrap() - found).unwrap().abs().unwrap().max_all().unwrap();
            assert!(worst.to_scalar::<f32>().unwrap() < 1e-5, "{}", site.path);
        }
    }

    #[test]
    fn blip_base_has_258_048_values_at_rank_1_and_2_064_384_at_rank_8() {
        for (rank, count) in [(1, 258_048), (8, 2_064_384)] {
            let specs = Lora::new(rank).param_specs(&crate::sites(&blip_base())).unwrap();
            assert_eq!(specs.iter().map(|spec| spec.shape.elem_count()).sum::<usize>(), count);
        }
    }

    /// The initial product is the best approximation of its rank, the delta is zero to the bit, and later it is `scale
    /// (B A - B0 A0)`.
    #[test]
    fn pissa_starts_from_the_weight_and_moves_from_there() {
        let adapter = Lora { alpha: 6.0, init: LoraInit::Pissa, ..Lora::new(3) };
        let sites = crate::sites(&tiny());
        let weights = ParamSpec::new("w", (1, 1), Init::Normal(1.0));
        let weights = |site: &Site| ParamSpec {
            shape: (site.out_dim, site.in_dim).into(),
            ..weights.clone()
        };
        let named = |site: &Site| {
            (format!("{}.weight", site.path), weights(site).init_tensor(1, &Device::Cpu).unwrap())
        };
        let backbone: Tensors = sites.iter().map(named).collect();
        let mut tensors = adapter.init_params(&sites, &backbone, 7, &Device::Cpu).unwrap();
        let product = |tensors: &Tensors, (a, b): &(String, String)| {
            (tensors[b].matmul(&tensors[a]).unwrap() * adapter.scale()).unwrap()
        };
        let norm = |tensor: Tensor| {
            tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
        };
        for site in &sites {
            let weight = &backbone[&format!("{}.weight", site.path)];
            let full =
                largest(weight, site.in_dim.min(site.out_dim), &mut Stream::new(2, "all", 0, 0))
                    .unwrap();
            let rest = full.values[3..].iter().map(|value| value * value).sum::<f64>().sqrt();
            let left_over = norm((weight - product(&tensors, &lora_names(site))).unwrap());
            assert!((f64::from(left_over) - rest).abs() < 1e-4 * rest, "{}", site.path);
            let zero = delta(&adapter, site, &tensors).flatten_all().unwrap();
            assert!(zero.to_vec1::<f32>().unwrap().iter().all(|&value| value == 0.0));
        }
        for (name, tensor) in tensors.iter_mut().filter(|(name, _)| !Lora::is_init(name)) {
            let shift = Stream::new(9, name, 0, 0).normal_tensor(tensor.shape(), 0.3).unwrap();
            *tensor = (&*tensor + shift).unwrap();
        }
        for site in &sites {
            let wanted = (product(&tensors, &lora_names(site))
                - product(&tensors, &init_names(site)))
            .unwrap();
            let off = norm((wanted.clone() - delta(&adapter, site, &tensors)).unwrap());
            assert!(off < 1e-5 * norm(wanted), "{}: {off}", site.path);
        }
        let wide = Lora { init: LoraInit::Pissa, ..Lora::new(17) };
        let message = wide.init_params(&sites, &backbone, 7, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("rank = 17") && message.contains("at most 16"), "{message}");
    }
}
