//! Storages as device pointers: read in place, or made dense first.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, Tensor};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr};

use crate::Error;
use crate::cuda::driver::memory_error;
use crate::cuda::{CudaError, DevicePointer, Element, Executor, Gpu, Launch};

/// Operand of an operation: a storage and its layout.
pub(crate) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// GPU side of a storage.
///
/// # Errors
/// [`CudaError::WrongDevice`] for a storage elsewhere.
pub(crate) fn gpu_storage<'a>(
    op: &'static str,
    name: &'static str,
    storage: &'a Storage,
) -> Result<&'a CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        other => Err(CudaError::WrongDevice {
            op,
            name,
            found: format!("{:?}", other.device().location()),
            expected: "a GPU".to_owned(),
        }
        .into()),
    }
}

/// Element type of kernels for a tensor's type.
pub(crate) fn element(op: &'static str, dtype: DType) -> Result<Element> {
    match dtype {
        DType::F32 => Ok(Element::F32),
        DType::F16 => Ok(Element::F16),
        DType::BF16 => Ok(Element::Bf16),
        other => Err(Error::DType {
            op,
            name: "the input",
            dtype: other.as_str(),
            expected: "f32, f16 or bf16 on a GPU",
        }
        .into()),
    }
}

/// Launch context of one operation: the device, and the executor on its stream.
pub(crate) struct Work {
    op: &'static str,
    device: CudaDevice,
    gpu: Gpu,
}

impl Work {
    /// Context on the device of a storage.
    pub(crate) fn on(op: &'static str, device: &CudaDevice) -> Result<Self> {
        let gpu = Gpu::on(device.cuda_stream()).map_err(Error::from)?;
        Ok(Self { op, device: device.clone(), gpu })
    }

    /// Device of this context.
    pub(crate) fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Checks that a storage lives on this device.
    pub(crate) fn check(&self, name: &'static str, storage: &CudaStorage) -> Result<()> {
        if storage.device.same_device(&self.device) {
            return Ok(());
        }
        Err(CudaError::WrongDevice {
            op: self.op,
            name,
            found: format!("{:?}", storage.device.location()),
            expected: format!("{:?}", self.device.location()),
        }
        .into())
    }

