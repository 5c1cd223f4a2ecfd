//! Checkpoints as others write them: Hugging Face folders and PyTorch's `.pth`, into a [`Backbone`].

mod hugging_face;
mod names;
mod pickle;
mod positions;
mod pth;
mod safetensors;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

pub use hugging_face::config as hugging_face_config;
pub use names::{to_hugging_face, to_original};
pub use pickle::{Pickle, PickleError};
pub use positions::resize as resize_positions;
pub use pth::Pth;
pub use safetensors::Shards;

use crate::decoder::TIED;
use crate::{Backbone, Blip, BlipConfig, Error, Form, HEADS, Result, Tensors};

/// A checkpoint on disk: which tensors it has, under their original names.
#[derive(Debug)]
pub struct Checkpoint {
    file: File,
    stored: BTreeMap<String, String>, // original name to the name in the file
}

#[derive(Debug)]
enum File {
    Pth(Pth),
    Safetensors(Shards),
}

/// What became of every tensor of a checkpoint and of every tensor of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors taken as they are.
    pub loaded: usize,
    /// Tensors of the model that the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that no part of BLIP has.
    pub unexpected: Vec<String>,
    /// Tensors of the model that the checkpoint has in another shape, with both shapes.
    pub misshapen: Vec<String>,
    /// Tensors brought to another shape, with both shapes.
    pub reshaped: Vec<String>,
    /// Tensors left alone, with the reason.
    pub ignored: Vec<(String, &'static str)>,
}

impl LoadReport {
    /// Whether the model can be put together.
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} loaded", self.loaded)?;
        let lists = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &self.misshapen),
            ("reshaped", &self.reshaped),
        ];
        for (title, names) in lists {
            if !names.is_empty() {
                write!(f, "; {title}: {}", names.join(", "))?;
            }
        }
        if !self.ignored.is_empty() {
            let ignored: Vec<String> =
                self.ignored.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            write!(f, "; ignored: {}", ignored.join(", "))?;
        }
        Ok(())
    }
}

/// Why a tensor that a model of this form has no place for is no surprise.
fn reason(name: &str, form: &Form) -> Option<&'static str> {
    let first = name.split('.').next().unwrap_or_default();
    match name {
        _ if first.ends_with("_m") => Some("momentum copy"),
        "image_queue" | "text_queue" | "idx_queue" | "ptr_queue" | "queue_ptr" => {
            Some("momentum queue")
        }
        "temp" | "logit_scale" => Some("temperature of training"),
        _ if name.ends_with("position_ids") => Some("buffer"),
        _ if TIED.iter().any(|(copy, _)| *copy == name) => Some("copy of another tensor"),
        _ if first == "text_decoder" && form.decodes().is_none() => Some("decoder"),
        _ if first == "text_encoder" && !form.encodes() => Some("text encoder"),
        _ if HEADS.contains(&first) && *form != Form::Retrieval => Some("head of retrieval"),
        _ => None,
    }
}

impl Checkpoint {
    /// Opens a `.pth`, a safetensors file or a Hugging Face folder; nothing is read but the description.
    ///
    /// # Errors
    /// A file that is missing, cut, or of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { action: "read", path: path.into(), source };
        let mut start = [0; 4];
        if path.is_file() {
            use std::io::Read as _;
            let mut file = std::fs::File::open(path).map_err(failed)?;
            file.read(&mut start).map_err(failed)?;
        }
        let file = if Pth::recognises(&start) {
            File::Pth(Pth::open(path)?)
        } else {
            File::Safetensors(Shards::open(path)?)
        };
        let names: Vec<String> = match &file {
            File::Pth(pth) => pth.shapes().map(|(name, _)| name.to_owned()).collect(),
            File::Safetensors(shards) => shards.shapes().map(|(name, _)| name.to_owned()).collect(),
        };
        let stored = names.into_iter().map(|name| (to_original(&name), name)).collect();
        Ok(Self { file, stored })
    }

    /// Original names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str)
    }

    /// A tensor by its original name, in the type it is stored in.
    ///
    /// # Errors
    /// A name that is not there, a type that no weight has.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let stored = self.stored.get(name).map_or(name, String::as_str);
        match &self.file {
            File::Pth(pth) => pth.tensor(stored, device),
            File::Safetensors(shards) => shards.tensor(stored, device),
        }
    }

    /// All tensors under their original names, f32.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn tensors(&self, device: &Device) -> Result<Tensors> {
        let read = |name: &String| {
            let tensor = self.tensor(name, device)?;
            let tensor =
                if tensor.dtype().is_float() { tensor.to_dtype(DType::F32)? } else { tensor };
            Ok((name.clone(), tensor))
        };
        self.stored.keys().map(read).collect()
    }

    /// The model of these sizes and this form. Position embeddings of another picture size are resized.
    ///
    /// # Errors
    /// A report that lists everything missing, unexpected or of another shape; a weight that is not a number; a copy
    /// of a shared tensor that is not the same.
    pub fn backbone(&self, config: &BlipConfig, device: &Device) -> Result<(Backbone, LoadReport)> {
        let mut report = LoadReport::default();
        let mut tensors = Tensors::new();
        let wanted: BTreeMap<String, candle_core::Shape> =
            Blip::wanted(config).into_iter().collect();
        for (name, shape) in &wanted {
            if !self.stored.contains_key(name) {
                report.missing.push(name.clone());
                continue;
            }
            let mut tensor = self.tensor(name, device)?.to_dtype(DType::F32)?;
            if name == "visual_encoder.pos_embed"
                && tensor.rank() == 3
                && tensor.dim(2)? == config.vision.hidden_size
            {
                let from = (tensor.dim(1)?.saturating_sub(1) as f64).sqrt() as usize;
                if from * from + 1 == tensor.dim(1)? && from > 0 && from != config.vision.grid() {
                    report.reshaped.push(format!("{name} {:?} to {shape:?}", tensor.dims()));
                    tensor = resize_positions(&tensor, from, config.vision.grid())?;
                }
            }
            if tensor.shape() != shape {
                report.misshapen.push(format!("{name} is {:?}, not {shape:?}", tensor.dims()));
                continue;
            }
            let sum = tensor.sum_all()?.to_scalar::<f32>()?;
            if !sum.is_finite() {
                let reason = "has a value that is not a number, or beyond f32".to_owned();
                return Err(Error::config(name, sum, reason));
            }
            report.loaded += 1;
            tensors.insert(name.clone(), tensor);
        }
        for name in self.stored.keys().filter(|name| !wanted.contains_key(*name)) {
            match reason(name, &config.form) {
                Some(reason) => report.ignored.push((name.clone(), reason)),
                None => report.unexpected.push(name.clone()),
            }
        }
        for (copy, name) in TIED {
            let (true, Some(kept)) = (self.stored.contains_key(copy), tensors.get(name)) else {
                continue;
            };
            let copied = self.tensor(copy, device)?.to_dtype(DType::F32)?;
            let same = copied.shape() == kept.shape()
                && (copied - kept)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
            if !same {
                let reason = format!("must be a copy of {name}, as BLIP shares the two");
                return Err(Error::config(copy, "a tensor of its own", reason));
            }
        }
        if !report.complete() {
            return Err(Error::Mismatch {
                what: "the checkpoint".into(),
                report: report.to_string(),
            });
        }
        Ok((Backbone { config: config.clone(), tensors }, report))
    }
}
