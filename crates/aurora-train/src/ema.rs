//! Exponential moving averages (EMA) of trained tensors: the part of the momentum model that is not shared.
//!
//! The momentum model is the online model with other tensors (momentum encoder: He et al. 2019, arXiv:1911.05722).
//! Frozen tensors are shared; averaged ones have a second copy here. In the reference variant the shared factors are
//! passed unaveraged, as in the reference code.

use aurora_layers::{
    AdaptedParams, Blip, BoundModel, GradientCheckpointing, ParamGroup, Tensors, Variant,
};
use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, TensorId, Var};
use std::sync::Arc;

use crate::error::{Error, Result};

/// EMA pairs: `average <- decay average + (1 - decay) online`.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    pairs: Vec<(Var, Tensor)>,
    /// Id of the detached view of each average.
    views: Vec<TensorId>,
}

impl Ema {
    /// An EMA without pairs.
    pub fn new(decay: f64) -> Self {
        Self { decay, pairs: Vec::new(), views: Vec::new() }
    }

    /// Tracks `online` from the value of `start`. The returned view shares the average's memory: it shows every update
    /// and takes no gradient.
    ///
    /// # Errors
    /// A candle error when copying.
    pub fn track(&mut self, start: &Tensor, online: &Tensor) -> Result<Tensor> {
        let average = Var::from_tensor(&start.detach().copy()?)?;
        let view = average.as_detached_tensor();
        self.pairs.push((average, online.detach()));
        self.views.push(view.id());
        Ok(view)
    }

    /// The average behind a view.
    fn shown_by(&self, view: &Tensor) -> Option<&Var> {
        let index = self.views.iter().position(|id| *id == view.id())?;
        self.pairs.get(index).map(|(average, _)| average)
    }

    /// Updates every average.
    ///
    /// # Errors
    /// A candle error for tensors that changed shape.
    pub fn update(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if self.pairs.first().is_some_and(|(average, _)| average.device().is_cuda()) {
            let pairs: Vec<_> =
                self.pairs.iter().map(|(a, online)| (a.as_tensor(), online)).collect();
            return Ok(aurora_kernels::cuda::moving_average(&pairs, self.decay)?);
        }
        for (average, online) in &self.pairs {
            average.as_detached_tensor().inplace_op2(online, &EmaOp(self.decay))?;
        }
        Ok(())
    }
}

/// In-place EMA update: `average <- decay average + (1 - decay) online`.
struct EmaOp(f64);

impl InplaceOp2 for EmaOp {
    fn name(&self) -> &'static str {
        "moving average"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        layout: &Layout,
        online: &CpuStorage,
        online_layout: &Layout,
    ) -> candle_core::Result<()> {
        let fits = layout.shape() == online_layout.shape();
        let (Some((start, end)), Some((from, to)), true) =
            (layout.contiguous_offsets(), online_layout.contiguous_offsets(), fits)
        else {
            return Err(candle_core::Error::msg(
                "an average and what it follows are dense and of one shape",
            ));
        };
        let decay = self.0;
        match (average, online) {
            (CpuStorage::F32(average), CpuStorage::F32(online)) => {
                let (keep, take) = (decay as f32, (1.0 - decay) as f32);
                for (average, online) in average[start..end].iter_mut().zip(&online[from..to]) {
                    *average = *average * keep + online * take;
                }
            }
            (CpuStorage::F64(average), CpuStorage::F64(online)) => {
                for (average, online) in average[start..end].iter_mut().zip(&online[from..to]) {
                    *average = *average * decay + online * (1.0 - decay);
                }
            }
            _ => {
                return Err(candle_core::Error::msg(
                    "averages are f32 or f64, as what they follow",
                ));
            }
        }
        Ok(())
    }
}

/// Momentum model: the same backbone with averaged tuned tensors.
#[derive(Debug, Clone)]
pub struct MomentumModel {
    ema: Ema,
    tuned: AdaptedParams,
    blip: Arc<Blip>,
}

impl MomentumModel {
    /// Starts at the online model. `frozen` is the model of the backbone as it was read.
    ///
    /// # Errors
    /// A candle error when copying.
    pub fn new(online: &AdaptedParams, frozen: &Arc<Blip>, decay: f64) -> Result<Self> {
        let mut ema = Ema::new(decay);
        let mut tuned = online.clone();
        for (name, tensor) in &mut tuned.tensors {
            let shared = shared(name, online.adapter_config.variant)
                || AdaptedParams::param_group(name) == ParamGroup::Buffer;
            *tensor = match shared {
                true => tensor.detach(),
                false => ema.track(tensor, tensor)?,
            };
        }
        let blip = tuned.model(frozen)?;
        Ok(Self { ema, tuned, blip })
    }

    /// Assembles a momentum model: `tuned` and `blip` over tensors of `ema`.
    pub fn from_parts(ema: Ema, tuned: AdaptedParams, blip: Arc<Blip>) -> Self {
        Self { ema, tuned, blip }
    }

    /// Averaged tensors.
    pub fn tuned(&self) -> &AdaptedParams {
        &self.tuned
    }

    /// Averages by name, without the tensors shared with the online model. They share the memory of those in use.
    pub fn averaged(&self) -> Tensors {
        let tensors = self.tuned.tensors.iter();
        tensors
            .filter(|(_, tensor)| self.ema.shown_by(tensor).is_some())
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect()
    }

    /// Overwrites the averages in place with the values of the same names.
    ///
    /// # Errors
    /// A name that is missing, a tensor of another shape.
    pub fn set_averages(&self, values: &Tensors) -> Result<()> {
        for (name, tensor) in &self.tuned.tensors {
            let Some(average) = self.ema.shown_by(tensor) else { continue };
            let Some(value) = values.get(name) else {
                let (what, missing) = ("momentum", vec![name.clone()]);
                return Err(Error::State { what, missing, unexpected: Vec::new() });
            };
            average.set(&value.to_device(average.device())?)?;
        }
        Ok(())
    }

    /// Updates the averages, then gives the model and its bound view for this step. A merged weight of that view serves
    /// one block of one pass and is then freed.
    ///
    /// # Errors
    /// Any candle error.
    pub fn step(&self) -> Result<(Arc<Blip>, BoundModel)> {
        self.ema.update()?;
        let mut bound = self.tuned.bind(&self.blip, None)?;
        bound.gradient_checkpointing = GradientCheckpointing::Block;
        Ok((self.blip.clone(), bound))
    }
}

/// True for tensors that the reference code passes to the momentum towers unaveraged.
fn shared(name: &str, variant: Variant) -> bool {
    variant == Variant::Reference
        && (name.starts_with("aurora_u.") || name.starts_with("aurora_v.") || name == "aurora_core")
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_view_follows_the_online_tensor() {
        let online = Var::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let mut ema = Ema::new(0.75);
        let view = ema.track(online.as_tensor(), online.as_tensor()).unwrap();
        online.set(&Tensor::new(&[5f32, 2.0], &Device::Cpu).unwrap()).unwrap();
        ema.update().unwrap();
        assert_eq!(view.to_vec1::<f32>().unwrap(), [2.0, 2.0]);
        assert!(!view.track_op());
    }
}
