//! GPU that times launches by its own events, and its roofline.

use std::time::Duration;

use aurora_kernels::cuda::{CudaError, Element, Executor, Gpu};
use candle_core::{Error, Result};
use cudarc::cublas::sys::cublasOperation_t::CUBLAS_OP_N;
use cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, CudaSlice, DeviceRepr, DriverError};
use half::{bf16, f16};

use super::Work;
use crate::cost::LinearShape;
use crate::normal;
use crate::roofline::Roofline;

/// Size of the L2 flush in bytes, more than any GPU's L2 holds: written before each run, so that no run finds its
/// operands there.
const FLUSH: usize = 256 << 20;

/// Runs of each measurement of the roofline; the best counts.
const TRIES: usize = 20;

/// GPU with the resources to time it.
pub struct Device {
    gpu: Gpu,
    flush: CudaSlice<u8>,
    start: CudaEvent,
    end: CudaEvent,
}

impl Device {
    /// Opens the first GPU.
    ///
    /// # Errors
    /// No GPU, with the reason; those of the driver.
    pub fn first() -> std::result::Result<Self, CudaError> {
        let gpu = Gpu::new(0)?;
        let what = |error| driver("preparing the GPU", error);
        let stream = gpu.stream();
        let flush = stream.alloc_zeros::<u8>(FLUSH).map_err(what)?;
        let event = || stream.context().new_event(Some(CU_EVENT_DEFAULT)).map_err(what);
        let (start, end) = (event()?, event()?);
        Ok(Self { gpu, flush, start, end })
    }

    /// Executor that cases put their operands on.
    pub fn executor(&self) -> &dyn Executor {
        &self.gpu
    }

    /// Device time of one run, after an L2 flush.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn time(&mut self, work: &Work) -> Result<Duration> {
        let stream = self.gpu.stream().clone();
        // The flush keeps the device busy while what follows is enqueued: no gap between launches is timed.
        stream
            .memset_zeros(&mut self.flush)
            .map_err(|error| driver("flushing the cache", error))?;
        self.between(|gpu| work.run(gpu))
    }

    /// Device time between two events around what is enqueued.
    fn between(&self, enqueue: impl FnOnce(&Gpu) -> Result<()>) -> Result<Duration> {
        let what = |error| driver("timing", error);
        self.start.record(self.gpu.stream()).map_err(what)?;
        enqueue(&self.gpu)?;
        self.end.record(self.gpu.stream()).map_err(what)?;
        let milliseconds = self.start.elapsed_ms(&self.end).map_err(what)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1e3))
    }

    /// Roofline of the device: bandwidth of a copy of 1 GiB within its memory, and throughput of a GEMM of cuBLAS.
    /// Without cuBLAS operations have no roofline: every case counts as memory-bound.
    ///
    /// # Errors
    /// Those of the driver or cuBLAS.
    pub fn roofline(&self, element: Element) -> Result<Roofline> {
        // SAFETY: only looks for the library.
        let cublas = unsafe { cudarc::cublas::sys::is_culib_present() };
        let operations = match element {
            _ if !cublas => f64::INFINITY,
            Element::F32 => self.product::<f32>(|x| x)?,
            Element::F16 => self.product(f16::from_f32)?,
            Element::Bf16 => self.product(bf16::from_f32)?,
        };
        Ok(Roofline { device: self.gpu.name(), threads: 0, operations, bytes: self.copy()? })
    }

    fn best(&self, mut enqueue: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..TRIES {
            best = best.min(self.between(|_| enqueue())?.as_secs_f64());
        }
        Ok(best)
    }

    fn copy(&self) -> Result<f64> {
        const BYTES: usize = 1 << 30;
        let what = |error| Error::from(driver("copying", error));
        let stream = self.gpu.stream();
        let from = stream.alloc_zeros::<u8>(BYTES).map_err(what)?;
        let mut to = stream.alloc_zeros::<u8>(BYTES).map_err(what)?;
        let best = self.best(|| stream.memcpy_dtod(&from, &mut to).map_err(what))?;
        Ok(2.0 * BYTES as f64 / best)
    }

    /// GEMM throughput in operations per second, on normal numbers: zeros would make a device clock higher.
    fn product<T>(&self, of: impl Fn(f32) -> T) -> Result<f64>
    where
        T: DeviceRepr + Clone + Copy,
        CudaBlas: Gemm<T>,
    {
        const SIZE: usize = 8192;
        let what = |error| Error::from(driver("making operands of a product", error));
        let stream = self.gpu.stream();
        let numbers = normal(0, &[1 << 17])?.to_vec1::<f32>()?;
        let numbers: Vec<T> = numbers.into_iter().map(&of).cycle().take(SIZE * SIZE).collect();
        let operand = || stream.clone_htod(&numbers).map_err(what);
        let (a, b, mut c) = (operand()?, operand()?, operand()?);
        let (one, zero) = (of(1.0), of(0.0));
        let blas = CudaBlas::new(stream.clone()).map_err(Error::wrap)?;
        let size = SIZE as i32;
        let best = self.best(|| {
            let config = GemmConfig {
                transa: CUBLAS_OP_N,
                transb: CUBLAS_OP_N,
                m: size,
                n: size,
                k: size,
                alpha: one,
                lda: size,
                ldb: size,
                beta: zero,
                ldc: size,
            };
            // SAFETY: the three matrices are dense and of this size.
            unsafe { blas.gemm(config, &a, &b, &mut c) }.map_err(Error::wrap)
        })?;
        let side = SIZE as u64;
        let shape = LinearShape { tokens: side, input: side, output: side, rank: 0 };
        Ok(shape.product(4).operations as f64 / best)
    }
}

fn driver(call: &str, DriverError(code): DriverError) -> CudaError {
    CudaError::Driver { call: call.to_owned(), code: code as u32, name: format!("{code:?}") }
}
