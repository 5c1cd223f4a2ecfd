//! AdamW update of one parameter on the CPU, in place.

use std::cell::RefCell;

use aurora_kernels::cuda::plan::AdamWConstants as Constants;
use candle_core::{CpuStorage, InplaceOp2, Layout};
use rayon::prelude::*;

use super::CHUNK;

/// AdamW step on a slice of elements: parameter, gradient, first and second moment.
fn apply(constants: Constants, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        *p *= constants.shrink;
        *m += constants.blend1 * (g - *m);
        *v = *v * constants.beta2 + constants.blend2 * g * g;
        let denominator = v.sqrt() / constants.root_correction2 + constants.eps;
        *p -= constants.step_size * *m / denominator;
    }
}

/// In-place operation on a parameter's storage: its AdamW update.
pub(super) struct Update<'a> {
    pub(super) constants: Constants,
    // The trait gives `&self`; the state is borrowed for the length of the call only.
    pub(super) moments: RefCell<&'a mut [Vec<f32>; 2]>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        p_layout: &Layout,
        g: &CpuStorage,
        g_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (Some((p_start, p_end)), Some((g_start, g_end))) =
            (p_layout.contiguous_offsets(), g_layout.contiguous_offsets())
        else {
            candle_core::bail!("adamw: parameter and gradient must be contiguous");
        };
        let (CpuStorage::F32(p), CpuStorage::F32(g)) = (p, g) else {
            candle_core::bail!("adamw: parameter and gradient must be f32");
        };
        let (p, g) = (&mut p[p_start..p_end], &g[g_start..g_end]);
        let mut moments = self.moments.borrow_mut();
        let [m, v] = &mut **moments;
        let constants = self.constants;
        if p.len() <= CHUNK {
            apply(constants, p, g, m, v);
        } else {
            p.par_chunks_mut(CHUNK)
                .zip(g.par_chunks(CHUNK))
                .zip(m.par_chunks_mut(CHUNK))
                .zip(v.par_chunks_mut(CHUNK))
                .for_each(|(((p, g), m), v)| apply(constants, p, g, m, v));
        }
        Ok(())
    }
}
