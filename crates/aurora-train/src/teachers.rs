//! Features of two frozen teachers, for pretraining: EfficientNet-Lite0 for pictures, MiniLM for texts.
//!
//! `cargo xtask teachers` writes the folder: `teachers.safetensors`, and `strings.tsv` with the text-only strings.

use aurora_layers::tensors;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

use crate::error::{Error, Result};

/// The teachers' features. Rows of pictures are in the order of the openclipart pack, all splits.
#[derive(Debug, Clone)]
pub struct Teachers {
    /// Pictures (pictures, components), unit length.
    pub image: Tensor,
    /// Captions (pictures, 384), unit length.
    pub text: Tensor,
    /// Captions followed by their keywords, (pictures, 384), unit length.
    pub text_all: Tensor,
    /// Text-only strings, (strings, 384), unit length.
    pub strings: Tensor,
    /// The text-only strings themselves.
    pub string_texts: Vec<String>,
    /// Word embeddings of the vocabulary, reduced to the text tower's width: (vocabulary, width).
    pub words: Tensor,
}

impl Teachers {
    /// Read the folder that `cargo xtask teachers` wrote.
    ///
    /// # Errors
    /// Names the file that is missing or cut, or the tensor that is.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("teachers.safetensors");
        if !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(Error::io("read (make it with `cargo xtask teachers`)", &path, source));
        }
        let mut read = tensors::read(&path, DType::F32, device)?;
        let mut take = |name: &str| {
            read.remove(name).ok_or_else(|| {
                Error::from(aurora_layers::Error::Mismatch {
                    what: path.display().to_string(),
                    report: format!("missing: {name}"),
                })
            })
        };
        let (image, text, text_all) = (take("image")?, take("text")?, take("text_all")?);
        let (strings, words) = (take("strings")?, take("word_embeddings")?);
        let list = folder.join("strings.tsv");
        let lines =
            std::fs::read_to_string(&list).map_err(|source| Error::io("read", &list, source))?;
        // A line is the string's kind, a tab, the string.
        let string_of = |line: &'_ str| -> String {
            line.split_once('\t').map_or(line, |(_, text)| text).to_owned()
        };
        let string_texts: Vec<String> = lines.lines().map(string_of).collect();
        let (rows, found) = (strings.dim(0)?, string_texts.len());
        if rows != found {
            return Err(Error::Count {
                operation: "teachers",
                name: "lines of strings.tsv",
                found,
                expected: rows,
            });
        }
        Ok(Self { image, text, text_all, strings, string_texts, words })
    }
}
