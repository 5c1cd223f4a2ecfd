//! CP decomposition ("mode approximation"), variant paper: `dW_n = V diag(lambda * p_n) U^T` (Wang et al. 2023,
//! arXiv:2305.08381).

use super::{Adapter, Init, ParamSpec, modes_name, u_name, v_name, widths};
use crate::site::Role;
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use aurora_kernels::{LowRank, khatri_rao, transpose_contiguous};

/// Name of lambda, the weights of the rank components, (rank).
const LAMBDA: &str = "aurora_lambda";

/// CP adapter: U (in, rank), V (out, rank) and lambda (rank) shared by every slice of every layer and tower, a vector
/// p_n (rank) per slice. Where widths differ there is a U for each input and a V for each output width.
#[derive(Debug, Clone)]
pub struct Cp {
    /// Rank: number of rank-one components.
    pub rank: usize,
}

impl Adapter for Cp {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let mut specs = vec![ParamSpec::new(LAMBDA, self.rank, Init::Ones)];
        for width in widths(sites, true) {
            specs.push(ParamSpec::new(
                u_name(width),
                (width, self.rank),
                Init::Normal((width as f64).sqrt().recip()),
            ));
        }
        for width in widths(sites, false) {
            // Zero, so that the adapted model starts as the backbone.
            specs.push(ParamSpec::new(v_name(width), (width, self.rank), Init::Zeros));
        }
        for site in sites {
            specs.push(ParamSpec::new(
                modes_name(site),
                (site.slices, self.rank),
                Init::Normal(1.0),
            ));
        }
        Ok(specs)
    }

    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        let u = get(tensors, &u_name(site.slice_in()))?; // (slice in, rank)
        let v = get(tensors, &v_name(site.slice_out()))?; // (slice out, rank)
        let modes = get(tensors, &modes_name(site))?.broadcast_mul(&get(tensors, LAMBDA)?)?; // (slices, rank)
        let (a, b) = match site.role {
            Role::Fc2 => (khatri_rao(&u, &modes)?, v),
            _ => (u, khatri_rao(&v, &modes)?),
        };
        Ok(Some(LowRank::new(transpose_contiguous(&a)?, b)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{assert_slices, blip_base, random};
    use crate::config::tests::tiny;

    /// `V diag(lambda * p_n) U^T`, slice by slice.
    #[test]
    fn delta_is_the_formula_slice_by_slice() {
        let adapter = Cp { rank: 3 };
        let sites = crate::sites(&tiny());
        let tensors = random(&adapter, &sites);
        assert_slices(&adapter, &sites, &tensors, |site, slice| {
            let p = tensors[&modes_name(site)].get(slice).unwrap();
            let s = (&tensors[LAMBDA] * p).unwrap();
            let (u, v) = (&tensors[&u_name(site.slice_in())], &tensors[&v_name(site.slice_out())]);
            v.broadcast_mul(&s).unwrap().matmul(&u.t().unwrap()).unwrap()
        });
    }

    #[test]
    fn blip_base_at_rank_64_has_112_192_values() {
        let specs = Cp { rank: 64 }.param_specs(&crate::sites(&blip_base())).unwrap();
        assert_eq!(specs.iter().map(|spec| spec.shape.elem_count()).sum::<usize>(), 112_192);
    }
}
