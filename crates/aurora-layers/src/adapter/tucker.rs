//! Tucker decomposition, variant reference: `dW_n = V (C x3 p_n)^T U^T` with a full core C shared by all slices, as in
//! the reference PyTorch code.

use super::{Adapter, Init, ParamSpec, modes_name, u_name, v_name, widths};
use crate::site::Role;
use crate::tensors::{Tensors, get};
use crate::{Result, Site};
use aurora_kernels::LowRank;
use candle_core::Tensor;

/// Name of the core, (rank, rank, rank).
pub(crate) const CORE: &str = "aurora_core";

/// Layout of the contracted core in MLP sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpLayout {
    /// Slice n reads `C x3 p_n`, as the slices of attention do.
    Sliced,
    /// The reference code's arithmetic: a reshape interleaves the slices. With `K = C x3 P` of shape
    /// (rank, rank, slices), fc1's slice a reads columns `a * rank ..` of K reshaped to (rank, rank * slices), and
    /// fc2's slice a reads the transpose of those columns.
    Interleaved,
}

/// Tucker adapter: U (in, rank), V (out, rank) and the core C (rank, rank, rank) shared by every slice, a vector p_n
/// (rank) per slice; `G_n[i, j] = sum_k C[i, j, k] p_n[k]` and `y = x W^T + b + ((x U) G_n) V^T`.
#[derive(Debug, Clone)]
pub struct Tucker {
    /// Size of each side of the core.
    pub rank: usize,
    /// Layout of the core in MLP sites.
    pub mlp_layout: MlpLayout,
}

impl Tucker {
    /// Contracted cores of a site side by side: (rank, slices * rank). Slice n's is G_n where outputs are stacked; for
    /// [`Role::Fc2`] it is G_n transposed.
    fn cores(&self, site: &Site, tensors: &Tensors) -> Result<Tensor> {
        let (rank, slices) = (self.rank, site.slices);
        let core = get(tensors, CORE)?.reshape((rank * rank, rank))?;
        let modes = get(tensors, &modes_name(site))?; // (slices, rank)
        let contracted = core.matmul(&modes.t()?)?.reshape((rank, rank, slices))?; // (i, j, slice)
        let mlp = matches!(site.role, Role::Fc1 | Role::Fc2);
        let cores = if mlp && self.mlp_layout == MlpLayout::Interleaved {
            contracted
        } else if site.role == Role::Fc2 {
            contracted.permute((1, 2, 0))? // (j, slice, i)
        } else {
            contracted.permute((0, 2, 1))? // (i, slice, j)
        };
        Ok(cores.reshape((rank, slices * rank))?)
    }
}

impl Adapter for Tucker {
    fn param_specs(&self, sites: &[Site]) -> Result<Vec<ParamSpec>> {
        let rank = self.rank;
        let mut specs = vec![ParamSpec::new(
            CORE,
            (rank, rank, rank),
            Init::Uniform(3f64.sqrt() / rank as f64),
        )];
        for width in widths(sites, true) {
            specs.push(ParamSpec::new(
                u_name(width),
                (width, rank),
                Init::Uniform((width as f64).sqrt().recip()),
            ));
        }
        for width in widths(sites, false) {
            specs.push(ParamSpec::new(v_name(width), (width, rank), Init::Zeros));
        }
        for site in sites {
            // Xavier's bound for the matrix of the reference code: 4 columns for a vision attention, 8 for an MLP, one
            // for a layer of the text tower.
            let columns = match site.role {
                Role::Qkv | Role::AttnOut => 4,
                Role::Fc1 | Role::Fc2 => 2 * site.slices,
                Role::Query | Role::Key | Role::Value => 1,
            };
            let bound = (6.0 / (rank + columns) as f64).sqrt();
            specs.push(ParamSpec::new(modes_name(site), (site.slices, rank), Init::Uniform(bound)));
        }
        Ok(specs)
    }

