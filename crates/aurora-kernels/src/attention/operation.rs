//! Attention as a candle custom op: dispatch to the CPU or the GPU.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

#[cfg(feature = "cuda")]
use super::Geometry;
use super::{Attention, backward, parts};
#[cfg(feature = "cuda")]
use crate::cuda::bridge;
use crate::view::{Batched, by_element, on_gpu};

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_element!(self.op, q.dtype(), T => {
            let q = Batched::<T>::new(q, q_layout)?;
            let k = Batched::<T>::new(k, k_layout)?;
            let v = Batched::<T>::new(v, v_layout)?;
            self.outputs(&q, &k, &v)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_gpu(bridge::AttentionInputs::Apart([(q, q_layout), (k, k_layout), (v, v_layout)]))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        on_gpu!(q => {
            let inputs = bridge::AttentionInputs::Apart([q, k, v]);
            let [dq, dk, dv] = self.gradients_on_gpu(inputs, out, dout)?;
            Ok((dq, dk, dv))
        });
        let [dq, dk, dv] = by_element!(self.op, q.dtype(), T => backward::separate::<T>(self, [q, k, v], out, dout))?;
        Ok((dq, dk, dv))
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, packed: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_element!(self.op, packed.dtype(), T => {
            let packed = Batched::<T>::new(packed, layout)?;
            let [q, k, v] = parts(&packed, self.shape.width);
            self.outputs(&q, &k, &v)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, packed: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_gpu(bridge::AttentionInputs::Packed((packed, layout)))
    }

    fn bwd(&self, packed: &Tensor, out: &Tensor, dout: &Tensor) -> Result<Option<Tensor>> {
        on_gpu!(packed => {
            let inputs = bridge::AttentionInputs::Packed(packed);
            let [gradient, ..] = self.gradients_on_gpu(inputs, out, dout)?;
            Ok(gradient)
        });
        by_element!(self.op, packed.dtype(), T => backward::packed::<T>(self, packed, out, dout))
            .map(Some)
    }
}

#[cfg(feature = "cuda")]
impl Attention {
    fn options(&self) -> bridge::AttentionOptions<'_> {
        let Geometry { queries, keys, q_len, k_len, heads, width } = self.shape;
        bridge::AttentionOptions {
            op: self.op,
            sizes: [queries, keys, q_len, k_len],
            heads: (heads, width),
            causal: self.causal,
            mask: self.mask.as_ref(),
            scale: self.scale.as_ref(),
            kv_rows: self.kv_rows.as_deref(),
        }
    }

    fn on_gpu(
        &self,
        inputs: bridge::AttentionInputs<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let (out, shape, state) = bridge::attention_forward(&self.options(), inputs)?;
        let _ = self.state.set(state);
        Ok((out, shape))
    }

    fn gradients_on_gpu(
        &self,
        inputs: bridge::AttentionInputs<&Tensor>,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let state = bridge::kept(self.op, &self.state)?;
        bridge::attention_backward(&self.options(), inputs, self.tracked, (out, dout), state)
    }
}
