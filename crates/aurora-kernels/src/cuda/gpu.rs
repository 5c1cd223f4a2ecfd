//! GPU executor: a stream and memory, as an [`Executor`].

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::Result;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, result};

use super::driver::{driver_error, memory_error, require};
use super::module::Modules;
use super::{CudaError, DeviceBuffer, DevicePointer, Executor, Launch};

/// GPU stream with the modules of its context.
#[derive(Debug, Clone)]
pub struct Gpu {
    stream: Arc<CudaStream>,
    modules: Arc<Modules>,
}

impl Gpu {
    /// New stream on the GPU with this ordinal.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], or an error of the driver.
    pub fn new(ordinal: usize) -> std::result::Result<Self, CudaError> {
        require(ordinal)?;
        let what = |error| driver_error(format!("opening the GPU {ordinal}"), error);
        let context = CudaContext::new(ordinal).map_err(what)?;
        Self::on(context.new_stream().map_err(what)?)
    }

    /// Executor on an existing stream, such as that of candle's device.
    ///
    /// # Errors
    /// Errors of the driver.
    pub fn on(stream: Arc<CudaStream>) -> std::result::Result<Self, CudaError> {
        let modules = Modules::of(stream.context())?;
        Ok(Self { stream, modules })
    }

    /// Stream of this executor.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Modules of the stream's context.
    pub fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }
}

/// GPU buffer of bytes.
struct Bytes {
    slice: CudaSlice<u8>,
    pointer: DevicePointer,
}

impl DeviceBuffer for Bytes {
    fn pointer(&self) -> DevicePointer {
        self.pointer
    }

    fn bytes(&self) -> usize {
        self.slice.len()
    }
}

impl Executor for Gpu {
    fn name(&self) -> String {
        let context = self.stream.context();
        context.name().unwrap_or_else(|_| format!("GPU {}", context.ordinal()))
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn DeviceBuffer>> {
        let what =
            |error| memory_error("allocating memory", error, bytes as u64, self.stream.context());
        // The driver refuses to allocate nothing.
        // SAFETY: bytes of any value are bytes.
        let slice = unsafe { self.stream.alloc::<u8>(bytes.max(1)) }.map_err(what)?;
        let pointer = DevicePointer(slice.device_ptr(&self.stream).0);
        Ok(Box::new(Bytes { slice, pointer }))
    }

    fn upload(&self, bytes: &[u8], to: &dyn DeviceBuffer) -> Result<()> {
        if bytes.len() > to.bytes() {
            return Err(too_much("an upload", bytes.len(), to.bytes()).into());
        }
        let what = |error| driver_error("copying to the GPU", error);
        self.stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: the memory is there and large enough. The copy is over before this returns, for
        // the bytes may go afterwards.
        unsafe { result::memcpy_htod_async(to.pointer().0, bytes, self.stream.cu_stream()) }
            .map_err(what)?;
        Ok(self.stream.synchronize().map_err(what)?)
    }

    fn download(&self, from: &dyn DeviceBuffer) -> Result<Vec<u8>> {
        let what = |error| driver_error("copying from the GPU", error);
        let mut bytes = vec![0; from.bytes()];
        self.stream.context().bind_to_thread().map_err(what)?;
        // SAFETY: the memory is there and as large as the vector; the copy is over before this
        // returns.
        unsafe { result::memcpy_dtoh_async(&mut bytes, from.pointer().0, self.stream.cu_stream()) }
            .map_err(what)?;
        self.stream.synchronize().map_err(what)?;
        Ok(bytes)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let what = |error| driver_error(format!("launching {}", launch.symbol), error);
        self.stream.context().bind_to_thread().map_err(what)?;
        let kernel = self.modules.function(launch.symbol, launch.shared)?;
        let [x, y, z] = launch.grid;
        // The driver reads the struct before the call returns, and does not write it.
        let mut params = [launch.params().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes this one struct, of this layout; the caller vouches for what
        // its pointers point at.
        unsafe {
            result::launch_kernel(
                kernel.function.cu_function(),
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.stream.cu_stream(),
                &mut params,
            )
        }
        .map_err(what)?;
        Ok(())
    }
}

fn too_much(what: &str, asked: usize, limit: usize) -> CudaError {
    CudaError::TooMuch {
        what: what.to_owned(),
        asked: asked as u64,
        unit: "bytes",
        limit: limit as u64,
    }
}
