//! Image column of a file: the bytes of a row, on demand.
//!
//! In an uncompressed page, as the datasets library writes images, every image is a byte range of
//! the file. The ranges are found when the page is first read, and from then on an image is read by
//! its range. In other pages an image cannot be read by itself: the page is decompressed as a
//! whole. Recently decompressed pages are cached (LRU), so that sequential reads decompress each
//! page once. Writers differ in the size of a page: a megabyte, or a whole row group.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::page_index::offset_index::PageLocation;

use super::file::{ParquetFile, contained};
use super::pages::{Page, Pages};
use crate::byte_source::Archive;
use crate::{Error, Result};

/// Byte limit of the cache of decompressed pages, over all files. The current page is kept even if
/// it is larger.
const KEPT: u64 = 512 << 20;

/// Image column of a file.
#[derive(Debug)]
pub(super) struct ImageColumn {
    file: Arc<ParquetFile>,
    leaf: usize,
    /// Pages of each row group, located when the first of them is read.
    groups: Vec<OnceLock<Result<RowGroupPages, String>>>,
    /// Cache id of this file.
    number: u64,
    /// Held while a page is decompressed, so that threads that need the same page wait for it.
    turn: Mutex<()>,
}

impl ImageColumn {
    pub fn new(file: Arc<ParquetFile>, leaf: usize) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let groups = file.groups().map(|_| OnceLock::new()).collect();
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { file, leaf, groups, number, turn: Mutex::new(()) }
    }

    fn image(&self, row: u64) -> Result<Vec<u8>, String> {
        let out = || format!("there is no row {}", row + 1);
        let (number, inside) = self.file.place(row).ok_or_else(out)?;
        let group = self.groups.get(number).ok_or_else(out)?;
        let group =
            group.get_or_init(|| RowGroupPages::new(&self.file, number, self.leaf)).as_ref()?;
        let index = group.pages.pages.partition_point(|page| page.first <= inside);
        let index = index.checked_sub(1).ok_or_else(out)?;
        let page = group.pages.pages.get(index).ok_or_else(out)?;
        let place = usize::try_from(inside - page.first).map_err(|_| out())?;
        let found = match self.page(number, group, index, page)? {
            Known::Lying(places) => match places.get(place).ok_or_else(out)? {
                Some((offset, len)) => {
                    Some(self.file.read_at(*offset, *len).map_err(|e| e.to_string())?)
                }
                None => None,
            },
            Known::Unpacked(values) => {
                values.get(place).ok_or_else(out)?.as_ref().map(|bytes| bytes.data().to_vec())
            }
        };
        found.ok_or_else(|| {
            format!(
                "row {} holds no image, perhaps the path of one: write the dataset with its \
                 images embedded, or name the files in a captions.csv",
                row + 1
            )
        })
    }

    /// Cached page, or the page read now.
    fn page<'a>(
        &self,
        number: usize,
        group: &'a RowGroupPages,
        index: usize,
        page: &Page,
    ) -> Result<Known<'a>, String> {
        let key = (self.number, number, index);
        let lying = group.places.get(index);
        let known = || match lying.and_then(OnceLock::get) {
            Some(Some(places)) => Some(Known::Lying(places)),
            _ => kept().get(key).map(Known::Unpacked),
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known() {
            return Ok(known);
        }
        let values = Arc::new(self.unpack(number, page, &group.pages)?);
        let found = |lying: &'a OnceLock<Option<Places>>| {
            lying.get_or_init(|| places_of(&self.file, page, &values)).as_ref()
        };
        if let Some(places) = lying.and_then(found) {
            return Ok(Known::Lying(places));
        }
        let bytes = page.unpacked.saturating_add(group.pages.dictionary);
        kept().put(key, Arc::clone(&values), bytes);
        Ok(Known::Unpacked(values))
    }

    fn unpack(
        &self,
        group: usize,
        page: &Page,
        pages: &Pages,
    ) -> Result<Vec<Option<ByteArray>>, String> {
        let location = |page: &Page| PageLocation {
            offset: page.offset as i64,
            compressed_page_size: page.len as i32,
            first_row_index: page.first as i64,
        };
        // Of the preceding pages only the first is listed, to be skipped: the dictionary precedes
        // it.
        let first = pages.pages.first().filter(|first| first.offset != page.offset);
        let locations = first.into_iter().chain([page]).map(location).collect();
        let (skipped, rows) = (page.first as usize, page.values as usize);
        let most = self.file.leaf(self.leaf).max_def_level();
        let read = contained(|| {
            let end = page.first + page.values;
            let mut column =
                self.file.column::<ByteArrayType>((group, self.leaf), end, Some(locations))?;
            let passed = column.skip_records(skipped)?;
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let (read, _, _) = column.read_records(rows, Some(&mut levels), None, &mut values)?;
            Ok((passed == skipped && read == rows).then_some((levels, values)))
        });
        let read = read.and_then(|read| read.ok_or("a page holds fewer rows than it says".into()));
        let (levels, values) = read.map_err(|reason| self.file.fault(group, self.leaf, &reason))?;
        if most == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let there = levels.into_iter().map(|level| level == most);
        Ok(there.map(|there| if there { values.next() } else { None }).collect())
    }
}

