//! Input sources: a tar shard, a folder, an annotation file, or a dataset of Parquet files with
//! embedded images.

use std::path::{Path, PathBuf};

use crate::folder::{self, Captions};
use crate::formats::{self, Format};
use crate::on_error::SkipLog;
use crate::{Error, Result, Sample, parquet, shard};

/// File names of a folder's own table.
pub const TABLES: &[&str] =
    &["captions.jsonl", "captions.csv", "captions.tsv", "metadata.jsonl", "metadata.csv"];

/// Extensions of annotation files.
const ANNOTATIONS: &[&str] = &["json", "jsonl", "csv", "tsv"];

/// Read options.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Root folders of the paths in annotations, searched in this order; if empty, the folder of
    /// the annotations.
    pub image_roots: Vec<PathBuf>,
    /// The format of annotations.
    pub format: Format,
    /// Captions required of the images in a folder.
    pub captions: Captions,
}

/// Reads a tar shard, a folder, an annotation file or a dataset of Parquet files. `skips` handles
/// single broken images and rows.
///
/// # Errors
/// Those of [`shard::read`], [`folder::read`] and [`formats::read`]; a Parquet file that is
/// damaged, or any where the feature `parquet` is off.
pub fn read(path: &Path, options: &ReadOptions, skips: &SkipLog) -> Result<Vec<Sample>> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    if path.is_dir() {
        match table(path)? {
            Some(table) if options.captions == Captions::Required => {
                let format = match options.format {
                    Format::Auto => Format::Table,
                    given => given,
                };
                formats::read(&table, &ReadOptions { format, ..options.clone() }, skips)
            }
            _ => match parquet::files(path)?.as_slice() {
                [] => folder::read_with(path, options.captions, skips),
                files => {
                    let mut samples = Vec::new();
                    for (file, split) in files {
                        samples.extend(parquet::read(file, *split, options.captions, skips)?);
                    }
                    Ok(samples)
                }
            },
        }
    } else if parquet::is_named(path) {
        parquet::read(path, parquet::split_of(path), options.captions, skips)
    } else if extension.is_some_and(|e| ANNOTATIONS.contains(&e.as_str())) {
        formats::read(path, options, skips)
    } else {
        shard::read_with(path, skips)
    }
}

/// Table of a folder, if there is one.
fn table(folder: &Path) -> Result<Option<PathBuf>> {
    let there = TABLES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
    let there: Vec<PathBuf> = there.collect();
    match there.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, second, ..] => Err(Error::Annotations {
            file: first.clone(),
            line: None,
            reason: format!(
                "{} is there too; keep the one that counts, or name it instead of the folder",
                second.display()
            ),
        }),
    }
}
