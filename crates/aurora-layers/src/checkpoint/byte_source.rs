//! Byte source: a checkpoint's bytes, read in chunks straight into tensors.
//!
//! Files are not memory-mapped: mapped pages count as this process's memory beside the tensors copied out of them, and
//! a file that another process truncates ends the program.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use crate::{Error, Result};

/// Chunk size in bytes, a multiple of the size of every number.
const PIECE: usize = 1 << 18;

/// Seekable stream of a byte source.
pub(super) trait Stream: Read + Seek + Send + std::fmt::Debug {}

impl Stream for File {}
impl Stream for Cursor<Vec<u8>> {}

/// File, or bytes in memory.
#[derive(Debug)]
pub(crate) struct ByteSource {
    path: PathBuf,
    length: u64,
    stream: Mutex<Box<dyn Stream>>,
}

/// Location and layout of a tensor's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorView<'a> {
    /// Byte offset of the first number.
    pub at: u64,
    /// Count of numbers from the first to the last, gaps between rows included.
    pub span: usize,
    /// Shape.
    pub shape: &'a [usize],
    /// Strides in numbers; none for a contiguous tensor.
    pub stride: Option<&'a [usize]>,
}

impl ByteSource {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { action: "read", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(Error::Format { path: path.into(), reason: "is no file".to_owned() });
        }
        Ok(Self { path: path.into(), length: about.len(), stream: Mutex::new(Box::new(file)) })
    }

    /// Source over bytes in memory; `path` only names them in errors.
    pub(super) fn from_bytes(bytes: Vec<u8>, path: &Path) -> Self {
        let length = bytes.len() as u64;
        Self { path: path.into(), length, stream: Mutex::new(Box::new(Cursor::new(bytes))) }
    }

    /// Path of the file, or the name of the bytes.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Stream for a reader that seeks by itself; it locks the source.
    pub(super) fn stream(&self) -> MutexGuard<'_, Box<dyn Stream>> {
        // Readers seek first, so a reader that panicked leaves no broken state.
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Format error that names the file.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Format { path: self.path.clone(), reason: reason.into() }
    }

    /// Reads the `count` bytes from `at`, all of which have to be there.
    pub(super) fn bytes(&self, at: u64, count: usize) -> Result<Vec<u8>> {
        self.within(at, count as u64)?;
        let mut bytes = vec![0; count];
        self.fill(at, &mut bytes)?;
        Ok(bytes)
    }

    fn within(&self, at: u64, count: u64) -> Result<()> {
        if at.checked_add(count).is_some_and(|end| end <= self.length) {
            return Ok(());
        }
        Err(self.wrong(format!(
            "has {} bytes, and {count} from byte {at} are wanted; the file is cut, fetch or write it again",
            self.length
        )))
    }

    fn fill(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let mut stream = self.stream();
        let read = stream.seek(SeekFrom::Start(at)).and_then(|_| stream.read_exact(bytes));
        read.map_err(|source| Error::File { action: "read", path: self.path.clone(), source })
    }

    /// Reads the tensor of a view, in the type it is stored in. Its numbers are copied once.
    pub(super) fn tensor(
        &self,
        view: TensorView<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        match dtype {
            DType::F32 => self.read(view, f32::from_le_bytes, device),
            DType::F16 => self.read(view, f16::from_le_bytes, device),
            DType::BF16 => self.read(view, bf16::from_le_bytes, device),
            DType::F64 => self.read(view, f64::from_le_bytes, device),
            DType::I64 => self.read(view, i64::from_le_bytes, device),
            DType::I32 => self.read(view, i32::from_le_bytes, device),
            DType::U32 => self.read(view, u32::from_le_bytes, device),
            DType::U8 => self.read(view, u8::from_le_bytes, device),
            other => Err(self.wrong(format!("{other:?} is a type that no weight has"))),
        }
    }

    fn read<T: WithDType, const N: usize>(
        &self,
        view: TensorView<'_>,
        number: fn([u8; N]) -> T,
        device: &Device,
    ) -> Result<Tensor> {
        let TensorView { mut at, span, shape, stride } = view;
        let mut left = (span as u64).saturating_mul(N as u64);
        self.within(at, left)?;
        let mut values = Vec::with_capacity(span);
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        while left > 0 {
            let count = left.min(PIECE as u64);
            let piece = &mut piece[..count as usize];
            self.fill(at, piece)?;
            values.extend(piece.as_chunks().0.iter().map(|&bytes| number(bytes)));
            (at, left) = (at + count, left - count);
        }
        if let Some(stride) = stride {
            values = in_order(&values, shape, stride);
        }
        Ok(Tensor::from_vec(values, shape, device)?)
    }
}

/// Values in row-major order, from values at these strides.
fn in_order<T: Copy>(values: &[T], shape: &[usize], stride: &[usize]) -> Vec<T> {
    let count = shape.iter().product();
    let mut ordered = Vec::with_capacity(count);
    let mut place = vec![0usize; shape.len()];
    for _ in 0..count {
        ordered.push(values[place.iter().zip(stride).map(|(p, s)| p * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            place[axis] += 1;
            if place[axis] < shape[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    ordered
}
