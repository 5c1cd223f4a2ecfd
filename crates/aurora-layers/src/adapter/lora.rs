//! LoRA: `dW = scale B A`, two factors for each site.

use super::{Adapter, Init, Slot};
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use aurora_kernels::LowRank;

/// The LoRA adapter: A (rank, in) and B (out, rank) of every site, under PEFT's names.
#[derive(Debug, Clone)]
pub struct Lora {
    /// Rank of the factors.
    pub rank: usize,
    /// Strength; divided by the rank, or by its root.
    pub alpha: f64,
    /// Whether `scale = alpha / sqrt(rank)` (rsLoRA: the strength does not fade as the rank grows) and not
    /// `alpha / rank`.
    pub rank_stabilised: bool,
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

impl Lora {
    /// Scale 1, so that `dW = B A`.
    pub fn new(rank: usize) -> Self {
        Self { rank, alpha: rank as f64, rank_stabilised: false }
    }

    /// What multiplies B A.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    pub(super) fn factors(&self, site: &Site, tensors: &Tensors) -> Result<LowRank> {
        let a = get(tensors, &a_name(site))?;
        let b = (get(tensors, &b_name(site))? * self.scale())?;
        Ok(LowRank::new(a, b)?)
    }
}

impl Adapter for Lora {
    fn slots(&self, sites: &[Site]) -> Result<Vec<Slot>> {
        let pair = |site: &Site| {
            // PyTorch's uniform Kaiming with a = sqrt(5), which PEFT starts A with: variance 1 / (3 in).
            let bound = (site.in_dim as f64).sqrt().recip();
            [
                Slot::new(a_name(site), (self.rank, site.in_dim), Init::Uniform(bound)),
                Slot::new(b_name(site), (site.out_dim, self.rank), Init::Zeros),
            ]
        };
        Ok(sites.iter().flat_map(pair).collect())
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
        let plain = Lora { rank: 4, alpha: 8.0, rank_stabilised: false };
        let stable = Lora { rank_stabilised: true, ..plain.clone() };
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
            let adapter = Lora { rank, alpha: 1.0, rank_stabilised: false };
            let slots = adapter.slots(&crate::sites(&blip_base())).unwrap();
            assert_eq!(slots.iter().map(|slot| slot.shape.elem_count()).sum::<usize>(), count);
        }
    }
}
