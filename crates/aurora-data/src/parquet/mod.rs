//! Parquet with embedded images, as Hugging Face's datasets library writes it.
//!
//! ```text
//! my-dataset/                                   or the files in the folder itself, or one file
//!   data/train-00000-of-00002.parquet           image {bytes, path}, text
//!   data/train-00001-of-00002.parquet
//!   data/validation-00000-of-00001.parquet
//! ```
//!
//! Images are in a column of `{bytes, path}`, the only one or the one named `image`, or in a column
//! of bytes named `image`. Texts are in columns named as in a table (see [`crate::formats`]),
//! `caption`, `captions` or `text` for captions, as a text or a list of texts. The split is a
//! column, part of the file name, or the name of the folder. Every row is a sample.
//!
//! Opening a file reads its footer and texts. An image is read on demand, with the page that it was
//! compressed in.

#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod file;
#[cfg(feature = "parquet")]
mod images;
#[cfg(feature = "parquet")]
mod pages;
#[cfg(feature = "parquet")]
mod rows;
#[cfg(feature = "parquet")]
mod text_columns;
#[cfg(feature = "parquet")]
mod thrift;

use std::path::{Path, PathBuf};

use crate::{Result, Split, folder};

#[cfg(feature = "parquet")]
pub(crate) use rows::read;

/// Error without the feature: names the build that reads the file.
#[cfg(not(feature = "parquet"))]
pub(crate) fn read(
    path: &Path,
    _split: Option<Split>,
    _captions: crate::Captions,
    _skips: &crate::SkipLog,
) -> Result<Vec<crate::Sample>> {
    Err(crate::Error::Annotations {
        file: path.to_path_buf(),
        line: None,
        reason: "this program was built without Parquet; build it with `cargo build --release \
                 --features parquet`"
            .to_string(),
    })
}

/// True if a file has the extension of Parquet.
pub(crate) fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Parquet files of a dataset folder, by name, with the split of each: those in it, in `data` and
/// in folders named after a split.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn files(root: &Path) -> Result<Vec<(PathBuf, Option<Split>)>> {
    let mut found = Vec::new();
    for path in folder::entries(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_folder: Option<Split> = name.parse().ok();
        if is_named(&path) && path.is_file() {
            found.push((path.clone(), split_of(&path)));
        } else if (name == "data" || of_folder.is_some()) && path.is_dir() {
            let inside = folder::entries(&path)?.into_iter();
            let inside = inside.filter(|path| is_named(path) && path.is_file());
            found.extend(inside.map(|path| (path.clone(), split_of(&path).or(of_folder))));
        }
    }
    found.sort();
    Ok(found)
}

/// Split in a file name: `train-00000-of-00002.parquet`, `my_set_val.parquet`.
pub(crate) fn split_of(path: &Path) -> Option<Split> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    stem.split(|c: char| !c.is_alphanumeric()).find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_stand_in_names() {
        let of = |name: &str| split_of(Path::new(name));
        assert_eq!(of("train-00000-of-00002.parquet"), Some(Split::Train));
        assert_eq!(of("a/train/my_set_VAL.parquet"), Some(Split::Validation));
        assert_eq!(of("test.parquet"), Some(Split::Test));
        assert_eq!(of("train/0000.parquet"), None);
        assert_eq!(of("latest-trains.parquet"), None);
    }
}
