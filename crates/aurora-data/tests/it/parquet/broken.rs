//! Damaged or foreign files: an error with place and reason, and nothing else.

use std::path::Path;

use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use aurora_data::source::{self, ReadOptions};
use aurora_data::{OnError, SkipLog};
use image::ImageFormat::Png;
use proptest::prelude::*;

use super::made::{at, bytes, parquet, plain, read, repeated, rows};
use crate::common::encoded_image;

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let whole = parquet(&rows(9), 4, plain());
    let refused = |data: &[u8], says: &[&str]| {
        let error = read(&at(&folder, "a.parquet", data)).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part) && error.contains("a.parquet"), "{part}: {error}");
        }
    };
    refused(b"", &["does not begin with PAR1"]);
    refused(b"version https://git-lfs.github.com/spec/v1\n", &["Git LFS"]);
    refused(&encoded_image(9, 9, [1; 3], Png), &["no Parquet file"]);
    refused(&whole[..whole.len() / 2], &["it was cut off"]);
    let mut long = whole.clone();
    let at_length = long.len() - 8;
    long[at_length..at_length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&long, &["its footer is said to have 4294967295 bytes"]);
    let mut none = rows(3);
    for row in &mut none {
        row.image = None;
    }
    refused(&parquet(&none, 4, plain()), &["its images are not in it", "embedded"]);
    refused(&parquet(&[], 4, plain()), &["no row"]);
    let error = read(Path::new("gone.parquet")).unwrap_err().to_string();
    assert!(error.contains("gone.parquet"), "{error}");
}

/// A page header that claims more than its bytes can hold causes no allocation.
#[test]
fn lengths_in_page_headers_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = parquet(&rows(4), 4, plain().set_compression(Compression::SNAPPY));
    // The first page begins after PAR1: field 1 (type), field 2 (its decompressed length), a
    // varint.
    assert_eq!(whole[4..7], [0x15, 0x00, 0x15]);
    let mut most = whole;
    let last = 7 + most[7..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    most[7..last].fill(0xfe);
    most[last] = 0x7e;
    let samples = read(&at(&folder, "a.parquet", &most)).unwrap();
    let error = bytes(&samples[0]).unwrap_err().to_string();
    for part in ["a.parquet", "row group 1, column image.bytes", "more than"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// A text stored once in a file may belong to every row, and takes its bytes for each.
#[test]
fn texts_that_would_fill_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let prefixed = || plain().set_encoding(Encoding::DELTA_BYTE_ARRAY);
    let text = "word".repeat(100 << 10);
    for (properties, what) in
        [(WriterProperties::builder(), "a dictionary"), (prefixed(), "prefixes")]
    {
        let data = repeated(1000, &text, properties);
        assert!(data.len() < 4 << 20, "{what}: {}", data.len());
        let error = read(&at(&folder, "a.parquet", &data)).unwrap_err().to_string();
        for part in ["a.parquet: row group 1, column text", "256 MiB", "shorter texts"] {
            assert!(error.contains(part), "{what}: {part}: {error}");
        }
    }
    let text = "word".repeat(1 << 10);
    for properties in [WriterProperties::builder(), prefixed()] {
        let samples = read(&at(&folder, "a.parquet", &repeated(3000, &text, properties))).unwrap();
        assert_eq!(samples.len(), 3000);
        assert!(samples.iter().all(|sample| sample.captions == [text.as_str()]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A file truncated at any place is refused.
    #[test]
    fn cut_files_are_refused(cut: prop::sample::Index, dictionary: bool) {
        let whole = parquet(&rows(9), 4, plain().set_dictionary_enabled(dictionary));
        let folder = tempfile::tempdir().unwrap();
        let path = at(&folder, "a.parquet", &whole[..cut.index(whole.len())]);
        prop_assert!(read(&path).is_err());
    }

    /// A file with some flipped bits is read or refused, and so is each of its images.
    #[test]
    fn damaged_files_never_panic(
        turned in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        dictionary: bool,
        codec in 0usize..3,
        second: bool,
        footer: bool,
    ) {
        let codec = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())][codec];
        let version = if second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
        let properties = plain()
            .set_dictionary_enabled(dictionary)
            .set_compression(codec)
            .set_writer_version(version)
            .set_data_page_size_limit(400)
            .set_write_batch_size(2);
        let rows = rows(9);
        let mut data = parquet(&rows, 5, properties);
        let len = u32::from_le_bytes(data[data.len() - 8..data.len() - 4].try_into().unwrap());
        let from = if footer { data.len() - 8 - len as usize } else { 0 };
        for (at, bit) in turned {
            let at = from + at.index(data.len() - from);
            data[at] ^= 1 << bit;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = at(&folder, "a.parquet", &data);
        let skips = SkipLog::new(OnError::Skip, 9);
        if let Ok(samples) = source::read(&path, &ReadOptions::default(), &skips) {
            prop_assert!(samples.len() <= data.len());
            for sample in samples.iter().chain(samples.iter().rev()) {
                let _ = bytes(sample);
            }
        }
    }

    /// Arbitrary bytes between the magic bytes, and in place of a footer.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..300), len in 0u32..400) {
        let data = [b"PAR1", &noise[..], &len.to_le_bytes(), b"PAR1"].concat();
        let folder = tempfile::tempdir().unwrap();
        prop_assert!(read(&at(&folder, "a.parquet", &data)).is_err());
    }
}
