//! Row views of tensors of any layout, and construction of new tensors.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, DeviceLocation, Layout, Result, Storage, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::cuda::CudaError;
use crate::float::Float;
use crate::gemm::Matrix;

/// Dispatch on an element type: the expression with `$real` standing for f32 or f64, after `$dtype`.
macro_rules! by_element {
    ($op:expr, $dtype:expr, $real:ident => $run:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $real = f32;
                $run
            }
            candle_core::DType::F64 => {
                type $real = f64;
                $run
            }
            other => Err(crate::view::unsupported($op, other)),
        }
    };
}
pub(crate) use by_element;

/// Returns the value of an expression where a tensor is on a GPU; empty in a build without CUDA.
macro_rules! on_gpu {
    ($tensor:expr => $run:expr) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() {
            return $run;
        }
    };
}
pub(crate) use on_gpu;

/// Error for an element type other than f32 and f64 on the CPU.
pub(crate) fn unsupported(op: &'static str, dtype: DType) -> candle_core::Error {
    Error::DType { op, name: "the input", dtype: dtype.as_str(), expected: "f32 or f64" }.into()
}

/// Checks that there is code for the element type on the tensor's device.
pub(crate) fn check_element(op: &'static str, tensor: &Tensor) -> Result<()> {
    match (tensor.device().is_cuda(), tensor.dtype()) {
        (false, DType::F32 | DType::F64) => Ok(()),
        (true, DType::F32 | DType::F16 | DType::BF16) => Ok(()),
        (false, other) => Err(unsupported(op, other)),
        (true, other) => Err(Error::DType {
            op,
            name: "the input",
            dtype: other.as_str(),
            expected: "f32, f16 or bf16 on a GPU",
        }
        .into()),
    }
}

/// Checks that `tensor` is on the device of `like`.
pub(crate) fn check_device(
    op: &'static str,
    name: &'static str,
    tensor: &Tensor,
    like: &Tensor,
) -> Result<()> {
    if tensor.device().same_device(like.device()) {
        return Ok(());
    }
    let place = |tensor: &Tensor| match tensor.device().location() {
        DeviceLocation::Cpu => "the CPU".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("the GPU {gpu_id}"),
        other => format!("{other:?}"),
    };
    let (found, expected) = (place(tensor), place(like));
    Err(CudaError::WrongDevice { op, name, found, expected }.into())
}

/// Checks that `tensor` has the element type and the device of `like`.
pub(crate) fn check_like(
    op: &'static str,
    name: &'static str,
    tensor: &Tensor,
    like: &Tensor,
) -> Result<()> {
    if tensor.dtype() != like.dtype() {
        return Err(Error::DType {
            op,
            name,
            dtype: tensor.dtype().as_str(),
            expected: like.dtype().as_str(),
        }
        .into());
    }
    check_device(op, name, tensor, like)
}

/// CPU side of a storage.
pub(crate) fn cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(candle_core::Error::msg("a tensor on the CPU was expected")),
    }
}

/// Row view of a tensor along its last dimension, without a copy wherever its strides allow.
pub(crate) struct Rows<'a, T: Float> {
    data: Cow<'a, [T]>,
    /// Number of rows: the product of all dimensions but the last.
    pub(crate) rows: usize,
    /// Length of a row.
    pub(crate) columns: usize,
    stride: usize,
}

impl<'a, T: Float> Rows<'a, T> {
    /// Rows of a tensor on the CPU.
    pub(crate) fn of(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        Self::new(cpu(storage)?, layout)
    }

    /// Rows of a storage in a layout.
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let data = T::cpu_storage_as_slice(storage)?;
        let columns = layout.dims().last().copied().unwrap_or(1);
        let leading = layout.dims().len().saturating_sub(1);
        let rows = layout.dims()[..leading].iter().product();
        let (data, stride) = match row_stride(layout) {
            Some(stride) if rows * columns > 0 => {
                let start = layout.start_offset();
                (Cow::Borrowed(&data[start..start + (rows - 1) * stride + columns]), stride)
            }
            _ => (Cow::Owned(gather(storage, layout)?), columns),
        };
        Ok(Self { data, rows, columns, stride })
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.data[row * self.stride..row * self.stride + self.columns]
    }

    /// Rows as a matrix.
    pub(crate) fn matrix(&self) -> Matrix<'_, T> {
        Matrix::new(&self.data, self.rows, self.columns, self.stride, 1)
    }

    /// All elements in order, if they are contiguous.
    pub(crate) fn flat(&self) -> Option<&[T]> {
        (self.stride == self.columns || self.rows <= 1).then_some(&self.data)
    }
}

