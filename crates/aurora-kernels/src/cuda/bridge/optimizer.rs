//! AdamW over all parameters in one launch, with its state on the GPU (Loshchilov and Hutter 2017, arXiv:1711.05101).

use candle_core::backend::BackendStorage;
use candle_core::{DType, Device, Result, Tensor};
use cudarc::driver::CudaSlice;

use super::memory::{Held, Work, gpu_storage};
use crate::cuda::plan::{AdamWBuffers, AdamWConstants, AdamWPlan};
use crate::cuda::{CudaError, DevicePointer, Element};

const OP: &str = "adamw";

/// AdamW state on a GPU: the first and second moments of the parameters, in their order.
#[derive(Debug)]
pub struct AdamWState {
    plan: AdamWPlan,
    moments: Vec<[Tensor; 2]>,
}

impl AdamWState {
    /// Zero moments for these parameters, which are f32, contiguous and all on one GPU.
    ///
    /// # Errors
    /// A parameter elsewhere, more elements than a launch can have.
    pub fn new(parameters: &[&Tensor]) -> Result<Self> {
        let lengths: Vec<usize> = parameters.iter().map(|tensor| tensor.elem_count()).collect();
        let moments = parameters
            .iter()
            .map(|tensor| {
                let zeros = || Tensor::zeros(tensor.shape(), DType::F32, tensor.device());
                Ok([zeros()?, zeros()?])
            })
            .collect::<Result<_>>()?;
        Ok(Self { plan: AdamWPlan::new(Element::F32, &lengths)?, moments })
    }

    /// Downloads the moments of each parameter, first and second.
    ///
    /// # Errors
    /// Errors of the driver.
    pub fn read(&self) -> Result<Vec<[Vec<f32>; 2]>> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1();
        self.moments.iter().map(|[m, v]| Ok([values(m)?, values(v)?])).collect()
    }

    /// Uploads moments that were downloaded.
    ///
    /// # Errors
    /// Another number of parameters or of values.
    pub fn write(&mut self, moments: &[[Vec<f32>; 2]]) -> Result<()> {
        if moments.len() != self.moments.len() {
            candle_core::bail!("adamw: {} states for {}", moments.len(), self.moments.len());
        }
        let each = self.moments.iter().zip(moments);
        self.moments = each
            .map(|([m, v], values)| {
                let put = |like: &Tensor, values: &[f32]| {
                    Tensor::from_slice(values, like.shape(), like.device())
                };
                Ok([put(m, &values[0])?, put(v, &values[1])?])
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// AdamW step on every parameter in place: `(parameter, gradient, constants)` in the order of
    /// [`AdamWState::new`]. All are f32.
    ///
    /// # Errors
    /// Another number of parameters, a tensor elsewhere, errors of the driver.
    pub fn step(&mut self, steps: &[(&Tensor, &Tensor, AdamWConstants)]) -> Result<()> {
        let Some((first, ..)) = steps.first() else { return Ok(()) };
        let Device::Cuda(device) = first.device() else {
            return Err(CudaError::WrongDevice {
                op: OP,
                name: "a parameter",
                found: "the CPU".to_owned(),
                expected: "a GPU".to_owned(),
            }
            .into());
        };
        let work = Work::on(OP, device)?;
        // Copies of gradients that are not contiguous live until the launch.
        let gradients = steps
            .iter()
            .map(|(_, gradient, _)| gradient.contiguous())
            .collect::<Result<Vec<_>>>()?;
        let tensors = steps
            .iter()
            .zip(&gradients)
            .zip(&self.moments)
            .map(|(((parameter, _, constants), gradient), [m, v])| {
                let memory = AdamWBuffers {
                    parameter: in_place(&work, "a parameter", parameter)?,
                    gradient: in_place(&work, "a gradient", gradient)?,
                    first: in_place(&work, "a mean", m)?,
                    second: in_place(&work, "a mean", v)?,
                };
                Ok((memory, *constants))
            })
            .collect::<Result<Vec<_>>>()?;
        let tensors: CudaSlice<u8> = work.upload(&self.plan.tensors(&tensors)?)?;
        let blocks: CudaSlice<u8> = work.upload(&self.plan.blocks())?;
        let launch = self.plan.step(work.at(&tensors), work.at(&blocks))?;
        // SAFETY: every tensor has the length that the plan was made for: parameters do not change
        // theirs, and a gradient has its parameter's. What is changed in place belongs to the
        // optimizer and to the parameters that it was given to move.
        unsafe { work.run(launch) }
    }
}

/// Device pointer to a contiguous f32 tensor.
pub(super) fn in_place(work: &Work, name: &'static str, tensor: &Tensor) -> Result<DevicePointer> {
    let (read, layout) = tensor.storage_and_layout();
    let storage = gpu_storage(OP, name, &read)?;
    if storage.dtype() != DType::F32 || !layout.is_contiguous() {
        candle_core::bail!(
            "{name} is {:?} {:?}, expected f32, contiguous",
            storage.dtype(),
            layout
        );
    }
    let held: Held<'_> = work.dense(name, (storage, layout))?;
    work.pointer(&held)
}
