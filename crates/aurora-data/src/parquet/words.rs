//! The words of a file, some rows at a time.

use ::parquet::basic::Type;
use ::parquet::column::reader::ColumnReaderImpl;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::Result as Parsed;
use serde_json::Value;

use super::file::{ParquetFile, contained};

/// Most bytes of a text, as beside a picture in a shard.
const MOST_TEXT: usize = 16 << 20;

/// What a row has in a column; the error is that it cannot be used.
pub(super) type Cell = Result<Value, String>;

/// Reads a column of a row group on and on.
pub(super) struct Cells<'a> {
    file: &'a ParquetFile,
    place: (usize, usize),
    list: bool,
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
        file.pages(group, leaf)?;
        let place = (group, leaf);
        let column = contained(|| {
            Ok(match numbers {
                None => Column::Texts(file.column(place, rows, None)?),
                Some(Type::INT32) => Column::Small(file.column(place, rows, None)?),
                Some(_) => Column::Large(file.column(place, rows, None)?),
            })
        });
        let column = column.map_err(|reason| file.fault(group, leaf, &reason))?;
        Ok(Self { file, place, list: file.leaf(leaf).max_rep_level() > 0, column })
    }

    /// The cells of the next `count` rows.
    ///
    /// # Errors
    /// A page that cannot be read, with its place.
    pub fn next(&mut self, count: usize) -> Result<Vec<Cell>, String> {
        let (list, leaf) = (self.list, self.file.leaf(self.place.1));
        let top = leaf.max_def_level();
        let cells = contained(|| match &mut self.column {
            Column::Texts(column) => cells(column, count, top, list, text),
            Column::Small(column) => cells(column, count, top, list, |n| Ok(n.into())),
            Column::Large(column) => cells(column, count, top, list, |n| Ok(n.into())),
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

/// Reads rows and turns them into cells. What is null, in a list too, is left out.
fn cells<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    count: usize,
    top: i16,
    list: bool,
    of: impl Fn(T::T) -> Cell,
) -> Parsed<Vec<Cell>> {
    let (mut there, mut begins, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (_, _, levels) =
        column.read_records(count, Some(&mut there), Some(&mut begins), &mut values)?;
    let mut values = values.into_iter();
    let mut out: Vec<Cell> = Vec::with_capacity(count);
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
    Ok(out)
}
