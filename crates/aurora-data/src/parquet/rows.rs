//! Samples of the rows of a file.

use std::path::Path;
use std::sync::Arc;

use ::parquet::file::metadata::RowGroupMetaData;
use serde_json::{Map, Value};

use super::columns::Columns;
use super::file::ParquetFile;
use super::images::ImageColumn;
use super::text_columns::{Cell, ColumnCells, TextBudget};
use crate::byte_source::Archive;
use crate::error::quoting;
use crate::folder::Captions;
use crate::formats::AnnotationRecord;
use crate::on_error::SkipLog;
use crate::{ByteSource, Error, Media, Result, Sample, Split};

/// Rows whose texts are read at a time.
const BATCH: u64 = 1024;

/// Reads the texts of every row of a file, and locates its image. Rows without a split of their own
/// get `split`. `skips` handles unusable rows.
///
/// # Errors
/// A file that is damaged, has no images or, where they are required, no captions; with a policy
/// that stops, the first unusable row.
pub(crate) fn read(
    path: &Path,
    split: Option<Split>,
    captions: Captions,
    skips: &SkipLog,
) -> Result<Vec<Sample>> {
    let file = Arc::new(ParquetFile::open(path)?);
    let bad = |reason: String| Error::annotations(path, None, &reason);
    let schema = file.metadata().file_metadata().schema_descr();
    let columns = Columns::choose(schema, captions).map_err(bad)?;
    let mut filled = file.groups().filter(|(_, group)| group.num_rows() > 0).peekable();
    // In a file that has images, single rows without one are reported when they are read.
    if filled.peek().is_some() && filled.all(|(_, group)| is_empty(group, columns.image)) {
        return Err(bad(
            "its images are not in it, at most their paths: write the dataset with its images \
             embedded, or name the files in a captions.csv"
                .to_string(),
        ));
    }
    let images: Arc<dyn Archive> = Arc::new(ImageColumn::new(Arc::clone(&file), columns.image));
    let shard: Arc<str> = path.display().to_string().into();
    let mut budget = TextBudget::new(file.len());
    let mut samples = Vec::new();
    for (number, (start, group)) in file.groups().enumerate() {
        let rows = group.num_rows().unsigned_abs();
        let own = group.columns().get(columns.image);
        // Estimate, before a page is decompressed.
        let len = own.map_or(1, |own| own.compressed_size().unsigned_abs() / rows.max(1)).max(1);
        let mut words = Vec::with_capacity(columns.words.len());
        for word in &columns.words {
            let cells = ColumnCells::new(&file, number, rows, word.leaf, word.numbers);
            words.push((word.field, cells.map_err(bad)?));
        }
        let names = columns.path.map(|leaf| ColumnCells::new(&file, number, rows, leaf, None));
        let mut names = names.transpose().map_err(bad)?;
        let mut done = 0;
        while done < rows {
            let count = BATCH.min(rows - done);
            budget.next_batch();
            let mut next = |cells: &mut ColumnCells<'_>| {
                cells.next(count as usize, &mut budget).map(Vec::into_iter)
            };
            let mut paths = names.as_mut().map(&mut next).transpose().map_err(bad)?;
            let mut read = Vec::with_capacity(words.len());
            for (field, cells) in &mut words {
                read.push((*field, next(cells).map_err(bad)?));
            }
            for _ in 0..count {
                let row = start + done;
                done += 1;
                let cells = read.iter_mut().map(|(field, cells)| (*field, cells.next()));
                let key = key(row, paths.as_mut().and_then(Iterator::next));
                let content = ByteSource::Packed { archive: Arc::clone(&images), index: row, len };
                let made = row_of(cells).and_then(|row| {
                    let mut record = row.image_record();
                    record.split = record.split.or(split);
                    let sample = record.into_sample((&shard, key), Media::Image(content), "");
                    let said = !sample.captions.is_empty() || sample.question.is_some();
                    if said || captions == Captions::Optional {
                        Ok(sample)
                    } else {
                        Err("nothing is said about its image: no word is left".to_string())
                    }
                });
                match made {
                    Ok(sample) => samples.push(sample),
                    Err(reason) => {
                        let place = format!("row {}", row + 1);
                        let what = format!("{}, {place}", path.display());
                        skips.handle(what, Error::row(path, place, &reason))?;
                    }
                }
            }
        }
    }
    if samples.is_empty() {
        let reason = "no row of it can be used".to_string();
        return Err(Error::Empty { what: path.display().to_string(), reason });
    }
    Ok(samples)
}

/// True if the statistics of a row group say that a column is null in all rows.
fn is_empty(group: &RowGroupMetaData, leaf: usize) -> bool {
    let nulls = group.columns().get(leaf).and_then(|own| own.statistics()?.null_count_opt());
    nulls == Some(group.num_rows().unsigned_abs())
}

/// Key of a sample: its row number, and the name of the image file where it is kept. (Files of
/// different folders share names there.) It appears in messages, so it is printable.
fn key(row: u64, path: Option<Cell>) -> String {
    match path {
        Some(Ok(Value::String(path))) if !path.trim().is_empty() => {
            format!("row {} ({})", row + 1, quoting(&path))
        }
        _ => format!("row {}", row + 1),
    }
}

/// Row of its cells, by the rules of other tables.
fn row_of<'a>(
    cells: impl Iterator<Item = (&'a str, Option<Cell>)>,
) -> Result<AnnotationRecord, String> {
    let mut row = Map::new();
    for (field, cell) in cells {
        match cell.transpose().map_err(|reason| format!("{field}: {reason}"))? {
            None | Some(Value::Null) => {}
            Some(value) => {
                row.insert(field.to_string(), value);
            }
        }
    }
    serde_json::from_value(Value::Object(row)).map_err(|e| e.to_string())
}