/// Row stride, if all dimensions but the last fold into one and the last is dense.
pub(crate) fn row_stride(layout: &Layout) -> Option<usize> {
    let (&columns, leading) = layout.dims().split_last()?;
    let (&step, strides) = layout.stride().split_last()?;
    if columns > 1 && step != 1 {
        return None;
    }
    let mut inner: Option<(usize, usize)> = None; // stride of the folded part, its length
    for (&dim, &stride) in leading.iter().zip(strides).rev().filter(|(dim, _)| **dim != 1) {
        inner = match inner {
            None => Some((stride, dim)),
            Some((first, length)) if stride == first * length => Some((first, length * dim)),
            Some(_) => return None,
        };
    }
    Some(inner.map_or(columns, |(stride, _)| stride))
}

/// Copy of the elements of a layout, in order.
fn gather<T: Float>(storage: &CpuStorage, layout: &Layout) -> Result<Vec<T>> {
    let mut dense = T::to_cpu_storage_owned(vec![T::zero(); layout.shape().elem_count()]);
    storage.copy_strided_src(&mut dense, 0, layout)?;
    T::cpu_storage_data(dense)
}

/// View (batch, rows, columns) of a tensor whose rows are dense, for operations that cut rows up themselves.
pub(crate) struct Batched<'a, T: Float> {
    pub(crate) data: Cow<'a, [T]>,
    pub(crate) batch_stride: usize,
    pub(crate) row_stride: usize,
}

impl<'a, T: Float> Batched<'a, T> {
    /// View of a tensor on the CPU.
    pub(crate) fn of(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        Self::new(cpu(storage)?, layout)
    }

    /// View of a storage in a three-dimensional layout.
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let data = T::cpu_storage_as_slice(storage)?;
        let (batch, rows, columns) = layout.shape().dims3()?;
        let stride = layout.stride();
        if stride[2] == 1 && layout.shape().elem_count() > 0 {
            let length = (batch - 1) * stride[0] + (rows - 1) * stride[1] + columns;
            let start = layout.start_offset();
            return Ok(Self {
                data: Cow::Borrowed(&data[start..start + length]),
                batch_stride: stride[0],
                row_stride: stride[1],
            });
        }
        Ok(Self {
            data: Cow::Owned(gather(storage, layout)?),
            batch_stride: rows * columns,
            row_stride: columns,
        })
    }

    /// Submatrix of `rows` rows from `row` on and `columns` columns from `column` on.
    pub(crate) fn block(
        &self,
        batch: usize,
        (row, rows): (usize, usize),
        (column, columns): (usize, usize),
    ) -> Matrix<'_, T> {
        let start = batch * self.batch_stride + row * self.row_stride + column;
        Matrix::new(&self.data[start..], rows, columns, self.row_stride, 1)
    }
}

/// Vector of `length` elements that `fill` writes.
///
/// # Safety
/// `fill` must write every element.
pub(crate) unsafe fn fill_uninit<T>(
    length: usize,
    fill: impl FnOnce(&mut [MaybeUninit<T>]),
) -> Vec<T> {
    let mut vector = Vec::with_capacity(length);
    fill(&mut vector.spare_capacity_mut()[..length]);
    // SAFETY: the capacity is at least `length` and the caller vouches for the contents.
    unsafe { vector.set_len(length) };
    vector
}

/// CPU tensor from its elements.
pub(crate) fn tensor_from_vec<T: Float>(values: Vec<T>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Rows per task; fixed, so that sums over rows do not depend on the number of threads.
pub(crate) const ROW_BLOCK: usize = 64;

/// Column sums, the gradient of a bias: blocks in parallel, then block after block.
pub(crate) fn column_sums<T: Float>(rows: &Rows<'_, T>) -> Vec<T> {
    let partial: Vec<Vec<T>> = (0..rows.rows.div_ceil(ROW_BLOCK))
        .into_par_iter()
        .map(|block| {
            let mut sums = vec![T::zero(); rows.columns];
            for row in block * ROW_BLOCK..rows.rows.min((block + 1) * ROW_BLOCK) {
                for (sum, &value) in sums.iter_mut().zip(rows.row(row)) {
                    *sum += value;
                }
            }
            sums
        })
        .collect();
    reduce(partial, rows.columns)
}

/// Sum of vectors of one length, in order.
pub(crate) fn reduce<T: Float>(vectors: Vec<Vec<T>>, length: usize) -> Vec<T> {
    let mut total = vec![T::zero(); length];
    for vector in &vectors {
        for (sum, &value) in total.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    total
}

/// Pointer that tasks share to write to disjoint places.
#[derive(Clone, Copy)]
pub(crate) struct SendPtr<T>(*mut T);

// SAFETY: reaching an element through `at` is unsafe, and its callers promise that no two tasks
// touch the same one.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    /// Wraps a pointer.
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// Pointer to the element `offset` elements on.
    ///
    /// # Safety
    /// It lies inside of the buffer, and no other task touches what is written there.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: vouched for by the caller.
        unsafe { self.0.add(offset) }
    }
}
