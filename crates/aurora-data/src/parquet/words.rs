//! The words of a file, some rows at a time.

use ::parquet::basic::Type;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::{ParquetError, Result as Parsed};
use serde_json::Value;

use super::file::{ParquetFile, contained};

/// Most bytes of a text, as beside a picture in a shard.
const MOST_TEXT: usize = 16 << 20;

/// Most bytes of the texts of a batch, over all columns. A text takes its own bytes here for every row
/// that has it, and in the file once.
const MOST_TEXTS: u64 = 256 << 20;

/// Most bytes of the texts of a file: so much, or so many times its own length. Beside a picture, a
/// text is short.
const MOST_IN_FILE: (u64, u64) = (1 << 30, 16);

/// What is left for texts.
#[derive(Debug)]
pub(super) struct Room {
    batch: u64,
    file: u64,
}

impl Room {
    /// Room for the texts of a file of `len` bytes.
    pub fn new(len: u64) -> Self {
        let (least, times) = MOST_IN_FILE;
        Self { batch: MOST_TEXTS, file: least.max(len.saturating_mul(times)) }
    }

    /// Begins the next batch.
    pub fn next_batch(&mut self) {
        self.batch = MOST_TEXTS;
    }

    fn take(&mut self, bytes: u64) -> Parsed<()> {
        let left = self.batch.checked_sub(bytes).zip(self.file.checked_sub(bytes));
        let (batch, file) = left.ok_or_else(|| {
            let most = if bytes > self.batch {
                format!("{} MiB in rows that are read together", MOST_TEXTS >> 20)
            } else {
                format!("{} GiB, or {} times the file", MOST_IN_FILE.0 >> 30, MOST_IN_FILE.1)
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

/// What a row has in a column; the error is that it cannot be used.
pub(super) type Cell = Result<Value, String>;

/// Reads a column of a row group on and on.
pub(super) struct Cells<'a> {
    file: &'a ParquetFile,
    place: (usize, usize),
    list: bool,
    /// Rows that the library is asked for at once.
    step: usize,
    column: Column,
}

enum Column {
    Texts(ColumnReaderImpl<ByteArrayType>),
    Small(ColumnReaderImpl<Int32Type>),
    Large(ColumnReaderImpl<Int64Type>),
}

impl<'a> Cells<'a> {
    /// # Errors
    /// Pages that cannot be where, and as long as, the file says.
    pub fn new(
        file: &'a ParquetFile,
        group: usize,
        rows: u64,
        leaf: usize,
        numbers: Option<Type>,
    ) -> Result<Self, String> {
        let pages = file.pages(group, leaf)?;
        // Elsewhere the library's texts are parts of a page, which it has anyway; here it makes each
        // anew, as long as its page at most.
        let prefixed = pages.pages.iter().filter(|page| page.prefixed);
        let step = prefixed.map(|page| MOST_TEXTS / page.unpacked.max(1)).min();
        let step = step.map_or(usize::MAX, |step| step.max(1) as usize);
        let place = (group, leaf);
        let column = contained(|| {
            Ok(match numbers {
                None => Column::Texts(file.column(place, rows, None)?),
                Some(Type::INT32) => Column::Small(file.column(place, rows, None)?),
                Some(_) => Column::Large(file.column(place, rows, None)?),
            })
        });
        let column = column.map_err(|reason| file.fault(group, leaf, &reason))?;
        Ok(Self { file, place, list: file.leaf(leaf).max_rep_level() > 0, step, column })
    }

    /// The cells of the next `count` rows.
    ///
    /// # Errors
    /// A page that cannot be read, and texts for which there is no `room`, with the place.
    pub fn next(&mut self, count: usize, room: &mut Room) -> Result<Vec<Cell>, String> {
        let rows = (count, self.step.min(count));
        let (list, leaf) = (self.list, self.file.leaf(self.place.1));
        let top = leaf.max_def_level();
        let cells = contained(|| match &mut self.column {
            Column::Texts(column) => {
                let room = |texts: &[ByteArray]| {
                    let lengths = texts.iter().map(ByteArray::len);
                    // What is longer is refused by its row, and not copied.
                    room.take(lengths.filter(|&len| len <= MOST_TEXT).map(|len| len as u64).sum())
                };
                cells(column, rows, (top, list), room, text)
            }
            Column::Small(column) => cells(column, rows, (top, list), |_| Ok(()), |n| Ok(n.into())),
            Column::Large(column) => cells(column, rows, (top, list), |_| Ok(()), |n| Ok(n.into())),
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
        Ok(text) if text.len() <= MOST_TEXT => Ok(Value::from(text)),
        Ok(text) => Err(format!("a text has {} bytes, more than {MOST_TEXT}", text.len())),
        Err(_) => Err("a text is not UTF-8".to_string()),
    }
}

/// Reads `count` rows, `step` at a time, and turns them into cells, once `room` was taken for their
/// values. What is null, in a list too, is left out.
fn cells<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    (count, step): (usize, usize),
    (top, list): (i16, bool),
    mut room: impl FnMut(&[T::T]) -> Parsed<()>,
    of: impl Fn(T::T) -> Cell,
) -> Parsed<Vec<Cell>> {
    let mut out: Vec<Cell> = Vec::with_capacity(count);
    while out.len() < count {
        let (mut there, mut begins, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let wanted = step.min(count - out.len());
        let (read, _, levels) =
            column.read_records(wanted, Some(&mut there), Some(&mut begins), &mut values)?;
        room(&values)?;
        let mut values = values.into_iter();
        for at in 0..levels {
            // Without optional columns there are no levels: everything is there.
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
        let mut room = Room::new(9);
        room.take(MOST_TEXTS - 1).unwrap();
        room.take(1).unwrap();
        assert!(said(room.take(1)).contains("256 MiB in rows that are read together"));
        for _ in 1..4 {
            room.next_batch();
            room.take(MOST_TEXTS).unwrap();
        }
        room.next_batch();
        assert!(said(room.take(1)).contains("1 GiB, or 16 times the file"));
        assert_eq!(Room::new(1 << 40).file, 1 << 44);
    }
}
