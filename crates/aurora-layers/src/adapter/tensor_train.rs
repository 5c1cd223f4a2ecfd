//! Tensor train: `dW_n = V S_n U^T`, a small full core per slice between two shared factors.

use super::{Adapter, Init, ParamSpec, u_name, v_name, widths};
use crate::site::Role;
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use aurora_kernels::LowRank;
use candle_core::Tensor;

/// Tensor-train adapter: U (in, rank) and V (out, rank) shared by every slice, a core S_n (rank, rank) per slice.
#[derive(Debug, Clone)]
pub struct TensorTrain {
    /// Rank of the train, the same at both ends of a core.
    pub rank: usize,
}

/// Name of a site's cores, (slices, rank, rank).
fn cores_name(site: &Site) -> String {
    format!("{}.aurora_cores", site.path)
}

impl Adapter for TensorTrain {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let rank = self.rank;
        let mut specs = Vec::new();
        for width in widths(sites, true) {
            let std = (width as f64).sqrt().recip();
            specs.push(ParamSpec::new(u_name(width), (width, rank), Init::Normal(std)));
        }
        for width in widths(sites, false) {
            // Zero, so that the adapted model starts as the backbone.
            specs.push(ParamSpec::new(v_name(width), (width, rank), Init::Zeros));
        }
        for site in sites {
            let std = (rank as f64).sqrt().recip();
            specs.push(ParamSpec::new(
                cores_name(site),
                (site.slices, rank, rank),
                Init::Normal(std),
            ));
        }
        Ok(specs)
    }

    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        let input = get(tensors, &u_name(site.slice_in()))?; // (slice in, rank)
        let output = get(tensors, &v_name(site.slice_out()))?; // (slice out, rank)
        let cores = get(tensors, &cores_name(site))?; // (slices, rank out, rank in)
        let rows = |tensor: Tensor| -> Result<Tensor> {
            // (slices, width, rank) to (slices * width, rank)
            let (slices, width, rank) = tensor.dims3()?;
            Ok(tensor.reshape((slices * width, rank))?)
        };
        let (a, b) = match site.role {
            // Slices side by side along the input: each has its own S_n U^T.
            Role::Fc2 => {
                let by_slice = input.unsqueeze(0)?.broadcast_matmul(&cores.transpose(1, 2)?)?; // (slices, in, rank)
                (rows(by_slice)?.t()?, output)
            }
            _ => (input.t()?, rows(output.unsqueeze(0)?.broadcast_matmul(&cores)?)?),
        };
        Ok(Some(LowRank::new(a.contiguous()?, b)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{assert_slices, blip_base, random};
    use crate::config::tests::tiny;

    #[test]
    fn delta_is_the_formula_slice_by_slice() {
        let adapter = TensorTrain { rank: 3 };
        let sites = crate::sites(&tiny());
        let tensors = random(&adapter, &sites);
        assert_slices(&adapter, &sites, &tensors, |site, slice| {
            let (u, v) = (&tensors[&v_name(site.slice_out())], &tensors[&u_name(site.slice_in())]);
            let core = tensors[&cores_name(site)].get(slice).unwrap();
            u.matmul(&core).unwrap().matmul(&v.t().unwrap()).unwrap()
        });
    }

    #[test]
    fn blip_base_at_rank_16_has_79_872_values() {
        let specs = TensorTrain { rank: 16 }.param_specs(&crate::sites(&blip_base())).unwrap();
        assert_eq!(specs.iter().map(|spec| spec.shape.elem_count()).sum::<usize>(), 79_872);
    }
}
