//! Column selection: images and texts by name and type.

use ::parquet::basic::{ConvertedType, Type};
use ::parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::folder::Captions;
use crate::formats::{NAMES, names};

/// Selected columns of a file.
#[derive(Debug)]
pub(super) struct Columns {
    /// Leaf of the image bytes.
    pub image: usize,
    /// Leaf of the images' original paths.
    pub path: Option<usize>,
    /// Text columns.
    pub words: Vec<TextColumn>,
}

/// Text column.
#[derive(Debug)]
pub(super) struct TextColumn {
    /// Canonical name of the field.
    pub field: &'static str,
    /// Index of the leaf.
    pub leaf: usize,
    /// Physical type of integer cells; `None` for texts.
    pub numbers: Option<Type>,
}

/// Fields whose cells may be lists.
const LISTS: &[&str] = &["caption", "answer", "keywords"];

/// Fields whose cells may be integers.
const NUMBERS: &[&str] = &["question_id", "image_id"];

/// Fields that have another meaning with embedded images, or none.
const LEFT_OUT: &[&str] = &["image", "clip_name", "video_id", "dataset"];

impl Columns {
    /// Selects the columns by type and name.
    pub fn choose(schema: &SchemaDescriptor, captions: Captions) -> Result<Self, String> {
        let (image, path) = image_column(schema)?;
        let own = schema.column(image);
        let own = own.path().parts().first();
        let mut words = Vec::new();
        for (field, names) in NAMES.iter().filter(|(field, _)| !LEFT_OUT.contains(field)) {
            let found = names.iter().find_map(|name| {
                let leaves = schema.columns().iter().enumerate();
                leaves
                    .filter(|(_, leaf)| leaf.path().parts().first() != own)
                    .find_map(|(index, leaf)| word(field, name, index, leaf))
            });
            words.extend(found);
        }
        let said = |field| words.iter().any(|word: &TextColumn| word.field == field);
        if captions == Captions::Required && !said("caption") && !said("question") {
            return Err(format!(
                "nothing is said about its images: it has no column {}; it has {}",
                [names("caption"), names("question")].concat().join(" or "),
                listed(schema),
            ));
        }
        Ok(Self { image, path, words })
    }
}

/// Leaves of the image bytes and, if present, of their paths: the only column of `{bytes, path}`,
/// among several the one with an image name; or plain bytes under such a name.
fn image_column(schema: &SchemaDescriptor) -> Result<(usize, Option<usize>), String> {
    let leaf = |parts: &[&str]| {
        schema.columns().iter().position(|leaf| {
            let bytes = leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() == 0;
            bytes && leaf.path().parts().iter().map(String::as_str).eq(parts.iter().copied())
        })
    };
    let usual = names("image");
    let roots = schema.root_schema().get_fields();
    let found: Vec<(&str, usize)> = roots
        .iter()
        .filter_map(|root| Some((root.name(), leaf(&[root.name(), "bytes"])?)))
        .collect();
    let named = |&&(name, _): &&(&str, usize)| usual.contains(&name.to_lowercase().as_str());
    let (name, bytes) = match found.as_slice() {
        [one] => *one,
        [] => {
            let plain = usual.iter().find_map(|name| leaf(&[name]));
            // A text column of that name is the path of an image.
            let plain =
                plain.filter(|&at| schema.column(at).converted_type() != ConvertedType::UTF8);
            return plain.map(|at| (at, None)).ok_or_else(|| {
                format!(
                    "it has no images: no column is {{bytes, path}}, as Hugging Face's datasets \
                     writes images, and none named {} holds bytes; it has {}",
                    usual.join(" or "),
                    listed(schema)
                )
            });
        }
        several => match several.iter().filter(named).collect::<Vec<_>>().as_slice() {
            [one] => **one,
            _ => {
                let all: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "several columns hold images: {}; rename the one that counts to `image`, or \
                     write the dataset without the others",
                    all.join(", ")
                ));
            }
        },
    };
    Ok((bytes, leaf(&[name, "path"])))
}

/// Text column of a leaf, if its name and type match.
fn word(
    field: &'static str,
    name: &str,
    leaf: usize,
    column: &ColumnDescriptor,
) -> Option<TextColumn> {
    let parts = column.path().parts();
    if parts.first()?.to_lowercase() != name {
        return None;
    }
    let (bytes, kind) = (column.physical_type() == Type::BYTE_ARRAY, column.physical_type());
    let whole = matches!(kind, Type::INT32 | Type::INT64);
    // `answers` may be a list of structs, of each annotator's answer and confidence.
    let answers = field == "answer" && parts.len() == 4 && parts.last()? == "answer";
    let fits = match (column.max_rep_level(), parts.len()) {
        (0, 1) => bytes || (whole && NUMBERS.contains(&field)),
        (1, length) => bytes && LISTS.contains(&field) && (length <= 3 || answers),
        _ => false,
    };
    fits.then_some(TextColumn { field, leaf, numbers: (!bytes).then_some(kind) })
}

/// Names of all columns.
fn listed(schema: &SchemaDescriptor) -> String {
    let names: Vec<&str> = schema.root_schema().get_fields().iter().map(|f| f.name()).collect();
    names.join(", ")
}