/// Pages of a row group.
#[derive(Debug)]
struct RowGroupPages {
    pages: Pages,
    /// Byte ranges of the images in each page read so far; `None` inside if the page has no such
    /// ranges.
    places: Vec<OnceLock<Option<Places>>>,
}

/// Page that was read.
enum Known<'a> {
    /// Images that are byte ranges of the file.
    Lying(&'a Places),
    /// Decompressed images.
    Unpacked(Values),
}

/// Offset and length of each image; `None` where there is no image.
type Places = Vec<Option<(u64, u64)>>;

impl RowGroupPages {
    fn new(file: &ParquetFile, number: usize, leaf: usize) -> Result<Self, String> {
        let pages = file.pages(number, leaf)?;
        let places = pages.pages.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { pages, places })
    }
}

/// Byte ranges of the values of a plain page: consecutive up to its end, each after a length of
/// four bytes. `None` for other pages, or if the bytes before the first value are not its length:
/// then other data follow the last value.
fn places_of(file: &ParquetFile, page: &Page, values: &[Option<ByteArray>]) -> Option<Places> {
    if !page.plain {
        return None;
    }
    let mut places = Vec::with_capacity(values.len());
    let mut end = page.offset + page.len;
    let mut first = None;
    for value in values.iter().rev() {
        places.push(match value {
            Some(value) => {
                let len = value.len() as u64;
                let offset = end.checked_sub(len).filter(|&at| at >= page.offset + LENGTH)?;
                end = offset - LENGTH;
                first = Some((end, len));
                Some((offset, len))
            }
            None => None,
        });
    }
    places.reverse();
    if let Some((at, len)) = first {
        let said = file.read_at(at, LENGTH).ok()?;
        let said = u64::from(u32::from_le_bytes(*said.first_chunk()?));
        (said == len).then_some(())?;
    }
    Some(places)
}

/// Bytes of the length before a value.
const LENGTH: u64 = 4;

impl Archive for ImageColumn {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read(&self, index: u64) -> Result<Vec<u8>> {
        self.image(index).map_err(|reason| Error::Read {
            path: self.path().to_path_buf(),
            source: io::Error::other(reason),
        })
    }
}

impl Drop for ImageColumn {
    fn drop(&mut self) {
        kept().forget(self.number);
    }
}

/// File, row group and page.
type Key = (u64, usize, usize);

type Values = Arc<Vec<Option<ByteArray>>>;

/// LRU cache of decompressed pages.
#[derive(Default)]
struct Kept {
    pages: HashMap<Key, (Values, u64, u64)>,
    /// Total size in bytes.
    bytes: u64,
    /// Access counter for the least recently used page.
    clock: u64,
}

fn kept() -> MutexGuard<'static, Kept> {
    static PAGES: OnceLock<Mutex<Kept>> = OnceLock::new();
    PAGES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn get(&mut self, key: Key) -> Option<Values> {
        self.clock += 1;
        let (values, _, used) = self.pages.get_mut(&key)?;
        *used = self.clock;
        Some(Arc::clone(values))
    }

    /// Inserts a page and evicts the least recently used ones until there is room.
    fn put(&mut self, key: Key, values: Values, bytes: u64) {
        while self.bytes + bytes > KEPT {
            let oldest = self.pages.iter().min_by_key(|(_, (_, _, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            self.remove(oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.pages.insert(key, (values, bytes, self.clock));
    }

    fn forget(&mut self, file: u64) {
        let gone: Vec<Key> = self.pages.keys().filter(|key| key.0 == file).copied().collect();
        for key in gone {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some((_, bytes, _)) = self.pages.remove(&key) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_wanted_for_longest_goes_first() {
        let mut kept = Kept::default();
        let page = || Values::default();
        for index in 0..4 {
            kept.put((0, 0, index), page(), KEPT / 4);
        }
        assert!(kept.get((0, 0, 0)).is_some());
        kept.put((1, 0, 0), page(), KEPT / 4);
        assert!(kept.get((0, 0, 1)).is_none() && kept.get((0, 0, 0)).is_some());
        assert_eq!(kept.bytes, KEPT);
        // A page larger than the whole cache is kept alone.
        kept.put((2, 0, 0), page(), 3 * KEPT);
        assert_eq!((kept.pages.len(), kept.bytes), (1, 3 * KEPT));
        kept.forget(2);
        assert_eq!((kept.pages.len(), kept.bytes), (0, 0));
    }
}
