//! Features of two frozen teachers for pretraining: EfficientNet-Lite0 for images, MiniLM for texts.
//!
//! `cargo xtask teachers` writes the folder: `teachers.safetensors`, and `strings.tsv` with the text-only strings. A
//! *view* is an image of openclipart rotated, shifted, scaled and recolored at random, with the image teacher's
//! features of exactly that view. The *joint space* is where an image and its caption should meet: the principal
//! components of the text teacher's features of the training captions. An image's place in it comes from the image
//! teacher's features by a ridge regression fitted on the training pairs.

use aurora_layers::checkpoint::read_tensors;
use aurora_layers::normalize;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

use crate::error::{Error, Result};

/// Teachers' features.
#[derive(Debug, Clone)]
pub struct TeacherFeatures {
    /// Pixels of the views (views, size, size, 3), u8.
    pub views: Tensor,
    /// Row of each view's image in the openclipart pack (all splits); -1 for an image without a caption.
    pub view_rows: Vec<i64>,
    /// Views (views, components), unit length.
    pub image: Tensor,
    /// Parts of the views, row by row from the top left (views, parts, components), f16.
    pub patch_distill: Tensor,
    /// Views in the joint space (views, joint), unit length.
    pub image_joint: Tensor,
    /// Mean of the text teacher's features over the training captions, (384).
    pub joint_mean: Tensor,
    /// Directions of the joint space in the text teacher's features (joint, 384).
    pub joint_directions: Tensor,
    /// Captions (images, 384), unit length, in the order of the pack.
    pub text: Tensor,
    /// Captions followed by their keywords, (images, 384), unit length.
    pub text_all: Tensor,
    /// Text-only strings, (strings, 384), unit length.
    pub strings: Tensor,
    /// The text-only strings themselves.
    pub string_texts: Vec<String>,
    /// Word embeddings of the vocabulary, reduced to the text tower's width: (vocabulary, width).
    pub words: Tensor,
}

impl TeacherFeatures {
    /// Reads the folder that `cargo xtask teachers` wrote.
    ///
    /// # Errors
    /// A missing or cut file, or a missing tensor, by name.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("teachers.safetensors");
        if !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(Error::io("read (make it with `cargo xtask teachers`)", &path, source));
        }
        // In f16, as stored: the parts of tens of thousands of views are many.
        let mut read = read_tensors(&path, DType::F16, device)?;
        let mut take = |name: &str| {
            read.remove(name).ok_or_else(|| {
                Error::from(aurora_layers::Error::Mismatch {
                    what: path.display().to_string(),
                    report: format!(
                        "missing: {name}; make the file anew with `cargo xtask teachers`"
                    ),
                })
            })
        };
        let views = take("views")?;
        let view_rows: Vec<i64> = take("view_rows")?.to_vec1()?;
        let patch_distill = take("patch_distill")?;
        let mut precise = |name: &str| Ok::<_, Error>(take(name)?.to_dtype(DType::F32)?);
        let teachers = Self {
            views,
            view_rows,
            image: precise("image")?,
            patch_distill,
            image_joint: precise("image_joint")?,
            joint_mean: precise("joint_mean")?,
            joint_directions: precise("joint_directions")?,
            text: precise("text")?,
            text_all: precise("text_all")?,
            strings: precise("strings")?,
            string_texts: read_strings(&folder.join("strings.tsv"))?,
            words: precise("word_embeddings")?,
        };
        teachers.check()?;
        Ok(teachers)
    }

    /// Checks that tensors that belong together are of one length.
    fn check(&self) -> Result<()> {
        let views = self.views.dim(0)?;
        let counts = [
            ("lines of strings.tsv", self.string_texts.len(), self.strings.dim(0)?),
            ("view_rows", self.view_rows.len(), views),
            ("rows of image", self.image.dim(0)?, views),
            ("rows of patch_distill", self.patch_distill.dim(0)?, views),
            ("rows of image_joint", self.image_joint.dim(0)?, views),
            ("rows of text_all", self.text_all.dim(0)?, self.text.dim(0)?),
        ];
        for (name, found, expected) in counts {
            if found != expected {
                return Err(Error::Count { operation: "teachers", name, found, expected });
            }
        }
        Ok(())
    }

    /// Projects the text teacher's features (texts, 384) into the joint space (texts, joint): centered, along the joint
    /// directions, of unit length.
    ///
    /// # Errors
    /// Features of another width.
    pub fn joint(&self, text: &Tensor) -> Result<Tensor> {
        let centered = text.broadcast_sub(&self.joint_mean)?;
        let along = centered.matmul(&self.joint_directions.t()?)?; // (texts, joint)
        Ok(normalize(&along)?)
    }
}

/// Reads a file of strings; a line is a string's kind, a tab, the string.
fn read_strings(path: &Path) -> Result<Vec<String>> {
    let lines = std::fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
    let string_of = |line: &str| line.split_once('\t').map_or(line, |(_, text)| text).to_owned();
    Ok(lines.lines().map(string_of).collect())
}
