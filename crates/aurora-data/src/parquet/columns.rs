//! Which column is what.

use ::parquet::basic::{ConvertedType, Type};
use ::parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::folder::Captions;
use crate::formats::{NAMES, names};

/// The columns of a file that are read.
#[derive(Debug)]
pub(super) struct Columns {
    /// The leaf of the images' bytes.
    pub image: usize,
    /// The leaf of the names that the images had.
    pub path: Option<usize>,
    /// What is said of each row.
    pub words: Vec<TextColumn>,
}

/// A column of words.
#[derive(Debug)]
pub(super) struct TextColumn {
    /// The field of a row that it is.
    pub field: &'static str,
    /// Its leaf.
    pub leaf: usize,
    /// Whether its cells are texts or whole numbers.
    pub numbers: Option<Type>,
}

/// Fields whose cells may be lists.
const LISTS: &[&str] = &["caption", "answer", "keywords"];

/// Fields whose cells may be numbers.
const NUMBERS: &[&str] = &["question_id", "image_id"];

/// Fields that have another meaning where images are embedded, or none.
const LEFT_OUT: &[&str] = &["image", "clip_name", "video_id", "dataset"];

impl Columns {
    /// Finds them by type and name.
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

/// The images' bytes and, if it is there, the path beside them: the one column of `{bytes, path}`,
/// among several the one of an image's name; or plain bytes under such a name.
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
            // A text of that name is the path of an image.
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

/// A column as one of words, if its name and type are right.
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
    // `answers` may be a list of what each annotator said, and how sure.
    let answers = field == "answer" && parts.len() == 4 && parts.last()? == "answer";
    let fits = match (column.max_rep_level(), parts.len()) {
        (0, 1) => bytes || (whole && NUMBERS.contains(&field)),
        (1, length) => bytes && LISTS.contains(&field) && (length <= 3 || answers),
        _ => false,
    };
    fits.then_some(TextColumn { field, leaf, numbers: (!bytes).then_some(kind) })
}

/// The names of all columns.
fn listed(schema: &SchemaDescriptor) -> String {
    let names: Vec<&str> = schema.root_schema().get_fields().iter().map(|f| f.name()).collect();
    names.join(", ")
}
