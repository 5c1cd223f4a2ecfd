//! Parquet file: its footer, validated before the library parses it, and its columns.

use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::DataType;
use ::parquet::errors::{ParquetError, Result as Parsed};
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use ::parquet::file::page_index::offset_index::PageLocation;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;
use ::parquet::schema::types::ColumnDescPtr;
use bytes::Bytes;

use super::pages::{Pages, pages};
use super::thrift::{I32, LIST, Reader, STRUCT, Stop};
use crate::byte_source::SharedFile;
use crate::{Error, Result};

/// Magic bytes at both ends of a file.
const MAGIC: &[u8] = b"PAR1";

/// Nesting limit of columns.
const MAX_DEPTH: usize = 64;

/// File with a parsed footer.
#[derive(Debug)]
pub(super) struct ParquetFile {
    source: Arc<SharedReader>,
    metadata: ParquetMetaData,
    /// First row number of each row group, and the number of rows as the last element.
    starts: Vec<u64>,
}

impl ParquetFile {
    /// Reads the footer of a file.
    ///
    /// # Errors
    /// A file that is missing, truncated, not Parquet, or with an inconsistent footer.
    pub fn open(path: &Path) -> Result<Self> {
        let shared = SharedFile::new(path)?;
        let bad = |reason: String| Error::annotations(path, None, &reason);
        let footer = footer(&shared)?.map_err(bad)?;
        look_over(&footer).map_err(|()| {
            bad("its footer is damaged: the list of its columns contradicts itself".to_string())
        })?;
        let metadata = contained(|| ParquetMetaDataReader::decode_metadata(&footer))
            .map_err(|reason| bad(format!("its footer is damaged: {reason}")))?;
        let mut starts = vec![0u64];
        for group in metadata.row_groups() {
            let before = starts.last().copied().unwrap_or(0);
            let rows = u64::try_from(group.num_rows()).ok();
            // A row has an image, and so more than a byte.
            let next = rows.and_then(|rows| before.checked_add(rows));
            let next = next.filter(|&next| next <= shared.len()).ok_or_else(|| {
                bad(format!(
                    "row group {} is said to have {} rows, in a file of {} bytes",
                    starts.len(),
                    group.num_rows(),
                    shared.len()
                ))
            })?;
            starts.push(next);
        }
        Ok(Self { source: Arc::new(SharedReader(Arc::new(shared))), metadata, starts })
    }

    pub fn path(&self) -> &Path {
        self.source.0.path()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.source.0.len()
    }

    /// Reads `len` bytes at `offset`.
    ///
    /// # Errors
    /// As [`SharedFile::read_at`].
    pub fn read_at(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        self.source.0.read_at(offset, len)
    }

    pub fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }

    /// Row groups, each with the number of its first row.
    pub fn groups(&self) -> impl Iterator<Item = (u64, &RowGroupMetaData)> {
        self.starts.iter().copied().zip(self.metadata.row_groups())
    }

    /// Row group of a row, and the row's index in it.
    pub fn place(&self, row: u64) -> Option<(usize, u64)> {
        let group = self.starts.partition_point(|&start| start <= row).checked_sub(1)?;
        let inside = self.starts.get(group + 1).is_some_and(|&next| row < next);
        inside.then(|| Some((group, row - self.starts.get(group)?)))?
    }

    /// Descriptor of a leaf of the schema.
    pub fn leaf(&self, leaf: usize) -> ColumnDescPtr {
        self.metadata.file_metadata().schema_descr().column(leaf)
    }

    /// Message for a broken column, with its place.
    pub fn fault(&self, group: usize, leaf: usize, reason: &str) -> String {
        format!("row group {}, column {}: {reason}", group + 1, self.leaf(leaf).path().string())
    }

    /// Validated locations of a column's pages.
    pub fn pages(&self, group: usize, leaf: usize) -> Result<Pages, String> {
        let column = self.metadata.row_groups().get(group).and_then(|g| g.columns().get(leaf));
        let found = column.ok_or("it is not there; the file is damaged".to_string());
        found
            .and_then(|column| pages(&self.source.0, column))
            .map_err(|reason| self.fault(group, leaf, &reason))
    }

    /// Reader of a column's values. Validate its pages first (see [`Self::pages`]), and run the
    /// reader inside of [`contained`]. With `locations`, it reads those pages alone; the first of
    /// them has to be the column's first, since a dictionary precedes it.
    pub fn column<T: DataType>(
        &self,
        (group, leaf): (usize, usize),
        rows: u64,
        locations: Option<Vec<PageLocation>>,
    ) -> Parsed<ColumnReaderImpl<T>> {
        let column = self.metadata.row_group(group).column(leaf);
        let source = Arc::clone(&self.source);
        let pages = SerializedPageReader::new(source, column, usize::try_from(rows)?, locations)?;
        Ok(ColumnReaderImpl::new(self.leaf(leaf), Box::new(pages)))
    }
}

