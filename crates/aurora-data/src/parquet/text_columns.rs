//! Text columns of a file, read in batches of rows.

use ::parquet::basic::Type;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::{ParquetError, Result as Parsed};
use serde_json::Value;

use super::file::{ParquetFile, contained};

/// Byte limit of a text, as beside an image in a shard.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Byte limit of the texts of a batch, over all columns. A text stored once in the file takes its
/// bytes here for every row that has it.
const MAX_BATCH_TEXT_BYTES: u64 = 256 << 20;

/// Byte limit of the texts of a file: absolute, or as a multiple of its length. Beside an image, a
/// text is short.
const MAX_FILE_TEXT_BYTES: (u64, u64) = (1 << 30, 16);

/// Remaining byte budget of texts.
#[derive(Debug)]
pub(super) struct TextBudget {
    batch: u64,
    file: u64,
}

impl TextBudget {
    /// Budget of a file of `len` bytes.
    pub fn new(len: u64) -> Self {
        let (least, times) = MAX_FILE_TEXT_BYTES;
        Self { batch: MAX_BATCH_TEXT_BYTES, file: least.max(len.saturating_mul(times)) }
    }

    /// Resets the budget for the next batch.
    pub fn next_batch(&mut self) {
        self.batch = MAX_BATCH_TEXT_BYTES;
    }

    fn take(&mut self, bytes: u64) -> Parsed<()> {
        let left = self.batch.checked_sub(bytes).zip(self.file.checked_sub(bytes));
        let (batch, file) = left.ok_or_else(|| {
            let most = if bytes > self.batch {
                format!("{} MiB in rows that are read together", MAX_BATCH_TEXT_BYTES >> 20)
            } else {
                format!(
                    "{} GiB, or {} times the file",
                    MAX_FILE_TEXT_BYTES.0 >> 30,
                    MAX_FILE_TEXT_BYTES.1
                )
            };
            ParquetError::General(format!(
                "with its texts, the columns of words hold more than {most}; write the \
                 dataset with shorter texts, or without this column"
            ))
        })?;
        (self.batch, self.file) = (batch, file);
        Ok(())
    }
}

/// Cell of a row; the error says why it cannot be used.
pub(super) type Cell = Result<Value, String>;

/// Sequential reader of a column of a row group.
pub(super) struct ColumnCells<'a> {
    file: &'a ParquetFile,
    place: (usize, usize),
    list: bool,
    /// Rows requested from the library at once.
    step: usize,
    column: TypedColumn,
}

enum TypedColumn {
    Texts(ColumnReaderImpl<ByteArrayType>),
    Small(ColumnReaderImpl<Int32Type>),
    Large(ColumnReaderImpl<Int64Type>),
}

impl<'a> ColumnCells<'a> {
    /// # Errors
    /// Pages whose location or length contradicts the file.
    pub fn new(
        file: &'a ParquetFile,
        group: usize,
        rows: u64,
        leaf: usize,
        numbers: Option<Type>,
    ) -> Result<Self, String> {
        let pages = file.pages(group, leaf)?;
        // In other encodings the library's texts are slices of a page, which it holds anyway; here
        // it copies each, up to the length of its page.
        let prefixed = pages.pages.iter().filter(|page| page.prefixed);
        let step = prefixed.map(|page| MAX_BATCH_TEXT_BYTES / page.unpacked.max(1)).min();
        let step = step.map_or(usize::MAX, |step| step.max(1) as usize);
        let place = (group, leaf);
        let column = contained(|| {
            Ok(match numbers {
                None => TypedColumn::Texts(file.column(place, rows, None)?),
                Some(Type::INT32) => TypedColumn::Small(file.column(place, rows, None)?),
                Some(_) => TypedColumn::Large(file.column(place, rows, None)?),
            })
        });
        let column = column.map_err(|reason| file.fault(group, leaf, &reason))?;
        Ok(Self { file, place, list: file.leaf(leaf).max_rep_level() > 0, step, column })
    }