    fn low_rank(&self, site: &Site, tensors: &Tensors) -> Result<Option<LowRank>> {
        let u = get(tensors, &u_name(site.slice_in()))?; // (slice in, rank)
        let v = get(tensors, &v_name(site.slice_out()))?; // (slice out, rank)
        let cores = self.cores(site, tensors)?;
        let slice = |n: usize| cores.narrow(1, n * self.rank, self.rank);
        let (a, b) = if site.role == Role::Fc2 {
            let parts = (0..site.slices).map(|n| slice(n)?.matmul(&u.t()?)); // N_a^T U^T: (rank, slice in)
            (Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 1)?, v)
        } else {
            let parts = (0..site.slices).map(|n| v.matmul(&slice(n)?.t()?)); // V G_n^T: (slice out, rank)
            (u.t()?, Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        };
        Ok(Some(LowRank::new(a.contiguous()?, b)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::{blip_base, delta, random};
    use crate::config::tests::tiny;

    /// Index formulas of the method, with loops.
    fn expected(site: &Site, rank: usize, layout: MlpLayout, tensors: &Tensors) -> Vec<Vec<f64>> {
        let values = |name: &str| -> Vec<f64> {
            tensors[name]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .into_iter()
                .map(f64::from)
                .collect()
        };
        let (core, modes) = (values(CORE), values(&modes_name(site)));
        let (u, v) = (values(&u_name(site.slice_in())), values(&v_name(site.slice_out())));
        let k = |i: usize, j: usize, n: usize| -> f64 {
            (0..rank).map(|c| core[(i * rank + j) * rank + c] * modes[n * rank + c]).sum()
        };
        let (si, so, slices) = (site.slice_in(), site.slice_out(), site.slices);
        let interleaved = layout == MlpLayout::Interleaved;
        let mut delta = vec![vec![0.0; site.in_dim]; site.out_dim];
        for slice in 0..slices {
            // g[i][j] takes component i of x U to component j of V's input
            let g = |i: usize, j: usize| match site.role {
                Role::Fc1 if interleaved => {
                    k(i, (slice * rank + j) / slices, (slice * rank + j) % slices)
                }
                Role::Fc2 if interleaved => {
                    k(j, (slice * rank + i) / slices, (slice * rank + i) % slices)
                }
                _ => k(i, j, slice),
            };
            for o in 0..so {
                for c in 0..si {
                    let mut sum = 0.0;
                    for i in 0..rank {
                        for j in 0..rank {
                            sum += v[o * rank + j] * g(i, j) * u[c * rank + i];
                        }
                    }
                    let (row, column) = if site.role == Role::Fc2 {
                        (o, slice * si + c)
                    } else {
                        (slice * so + o, c)
                    };
                    delta[row][column] = sum;
                }
            }
        }
        delta
    }

    #[test]
    fn delta_follows_the_index_formulas_in_both_layouts() {
        for layout in [MlpLayout::Sliced, MlpLayout::Interleaved] {
            let adapter = Tucker { rank: 3, mlp_layout: layout };
            let sites = crate::sites(&tiny());
            let tensors = random(&adapter, &sites);
            for site in sites.iter().filter(|site| site.layer == 0) {
                let found = delta(&adapter, site, &tensors).to_vec2::<f32>().unwrap();
                let wanted = expected(site, 3, layout, &tensors);
                for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
                    assert!((f64::from(*found) - wanted).abs() < 1e-4, "{} {layout:?}", site.path);
                }
            }
        }
    }

    #[test]
    fn blip_base_at_rank_32_has_88_832_values() {
        let adapter = Tucker { rank: 32, mlp_layout: MlpLayout::Interleaved };
        let specs = adapter.param_specs(&crate::sites(&blip_base())).unwrap();
        assert_eq!(specs.iter().map(|spec| spec.shape.elem_count()).sum::<usize>(), 88_832);
    }
}