/// Runs the library on untrusted bytes and turns a panic into an error. The library panics on input
/// that it does not reject (a negative offset, a slice of levels past the end of a page). Our
/// validation comes first; this catches the rest. State that the call leaves half done is not used
/// afterwards.
pub(super) fn contained<T>(call: impl FnOnce() -> Parsed<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|e| match e {
            ParquetError::General(reason) | ParquetError::EOF(reason) => reason,
            other => other.to_string(),
        }),
        Err(_) => Err("it contradicts itself; the file is damaged".to_string()),
    }
}

/// Bytes of a file's footer. The outer error is an I/O error.
fn footer(file: &SharedFile) -> Result<Result<Vec<u8>, String>> {
    let head = file.read_at(0, file.len().min(64))?;
    if head.starts_with(b"version https://git-lfs") {
        let reason =
            "it is a pointer of Git LFS and not the file itself; `git lfs pull` fetches it";
        return Ok(Err(reason.to_string()));
    }
    let frame = 2 * MAGIC.len() as u64 + 4;
    if file.len() < frame || !head.starts_with(MAGIC) {
        let reason = "it is no Parquet file: it does not begin with PAR1";
        return Ok(Err(reason.to_string()));
    }
    let tail = file.read_at(file.len() - 8, 8)?;
    let (len, magic) = tail.split_at(4);
    if magic != MAGIC {
        let reason = match magic {
            b"PARE" => "it is encrypted, which is not read here",
            _ => "it does not end with PAR1: it was cut off; copy or download it again",
        };
        return Ok(Err(reason.to_string()));
    }
    let len = len.first_chunk().map_or(0, |len| u64::from(u32::from_le_bytes(*len)));
    if len > file.len() - frame {
        let reason = format!("its footer is said to have {len} bytes, of {} in all", file.len());
        return Ok(Err(reason));
    }
    file.read_at(file.len() - 8 - len, len).map(Ok)
}

/// Validates the column tree: the library allocates as many children as a column claims, and
/// recurses as deep as they nest.
fn look_over(footer: &[u8]) -> Result<(), ()> {
    let mut fine = true;
    let walked = Reader::new(footer).fields(&mut |reader, id, kind| {
        if (id, kind) != (2, LIST) {
            return Ok(false);
        }
        let (count, element) = reader.list()?;
        if element != STRUCT {
            return Err(Stop::Bad);
        }
        // Remaining children of each ancestor column.
        let mut open: Vec<u64> = Vec::new();
        for index in 0..count {
            let mut children = 0;
            reader.fields(&mut |reader, id, kind| {
                let own = (id, kind) == (5, I32);
                if own {
                    children = reader.int()?;
                }
                Ok(own)
            })?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            match u64::try_from(children) {
                Ok(children) if children < count - index => open.push(children),
                _ => fine = false,
            }
            fine &= open.len() <= MAX_DEPTH;
            if !fine {
                return Err(Stop::Bad);
            }
        }
        Ok(true)
    });
    if fine && walked.is_ok() { Ok(()) } else { Err(()) }
}

/// Positional reader for the library: threads do not interfere, and no read passes the end.
#[derive(Debug)]
struct SharedReader(Arc<SharedFile>);

impl Length for SharedReader {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for SharedReader {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> Parsed<Self::T> {
        // Only headers are read this way, a few bytes at a time; a page is requested as a whole.
        Ok(BufReader::with_capacity(1 << 10, At { file: Arc::clone(&self.0), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Parsed<Bytes> {
        let part = self.0.read_at(start, length as u64);
        part.map(Bytes::from).map_err(|e| ParquetError::General(e.to_string()))
    }
}

/// Sequential reader from an offset of the file.
#[derive(Debug)]
struct At {
    file: Arc<SharedFile>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.file.len().saturating_sub(self.at).min(out.len() as u64);
        let part = self.file.read_at(self.at, len).map_err(io::Error::other)?;
        for (to, from) in out.iter_mut().zip(&part) {
            *to = *from;
        }
        self.at += len;
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Footer with columns of so many children each.
    fn footer(children: &[u32]) -> Vec<u8> {
        let varint = |mut value: u64| {
            let mut out = Vec::new();
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
            out
        };
        // Field 2 is a list of structs; in each, field 5 is a number.
        let mut out = vec![0x29, 0xfc];
        out.extend(varint(children.len() as u64));
        for &count in children {
            out.push(0x55);
            out.extend(varint(u64::from(count) * 2));
            out.push(0);
        }
        out.push(0);
        out
    }

    #[test]
    fn columns_are_a_tree_of_what_is_there() {
        assert_eq!(look_over(&footer(&[2, 0, 2, 0, 0])), Ok(()));
        assert_eq!(look_over(&footer(&[2, 0])), Err(()), "more children than columns");
        assert_eq!(look_over(&footer(&[1, u32::MAX >> 1, 0])), Err(()));
        assert_eq!(look_over(&footer(&[1; 60])[..100]), Err(()), "cut");
        // A chain that is nested too deep.
        let deep = |depth: usize| [vec![1; depth], vec![0]].concat();
        assert_eq!(look_over(&footer(&deep(MAX_DEPTH - 1))), Ok(()));
        assert_eq!(look_over(&footer(&deep(100_000))), Err(()));
    }
}
