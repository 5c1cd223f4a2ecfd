//! Generated files and helpers of the Parquet tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use aurora_data::source::{self, ReadOptions};
use aurora_data::{Captions, Result, Sample, SkipLog};
use image::ImageFormat::Png;

use crate::common::encoded_image;

pub fn options() -> ReadOptions {
    ReadOptions { captions: Captions::Required, ..ReadOptions::default() }
}

pub fn read(path: &Path) -> Result<Vec<Sample>> {
    source::read(path, &options(), &SkipLog::default())
}

pub fn bytes(sample: &Sample) -> Result<Vec<u8>> {
    sample.media.contents()[0].bytes().map(std::borrow::Cow::into_owned)
}

/// Row of a generated file.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub image: Option<Vec<u8>>,
    pub path: Option<String>,
    pub captions: Vec<String>,
}

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (STRING); }
    optional group captions (LIST) {
        repeated group list { optional binary element (STRING); }
    }
}";

/// File of the rows, `in_group` per row group.
pub fn parquet(rows: &[Row], in_group: usize, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(properties.build());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    for rows in rows.chunks(in_group) {
        let mut group = file.next_row_group().unwrap();
        let mut put = |values: &[ByteArray], levels: &[i16], begins: Option<&[i16]>| {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(values, Some(levels), begins).unwrap();
            column.close().unwrap();
        };
        let level = |there: bool| 1 + i16::from(there);
        let images: Vec<ByteArray> =
            rows.iter().filter_map(|row| Some(row.image.clone()?.into())).collect();
        let levels: Vec<i16> = rows.iter().map(|row| level(row.image.is_some())).collect();
        put(&images, &levels, None);
        let paths: Vec<ByteArray> =
            rows.iter().filter_map(|row| Some(row.path.as_deref()?.into())).collect();
        let levels: Vec<i16> = rows.iter().map(|row| level(row.path.is_some())).collect();
        put(&paths, &levels, None);
        let captions: Vec<ByteArray> =
            rows.iter().flat_map(|row| &row.captions).map(|text| text.as_str().into()).collect();
        let (mut levels, mut begins) = (Vec::new(), Vec::new());
        for row in rows {
            // An empty list has a level too.
            levels.extend(if row.captions.is_empty() {
                vec![1]
            } else {
                vec![3; row.captions.len()]
            });
            begins.extend((0..row.captions.len().max(1)).map(|place| i16::from(place > 0)));
        }
        put(&captions, &levels, Some(&begins));
        group.close().unwrap();
    }
    file.into_inner().unwrap()
}

/// Rows with distinct images; some are duplicates, and every fifth has two captions.
pub fn rows(count: usize) -> Vec<Row> {
    let row = |number: usize| {
        let color = (number - usize::from(number % 7 == 6)) as u8;
        let mut captions = vec![format!("image of number {number}")];
        captions.extend((number % 5 == 4).then(|| format!("number {number} again")));
        Row {
            image: Some(encoded_image(40, 33, [color, 9, 200], Png)),
            path: (number % 3 != 2).then(|| format!("{number}.png")),
            captions,
        }
    };
    (0..count).map(row).collect()
}

pub fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_dictionary_enabled(false)
}

pub fn at(folder: &tempfile::TempDir, name: &str, data: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, data).unwrap();
    path
}

/// File of `count` rows with one image and one text.
pub fn repeated(count: usize, text: &str, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let schema = "message schema {
        required group image { required binary bytes; }
        required binary text (STRING);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(properties.build());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    for value in [encoded_image(9, 9, [1; 3], Png), text.as_bytes().to_vec()] {
        let mut column = group.next_column().unwrap().unwrap();
        let values = vec![ByteArray::from(value); count];
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.into_inner().unwrap()
}

/// File of one row with the columns of a schema, all byte arrays.
pub fn columns(schema: &str, cells: &[&[u8]]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {schema} }}")).unwrap());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    for cell in cells {
        let mut column = group.next_column().unwrap().unwrap();
        let value = [ByteArray::from(cell.to_vec())];
        column.typed::<ByteArrayType>().write_batch(&value, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.into_inner().unwrap()
}