    /// Operand as dense rows, `stride` elements apart: in place, or a copy.
    pub(crate) fn rows<'a>(
        &self,
        name: &'static str,
        (storage, layout): Operand<'a>,
    ) -> Result<Held<'a>> {
        self.check(name, storage)?;
        match crate::view::row_stride(layout) {
            Some(stride) => Ok(Held::borrowed(storage, layout.start_offset(), stride)),
            None => self.copied(storage, layout),
        }
    }

    /// Operand as dense elements in order: in place, or a copy.
    pub(crate) fn dense<'a>(
        &self,
        name: &'static str,
        (storage, layout): Operand<'a>,
    ) -> Result<Held<'a>> {
        self.check(name, storage)?;
        match layout.contiguous_offsets() {
            Some((start, _)) => Ok(Held::borrowed(storage, start, columns(layout))),
            None => self.copied(storage, layout),
        }
    }

    /// Operand in place, whose layout the caller knows.
    pub(crate) fn as_it_lies<'a>(&self, (storage, layout): Operand<'a>) -> Held<'a> {
        Held::borrowed(storage, layout.start_offset(), columns(layout))
    }

    fn copied<'a>(&self, storage: &CudaStorage, layout: &Layout) -> Result<Held<'a>> {
        let mut copy = self.uninit(layout.shape(), storage.dtype())?;
        storage.copy_strided_src(&mut copy, 0, layout)?;
        Ok(Held { storage: Cow::Owned(copy), start: 0, stride: columns(layout) })
    }

    /// New storage that a kernel will fill.
    pub(crate) fn uninit(&self, shape: &Shape, dtype: DType) -> Result<CudaStorage> {
        let bytes = shape.elem_count() as u64 * dtype.size_in_bytes() as u64;
        // SAFETY: every caller has a kernel write all of it.
        let made = unsafe { self.device.alloc_uninit(shape, dtype) };
        made.map_err(|error| self.short_of(bytes).map_or(error, candle_core::Error::from))
    }

    /// New storage of zeros.
    pub(crate) fn zeros(&self, shape: &Shape, dtype: DType) -> Result<CudaStorage> {
        self.device.zeros_impl(shape, dtype)
    }

    /// Workspace of f32 that kernels write before they read it; at least one, so that it has an address.
    pub(crate) fn floats(&self, count: usize) -> Result<CudaSlice<f32>> {
        let stream = self.gpu.stream();
        // SAFETY: kernels write it before they read it.
        unsafe { stream.alloc::<f32>(count.max(1)) }.map_err(|error| {
            memory_error(self.op, error, 4 * count as u64, stream.context()).into()
        })
    }

    /// Copy of host values on the device.
    pub(crate) fn upload<T: DeviceRepr + Clone + Default>(
        &self,
        values: &[T],
    ) -> Result<CudaSlice<T>> {
        let stream = self.gpu.stream();
        if values.is_empty() {
            return stream.clone_htod(&vec![T::default()]).w();
        }
        stream.clone_htod(values).w()
    }

    /// Error for memory that ran out, if it did.
    fn short_of(&self, asked: u64) -> Option<CudaError> {
        let (free, total) = self.gpu.stream().context().mem_get_info().ok()?;
        (asked > free as u64).then_some(CudaError::OutOfMemory {
            asked,
            free: free as u64,
            total: total as u64,
        })
    }

    /// Runs launches one after the other.
    ///
    /// # Safety
    /// As [`Executor::launch`], with memory that is held until this returns: the driver keeps the
    /// order of the stream, in which memory is also freed.
    pub(crate) unsafe fn run(&self, launches: impl IntoIterator<Item = Launch>) -> Result<()> {
        for launch in launches {
            // SAFETY: vouched for by the caller.
            unsafe { self.gpu.launch(&launch) }?;
        }
        Ok(())
    }

    fn stream(&self) -> &CudaStream {
        self.gpu.stream()
    }

    /// Device pointer to the beginning of a slice.
    ///
    /// Reads and writes of one stream are in order; dropping the guard records the access for other streams before
    /// the launch. So this is for devices whose tensors one stream uses.
    pub(crate) fn at<T>(&self, slice: &CudaSlice<T>) -> DevicePointer {
        DevicePointer(slice.device_ptr(self.stream()).0)
    }

    /// Device pointer to the beginning of a storage.
    pub(crate) fn start(&self, storage: &CudaStorage) -> Result<DevicePointer> {
        match &storage.slice {
            CudaStorageSlice::F32(slice) => Ok(self.at(slice)),
            CudaStorageSlice::F16(slice) => Ok(self.at(slice)),
            CudaStorageSlice::BF16(slice) => Ok(self.at(slice)),
            CudaStorageSlice::U32(slice) => Ok(self.at(slice)),
            _ => Err(element(self.op, storage.dtype())
                .err()
                .unwrap_or_else(|| candle_core::Error::msg("a storage without an address"))),
        }
    }

    /// Device pointer to the beginning of a held operand.
    pub(crate) fn pointer(&self, held: &Held<'_>) -> Result<DevicePointer> {
        let bytes = held.storage.get().dtype().size_in_bytes();
        Ok(DevicePointer(self.start(held.storage.get())?.0 + (held.start * bytes) as u64))
    }
}

/// Length of a row.
fn columns(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1)
}

/// Storage that is borrowed, or was made for the purpose.
pub(crate) enum Cow<'a> {
    /// Borrowed storage.
    Borrowed(&'a CudaStorage),
    /// Copy.
    Owned(CudaStorage),
}

impl Cow<'_> {
    fn get(&self) -> &CudaStorage {
        match self {
            Self::Borrowed(storage) => storage,
            Self::Owned(storage) => storage,
        }
    }
}

/// Operand that a kernel reads, held for as long as this lives.
pub(crate) struct Held<'a> {
    storage: Cow<'a>,
    start: usize,
    /// Row stride in elements.
    pub(crate) stride: usize,
}

impl<'a> Held<'a> {
    fn borrowed(storage: &'a CudaStorage, start: usize, stride: usize) -> Self {
        Self { storage: Cow::Borrowed(storage), start, stride }
    }

    /// Storage of the operand.
    pub(crate) fn storage(&self) -> &CudaStorage {
        self.storage.get()
    }

    /// Offset of the operand in its storage.
    pub(crate) fn start(&self) -> usize {
        self.start
    }
}

/// Tensor without a graph over a new storage.
pub(crate) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// Rows and columns of a layout: all dimensions but the last, and the last.
pub(crate) fn matrix_dims(layout: &Layout) -> (usize, usize) {
    let (rows, columns) = layout.dims().split_at(layout.dims().len().saturating_sub(1));
    (rows.iter().product(), columns.first().copied().unwrap_or(1))
}
