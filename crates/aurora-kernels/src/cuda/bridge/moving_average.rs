//! Exponential moving average of tensors on a GPU, in one launch.

use candle_core::{Device, Result, Tensor};
use cudarc::driver::CudaSlice;

use super::memory::Work;
use super::optimizer::in_place;
use crate::cuda::Element;
use crate::cuda::plan::{AveragedBuffers, MovingAveragePlan};

/// Exponential moving average `average <- decay average + (1 - decay) live` for every pair (average, live), in place.
/// All are f32, contiguous and on one GPU, and the two of a pair have one length.
///
/// # Errors
/// A tensor elsewhere, of another type or length; errors of the driver.
pub fn moving_average(pairs: &[(&Tensor, &Tensor)], decay: f64) -> Result<()> {
    let Some((first, _)) = pairs.first() else { return Ok(()) };
    let Device::Cuda(device) = first.device() else {
        candle_core::bail!("moving_average: the averages are not on a GPU");
    };
    let work = Work::on("moving_average", device)?;
    let tensors = pairs
        .iter()
        .map(|(average, live)| {
            if average.elem_count() != live.elem_count() {
                candle_core::bail!(
                    "moving_average: {:?} follows {:?}",
                    average.shape(),
                    live.shape()
                );
            }
            let memory = AveragedBuffers {
                average: in_place(&work, "an average", average)?,
                live: in_place(&work, "a live tensor", live)?,
            };
            Ok((memory, average.elem_count()))
        })
        .collect::<Result<Vec<_>>>()?;
    let plan = MovingAveragePlan::new(Element::F32, &tensors)?;
    let tensors: CudaSlice<u8> = work.upload(&plan.tensors())?;
    let blocks: CudaSlice<u8> = work.upload(&plan.blocks())?;
    let launch = plan.step(work.at(&tensors), work.at(&blocks), decay)?;
    // SAFETY: the lengths are those of the tensors, which their owner has updated in place.
    unsafe { work.run(launch) }
}
