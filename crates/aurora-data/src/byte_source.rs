//! Lazy sources of encoded bytes: memory, a file, a byte range of a file, an archive entry.
//!
//! A [`ByteSource`] is small whatever its length. Bytes in files are read on demand, so a dataset of
//! a million images is a list of locations. Ranges of one file, such as the members of a shard,
//! share its handle and are read by position: any number of threads may read at once.
//! Data compressed together with others are an entry of an [`Archive`], which unpacks it.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Error, Result};

/// Limit of cached file handles. A set with more shards reopens the others for every read. Well
/// below the usual limit of 1,024 open files a process.
const KEPT: usize = 256;

/// Number of cached handles.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Encoded bytes, or their location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByteSource {
    /// In memory.
    Memory(Arc<[u8]>),
    /// A whole file.
    File {
        /// The file.
        path: Arc<Path>,
        /// Length when the source was created.
        len: u64,
    },
    /// A byte range of a file.
    Part {
        /// The file, shared by its parts.
        file: Arc<SharedFile>,
        /// Byte offset of the range.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// An entry of an archive that must be unpacked to be read.
    Packed {
        /// The archive, shared by its entries.
        archive: Arc<dyn Archive>,
        /// Index of the entry.
        index: u64,
        /// Approximate length in bytes.
        len: u64,
    },
}

/// Archive whose entries are compressed several together.
pub trait Archive: fmt::Debug + Send + Sync {
    /// Path of the archive.
    fn path(&self) -> &Path;

    /// Bytes of an entry.
    ///
    /// # Errors
    /// I/O errors, and a damaged file.
    fn read(&self, index: u64) -> Result<Vec<u8>>;
}

impl PartialEq for dyn Archive {
    /// Readers of the same path are equal.
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for dyn Archive {}

impl Default for ByteSource {
    /// Empty bytes in memory.
    fn default() -> Self {
        Self::Memory(Arc::from([]))
    }
}

impl ByteSource {
    /// The content of an existing file.
    ///
    /// # Errors
    /// When it is missing, or not a file.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let failed = |source| Error::Read { path: path.clone(), source };
        let found = std::fs::metadata(&path).map_err(failed)?;
        if !found.is_file() {
            let kind = if found.is_dir() { "it is a folder" } else { "it is no ordinary file" };
            return Err(failed(io::Error::other(kind)));
        }
        Ok(Self::File { len: found.len(), path: path.into() })
    }

    /// Length in bytes, as far as known without reading.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(data) => data.len() as u64,
            Self::File { len, .. } | Self::Part { len, .. } | Self::Packed { len, .. } => *len,
        }
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file that holds the bytes, if any.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory(_) => None,
            Self::File { path, .. } => Some(path),
            Self::Part { file, .. } => Some(file.path()),
            Self::Packed { archive, .. } => Some(archive.path()),
        }
    }

    /// All bytes; those in a file are read now.
    ///
    /// # Errors
    /// I/O errors, and a file that has become shorter.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Memory(data) => Ok(Cow::Borrowed(data)),
            Self::File { path, .. } => match std::fs::read(path) {
                Ok(data) => Ok(Cow::Owned(data)),
                Err(source) => Err(Error::Read { path: path.to_path_buf(), source }),
            },
            Self::Part { file, offset, len } => file.read_at(*offset, *len).map(Cow::Owned),
            Self::Packed { archive, index, .. } => archive.read(*index).map(Cow::Owned),
        }
    }

    /// The first bytes, at most `count`.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn head(&self, count: usize) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Memory(data) => Ok(Cow::Borrowed(data.get(..count).unwrap_or(data))),
            Self::File { path, .. } => {
                let read = || {
                    let mut head = Vec::new();
                    File::open(path)?.take(count as u64).read_to_end(&mut head)?;
                    Ok(head)
                };
                read()
                    .map(Cow::Owned)
                    .map_err(|source| Error::Read { path: path.to_path_buf(), source })
            }
            Self::Part { file, offset, len } => {
                file.read_at(*offset, (*len).min(count as u64)).map(Cow::Owned)
            }
            Self::Packed { archive, index, .. } => {
                let mut data = archive.read(*index)?;
                data.truncate(count);
                Ok(Cow::Owned(data))
            }
        }
    }
}

/// File shared by several byte ranges. It is opened at the first read.
#[derive(Debug)]
pub struct SharedFile {
    path: PathBuf,
    len: u64,
    handle: OnceLock<File>,
}

impl PartialEq for SharedFile {
    /// Handles of the same path are equal.
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for SharedFile {}

impl SharedFile {
    /// Handle of the file at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Self { path, len: found.len(), handle: OnceLock::new() }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::Missing { path }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length when the handle was created.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads `len` bytes at `offset`.
    ///
    /// # Errors
    /// I/O errors, and a range past the end of the file.
    pub fn read_at(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let failed = |source| Error::Read { path: self.path.clone(), source };
        // No buffer is allocated for a length that exceeds the file.
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let size = usize::try_from(len).ok().filter(|_| inside).ok_or_else(|| {
            let reason =
                format!("bytes {offset} to {offset} + {len} of a file of {} bytes", self.len);
            failed(io::Error::new(io::ErrorKind::UnexpectedEof, reason))
        })?;
        let mut data = vec![0; size];
        let read = match self.handle.get() {
            Some(handle) => read_exact_at(handle, &mut data, offset),
            None => File::open(&self.path).and_then(|handle| {
                read_exact_at(&handle, &mut data, offset)?;
                self.keep(handle);
                Ok(())
            }),
        };
        match read {
            Ok(()) => Ok(data),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let reason =
                    format!("it has become shorter than the {} bytes it had when opened", self.len);
                Err(failed(io::Error::new(e.kind(), reason)))
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Caches a handle for the next read, unless the cache is full.
    fn keep(&self, handle: File) {
        let more = |open| (open < KEPT).then_some(open + 1);
        if OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
            && self.handle.set(handle).is_err()
        {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        if self.handle.get().is_some() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Positional read (`pread`): it does not move the handle's position, so threads do not interfere.
#[cfg(unix)]
fn read_exact_at(file: &File, data: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, data, offset)
}

/// Positional read (`seek_read`), with the position given to every call.
#[cfg(windows)]
fn read_exact_at(file: &File, mut data: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, data, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        data = data.get_mut(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(())
}