    /// Cells of the next `count` rows.
    ///
    /// # Errors
    /// A page that cannot be read, and texts that exceed `budget`, with the place.
    pub fn next(&mut self, count: usize, budget: &mut TextBudget) -> Result<Vec<Cell>, String> {
        let rows = (count, self.step.min(count));
        let (list, leaf) = (self.list, self.file.leaf(self.place.1));
        let top = leaf.max_def_level();
        let cells = contained(|| match &mut self.column {
            TypedColumn::Texts(column) => {
                let budget = |texts: &[ByteArray]| {
                    let lengths = texts.iter().map(ByteArray::len);
                    // A longer text is rejected with its row, and not copied.
                    budget.take(
                        lengths.filter(|&len| len <= MAX_TEXT_BYTES).map(|len| len as u64).sum(),
                    )
                };
                cells(column, rows, (top, list), budget, text)
            }
            TypedColumn::Small(column) => {
                cells(column, rows, (top, list), |_| Ok(()), |n| Ok(n.into()))
            }
            TypedColumn::Large(column) => {
                cells(column, rows, (top, list), |_| Ok(()), |n| Ok(n.into()))
            }
        });
        let cells = cells.and_then(|cells| {
            let enough = cells.len() == count;
            enough.then_some(cells).ok_or_else(|| "it holds fewer rows than its row group".into())
        });
        cells.map_err(|reason| self.file.fault(self.place.0, self.place.1, &reason))
    }
}

fn text(bytes: ByteArray) -> Cell {
    match bytes.as_utf8() {
        Ok(text) if text.len() <= MAX_TEXT_BYTES => Ok(Value::from(text)),
        Ok(text) => Err(format!("a text has {} bytes, more than {MAX_TEXT_BYTES}", text.len())),
        Err(_) => Err("a text is not UTF-8".to_string()),
    }
}

/// Reads `count` rows, `step` at a time, and converts them to cells, after their bytes were taken
/// from the budget. Nulls are omitted, in lists too.
fn cells<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    (count, step): (usize, usize),
    (top, list): (i16, bool),
    mut budget: impl FnMut(&[T::T]) -> Parsed<()>,
    of: impl Fn(T::T) -> Cell,
) -> Parsed<Vec<Cell>> {
    let mut out: Vec<Cell> = Vec::with_capacity(count);
    while out.len() < count {
        let (mut there, mut begins, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let wanted = step.min(count - out.len());
        let (read, _, levels) =
            column.read_records(wanted, Some(&mut there), Some(&mut begins), &mut values)?;
        budget(&values)?;
        let mut values = values.into_iter();
        for at in 0..levels {
            // Without optional columns there are no levels: everything is present.
            let there = top == 0 || there.get(at) == Some(&top);
            let value = if there { values.next().map(&of) } else { None };
            if !list {
                out.push(value.unwrap_or(Ok(Value::Null)));
                continue;
            }
            if begins.get(at) == Some(&0) {
                out.push(Ok(Value::Array(Vec::new())));
            }
            match (out.last_mut(), value) {
                (Some(Ok(Value::Array(texts))), Some(Ok(text))) => texts.push(text),
                (Some(cell), Some(Err(reason))) => *cell = Err(reason),
                _ => {}
            }
        }
        if read < wanted {
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_in_a_batch_and_in_a_file() {
        let said = |result: Parsed<()>| result.unwrap_err().to_string();
        let mut budget = TextBudget::new(9);
        budget.take(MAX_BATCH_TEXT_BYTES - 1).unwrap();
        budget.take(1).unwrap();
        assert!(said(budget.take(1)).contains("256 MiB in rows that are read together"));
        for _ in 1..4 {
            budget.next_batch();
            budget.take(MAX_BATCH_TEXT_BYTES).unwrap();
        }
        budget.next_batch();
        assert!(said(budget.take(1)).contains("1 GiB, or 16 times the file"));
        assert_eq!(TextBudget::new(1 << 40).file, 1 << 44);
    }
}
