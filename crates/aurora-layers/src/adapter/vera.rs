//! VeRA: `dW = diag(b) B diag(d) A` with random frozen A and B shared by every site, and trained b and d per site
//! (Kopiczko et al. 2024, arXiv:2310.11454).

use super::{Adapter, Init, ParamSpec};
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use aurora_kernels::LowRank;

/// VeRA adapter.
#[derive(Debug, Clone)]
pub struct Vera {
    /// Rank: rows of A and columns of B.
    pub rank: usize,
    /// Initial value of every entry of d.
    pub d_initial: f64,
}

/// Name of the shared A, (rank, widest input); a site uses as many columns as it has inputs.
const A: &str = "vera_A";
/// Name of the shared B, (widest output, rank); a site uses as many rows as it has outputs.
const B: &str = "vera_B";

/// Name of a site's d, (rank).
fn d_name(site: &Site) -> String {
    format!("{}.vera_lambda_d", site.path)
}

/// Name of a site's b, (out).
fn b_name(site: &Site) -> String {
    format!("{}.vera_lambda_b", site.path)
}

impl Vera {
    /// True if a tensor of this name is A or B.
    pub(crate) fn shared(name: &str) -> bool {
        [A, B].contains(&name)
    }
}

impl Adapter for Vera {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let inputs = sites.iter().map(|site| site.in_dim).max().unwrap_or(0);
        let outputs = sites.iter().map(|site| site.out_dim).max().unwrap_or(0);
        // Uniform Kaiming over the inputs of each matrix, as in the paper.
        let bound = |fan_in: usize| Init::Uniform((6.0 / fan_in.max(1) as f64).sqrt());
        let mut specs = vec![
            ParamSpec::new(A, (self.rank, inputs), bound(inputs)),
            ParamSpec::new(B, (outputs, self.rank), bound(self.rank)),
        ];
        for site in sites {
            specs.push(ParamSpec::new(d_name(site), self.rank, Init::Constant(self.d_initial)));
            specs.push(ParamSpec::new(b_name(site), site.out_dim, Init::Zeros));
        }
        Ok(specs)
    }

    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        let a = get(tensors, A)?.narrow(1, 0, site.in_dim)?;
        let b = get(tensors, B)?.narrow(0, 0, site.out_dim)?;
        let (d, scale) = (get(tensors, &d_name(site))?, get(tensors, &b_name(site))?);
        let a = a.broadcast_mul(&d.unsqueeze(1)?)?; // (rank, in)
        let b = b.broadcast_mul(&scale.unsqueeze(1)?)?; // (out, rank)
        Ok(Some(LowRank::new(a, b)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, delta, random};
    use crate::config::tests::tiny;
    use candle_core::Tensor;

    #[test]
    fn delta_is_the_formula() {
        let adapter = Vera { rank: 5, d_initial: 0.1 };
        let sites = crate::sites(&tiny());
        let tensors = random(&adapter, &sites);
        let diagonal = |name: &str| {
            let vector = &tensors[name];
            let size = vector.elem_count();
            let eye = Tensor::eye(size, vector.dtype(), vector.device()).unwrap();
            eye.broadcast_mul(vector).unwrap()
        };
        for site in &sites {
            let a = tensors[A].narrow(1, 0, site.in_dim).unwrap().contiguous().unwrap();
            let b = tensors[B].narrow(0, 0, site.out_dim).unwrap();
            let left = diagonal(&b_name(site)).matmul(&b).unwrap();
            let expected = left.matmul(&diagonal(&d_name(site))).unwrap().matmul(&a).unwrap();
            let worst = (expected - delta(&adapter, site, &tensors)).unwrap();
            let worst = worst.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-4, "{}: {worst}", site.path);
        }
    }

    #[test]
    fn blip_base_at_rank_256_trains_168_960_values() {
        let specs =
            Vera { rank: 256, d_initial: 0.1 }.param_specs(&crate::sites(&blip_base())).unwrap();
        let trained = specs.iter().filter(|spec| spec.name != A && spec.name != B);
        assert_eq!(trained.map(|spec| spec.shape.elem_count()).sum::<usize>(), 168_960);
    }
}
