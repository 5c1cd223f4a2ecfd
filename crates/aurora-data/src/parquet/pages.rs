//! Page locations of a column, with validated headers.

use ::parquet::basic::Compression;
use ::parquet::file::metadata::ColumnChunkMetaData;

use super::thrift::{I32, Reader, STRUCT, Stop};
use crate::byte_source::SharedFile;

/// Byte limit of a decompressed page.
const MAX_PAGE_BYTES: u64 = 1 << 30;

/// Expansion limit of Snappy: its longest copies are 64 bytes for three.
const SNAPPY: u64 = 22;

/// Bytes read for a header at first, and at most.
const HEADER: u64 = 1 << 12;
const MAX_HEADER_BYTES: u64 = 1 << 24;

/// Data page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Offset of its header.
    pub offset: u64,
    /// Length with the header.
    pub len: u64,
    /// Index in the row group of its first value, and the number of values. In a column without
    /// lists, a value is a row.
    pub first: u64,
    pub values: u64,
    /// Decompressed length.
    pub unpacked: u64,
    /// True if the page ends with its uncompressed values, each after its length.
    pub plain: bool,
    /// True for delta encodings, in which a value may share a prefix with the previous one.
    pub prefixed: bool,
}

/// Pages of a column in a row group.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    /// Data pages in order; at least one.
    pub pages: Vec<Page>,
    /// Decompressed length of the dictionary, or 0.
    pub dictionary: u64,
}

/// Page header.
#[derive(Debug, Default)]
struct Header {
    kind: i64,
    unpacked: i64,
    packed: i64,
    values: Option<i64>,
    encoding: i64,
    /// Bytes of the repetition and definition levels.
    levels: [i64; 2],
}

const PLAIN: i64 = 0;
const DELTA_BYTE_ARRAY: i64 = 7;

const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_2: i64 = 3;

/// Reads and validates the headers of all pages. After that, the library can be asked for any page
/// without trusting an unproven length.
pub(super) fn pages(file: &SharedFile, column: &ColumnChunkMetaData) -> Result<Pages, String> {
    let (mut at, end) = range(file, column)?;
    let mut out = Pages { pages: Vec::new(), dictionary: 0 };
    let mut first = 0u64;
    while at < end {
        let (header, header_len) = header(file, at, end)?;
        let bad = |reason: &str| format!("the page at byte {at} {reason}; the file is damaged");
        let positive = |value| u64::try_from(value).map_err(|_| bad("has a negative length"));
        let (packed, unpacked) = (positive(header.packed)?, positive(header.unpacked)?);
        let len = header_len + packed;
        if len > end - at || i32::try_from(len).is_err() {
            return Err(bad("is longer than its column"));
        }
        let most = match column.compression() {
            Compression::UNCOMPRESSED => packed,
            Compression::SNAPPY => MAX_PAGE_BYTES.min(packed.saturating_mul(SNAPPY) + 64),
            _ => MAX_PAGE_BYTES,
        };
        if unpacked > most {
            return Err(format!(
                "the page at byte {at} has {packed} bytes, to be unpacked to {unpacked}: more than \
                 they can hold, or than the {MAX_PAGE_BYTES} that are allowed; write smaller pages"
            ));
        }
        let values = positive(header.values.unwrap_or(0))?;
        match header.kind {
            DICTIONARY if first == 0 && out.dictionary == 0 => out.dictionary = unpacked.max(1),
            DATA | DATA_2 => {
                let [one, two] = header.levels;
                let levels = positive(one)?.saturating_add(positive(two)?);
                if header.values.is_none() || levels > packed.min(unpacked) {
                    return Err(bad("has a header that contradicts itself"));
                }
                let plain =
                    header.encoding == PLAIN && column.compression() == Compression::UNCOMPRESSED;
                let prefixed = header.encoding == DELTA_BYTE_ARRAY;
                let page = Page { offset: at, len, first, values, unpacked, plain, prefixed };
                out.pages.push(page);
                first = first.saturating_add(values);
            }
            _ => return Err(bad("is of a kind that does not belong there")),
        }
        at += len;
    }
    if i64::try_from(first) != Ok(column.num_values()) {
        let said = column.num_values();
        return Err(format!(
            "its pages hold {first} values instead of {said}; the file is damaged"
        ));
    }
    // With many equal values, a value may take less than a byte; that many values are no images.
    if first > file.len() {
        return Err(format!("it has {first} values in a file of {} bytes", file.len()));
    }
    Ok(out)
}

/// Byte range of a column's pages.
fn range(file: &SharedFile, column: &ColumnChunkMetaData) -> Result<(u64, u64), String> {
    if !matches!(
        column.compression(),
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)
    ) {
        let codec = column.compression();
        return Err(format!(
            "it is compressed with {codec}, which is not read here; write it with snappy or zstd"
        ));
    }
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
    let range = range.and_then(|(start, len)| Some((start, start.checked_add(len)?)));
    range.filter(|&(_, end)| end <= file.len()).ok_or_else(|| {
        let (len, whole) = (column.compressed_size(), file.len());
        format!("it is said to have {len} bytes from {start} on, of a file of {whole}")
    })
}

/// Header at an offset, and its length.
fn header(file: &SharedFile, at: u64, end: u64) -> Result<(Header, u64), String> {
    let mut window = HEADER;
    loop {
        let bytes = file.read_at(at, window.min(end - at)).map_err(|e| e.to_string())?;
        let mut reader = Reader::new(&bytes);
        match parse(&mut reader) {
            Ok(header) => return Ok((header, reader.consumed() as u64)),
            Err(Stop::End) if window < (end - at).min(MAX_HEADER_BYTES) => window *= 8,
            Err(_) => return Err(format!("there is no page at byte {at}; the file is damaged")),
        }
    }
}

/// Parses `PageHeader` of the Parquet format.
fn parse(reader: &mut Reader<'_>) -> Result<Header, Stop> {
    let mut header = Header { encoding: -1, ..Header::default() };
    reader.fields(&mut |reader, id, kind| {
        match (id, kind) {
            (1, I32) => header.kind = reader.int()?,
            (2, I32) => header.unpacked = reader.int()?,
            (3, I32) => header.packed = reader.int()?,
            // The headers of the three page types all begin with the number of values.
            (5 | 7 | 8, STRUCT) => reader.fields(&mut |reader, inner, kind| {
                match (inner, kind, id) {
                    (1, I32, _) => header.values = Some(reader.int()?),
                    (2, I32, 5) | (4, I32, 8) => header.encoding = reader.int()?,
                    (5, I32, 8) => header.levels[0] = reader.int()?,
                    (6, I32, 8) => header.levels[1] = reader.int()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(header)
}
