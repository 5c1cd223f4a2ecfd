//! Checkpoints of other libraries, Hugging Face folders and PyTorch's `.pth`, read into a [`Backbone`].

mod byte_source;
mod hf_names;
mod hugging_face;
mod infer_config;
mod pickle;
mod pos_embed;
mod pretrained_source;
mod pth;
mod reference;
mod safetensors;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Shape, Tensor};

pub use hf_names::{to_hugging_face, to_original};
pub use infer_config::HEAD_WIDTH;
pub use pickle::{Pickle, PickleError};
pub use pos_embed::resize as resize_positions;
pub use pretrained_source::{CheckpointFormat, PretrainedSource};
pub use pth::Pth;
pub use safetensors::{Shards, read_tensors};

use crate::decoder::TIED;
use crate::reference_checkpoint::is_adapter;
use crate::tensors::{self, Tensors};
use crate::{Architecture, Backbone, Blip, BlipConfig, Error, HEADS, Result};
use byte_source::ByteSource;

/// Name of the vision position embeddings, the one tensor whose shape may differ.
const POSITIONS: &str = "visual_encoder.pos_embed";

/// Checkpoint: its tensors under their original names, read only on request.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    stored: BTreeMap<String, String>, // original name to the name in the file
}

#[derive(Debug)]
enum File {
    Pth(Pth),
    Safetensors(Shards),
}

/// Load report: the outcome for every tensor of the checkpoint and of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of tensors taken unchanged.
    pub loaded: usize,
    /// Tensors of the model that the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that no part of BLIP has.
    pub unexpected: Vec<String>,
    /// Tensors of the model that the checkpoint has in another shape, with both shapes.
    pub misshapen: Vec<String>,
    /// Tensors resized, with both shapes.
    pub reshaped: Vec<String>,
    /// Tensors ignored, and entries of a `.pth` that are no tensors, with the reason.
    pub ignored: Vec<(String, &'static str)>,
}

impl LoadReport {
    /// True if the model can be built.
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// One-line summary of a complete load: number of tensors, those reshaped, and the ignored ones per reason.
    pub fn summary(&self) -> String {
        let mut text = format!("{} tensors read", self.loaded);
        if !self.reshaped.is_empty() {
            text += &format!("; reshaped: {}", self.reshaped.join(", "));
        }
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, reason) in &self.ignored {
            *reasons.entry(reason).or_default() += 1;
        }
        if !reasons.is_empty() {
            let counts: Vec<String> =
                reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            text += &format!("; {} left alone ({})", self.ignored.len(), counts.join(", "));
        }
        text
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
                write!(f, "; {title}: {}", tensors::listed(names))?;
            }
        }
        if !self.ignored.is_empty() {
            let ignored: Vec<String> =
                self.ignored.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
            write!(f, "; ignored: {}", tensors::listed(&ignored))?;
        }
        Ok(())
    }
}

const MOMENTUM: &str = "momentum copy";
const QUEUE: &str = "momentum queue";
const TEMPERATURE: &str = "temperature of training";
const NOT_A_TENSOR: &str = "beside the weights";

/// Reason to ignore a tensor of the training state; none for other tensors.
fn training(name: &str) -> Option<&'static str> {
    match name {
        "image_queue" | "text_queue" | "idx_queue" | "ptr_queue" | "queue_ptr" => Some(QUEUE),
        "temp" | "logit_scale" => Some(TEMPERATURE),
        _ => name.split('.').next()?.ends_with("_m").then_some(MOMENTUM),
    }
}

/// Reason to ignore a tensor that a model of this architecture does not have; none where it is unexpected. `name` is
/// the original name.
pub fn ignored_reason(name: &str, architecture: &Architecture) -> Option<&'static str> {
    let first = name.split('.').next().unwrap_or_default();
    match name {
        _ if training(name).is_some() => training(name),
        _ if name.ends_with("position_ids") => Some("buffer"),
        _ if TIED.iter().any(|(copy, _)| *copy == name) => Some("copy of another tensor"),
        _ if first == "text_decoder" && architecture.decodes().is_none() => Some("decoder"),
        _ if first == "text_encoder" && !architecture.encodes() => Some("text encoder"),
        _ if HEADS.contains(&first) && *architecture != Architecture::Retrieval => {
            Some("head of retrieval")
        }
        _ => None,
    }
}

impl Checkpoint {
    /// Opens a `.pth`, a safetensors file or a Hugging Face folder; only its description is read.
    ///
    /// # Errors
    /// A file that is missing, truncated or of another kind; a tensor that is there under two names.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::new(path, File::Safetensors(Shards::open(path)?));
        }
        Self::read(ByteSource::open(path)?)
    }

    /// Checkpoint from bytes in memory; `path` only names them in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        Self::read(ByteSource::from_bytes(bytes, path))
    }

    fn read(source: ByteSource) -> Result<Self> {
        if source.length() == 0 {
            return Err(source.wrong("is empty; fetch or write it again"));
        }
        let path = source.path().to_path_buf();
        let start = source.bytes(0, source.length().min(4) as usize)?;
        let file = if Pth::recognizes(&start) {
            File::Pth(Pth::read(source)?)
        } else {
            File::Safetensors(Shards::read(vec![source])?)
        };
        Self::new(&path, file)
    }

    fn new(path: &Path, file: File) -> Result<Self> {
        let names: Vec<String> = match &file {
            File::Pth(pth) => pth.shapes().map(|(name, _)| name.to_owned()).collect(),
            File::Safetensors(shards) => shards.shapes().map(|(name, _)| name.to_owned()).collect(),
        };
        let mut stored = BTreeMap::new();
        for name in names {
            if let Some(other) = stored.insert(to_original(&name), name.clone()) {
                let reason =
                    format!("has one tensor under two names, {other} and {name}; keep one of them");
                return Err(Error::Format { path: path.into(), reason });
            }
        }
        Ok(Self { path: path.into(), file, stored })
    }

    /// Path of the file or folder, or the name of the bytes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Original names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str)
    }

    /// Shape of a tensor by its original name, and its stored type where candle has that type; its numbers are not
    /// read.
    pub fn tensor_info(&self, name: &str) -> Option<(&[usize], Option<DType>)> {
        let stored = self.stored.get(name)?;
        match &self.file {
            File::Pth(pth) => pth.tensor_info(stored),
            File::Safetensors(shards) => shards.tensor_info(stored),
        }
    }

    /// Reads a tensor by its original name, in the type it is stored in.
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

    /// Reads all tensors under their original names, floats as f32.
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

    /// Reads a weight as f32 and checks that every value is finite.
    pub(crate) fn weight(&self, name: &str, device: &Device) -> Result<Tensor> {
        let tensor = self.tensor(name, device)?.to_dtype(DType::F32)?;
        let Some(flat) = tensors::position(&tensor, |value| !value.is_finite())? else {
            return Ok(tensor);
        };
        let (mut index, mut rest) = (Vec::new(), flat);
        for &size in tensor.dims().iter().rev() {
            index.insert(0, rest % size);
            rest /= size;
        }
        let file = match &self.file {
            File::Pth(pth) => Some(pth.path()),
            File::Safetensors(shards) => {
                shards.path(self.stored.get(name).map_or(name, String::as_str))
            }
        };
        let reason = format!(
            "is no finite number in f32; {} is damaged, fetch or write it again",
            file.unwrap_or(&self.path).display()
        );
        let value = tensor.flatten_all()?.get(flat)?.to_scalar::<f32>()?;
        Err(Error::config(&format!("{name}{index:?}"), value, reason))
    }

    /// Training state of the checkpoint: momentum copies, queues and the temperature, under original names. Empty where
    /// there is none.
    ///
    /// # Errors
    /// As [`Self::tensor`]; a float that is not finite.
    pub fn training_state(&self, device: &Device) -> Result<Tensors> {
        let read = |name: &str| {
            let is_float =
                self.tensor_info(name).is_some_and(|(_, d)| d.is_none_or(|d| d.is_float()));
            let tensor =
                if is_float { self.weight(name, device)? } else { self.tensor(name, device)? };
            Ok((name.to_owned(), tensor))
        };
        self.names().filter(|name| training(name).is_some()).map(read).collect()
    }

    /// Reads the model of this configuration, all weights as f32 whatever they are stored as. Position embeddings of
    /// another image size are resized. Peak memory is little more than that of the model.
    ///
    /// # Errors
    /// A report that lists everything missing, unexpected or of another shape; a weight that is not a finite number; a
    /// copy of a tied tensor that differs from it.
    pub fn backbone(&self, config: &BlipConfig, device: &Device) -> Result<(Backbone, LoadReport)> {
        self.backbone_with_extra(config, device, |_| false)
    }

    /// Reads the backbone of a checkpoint whose `extra` tensors belong to somebody else.
    pub(crate) fn backbone_with_extra(
        &self,
        config: &BlipConfig,
        device: &Device,
        others: impl Fn(&str) -> bool,
    ) -> Result<(Backbone, LoadReport)> {
        config.check()?;
        let wanted: BTreeMap<String, Shape> = Blip::param_shapes(config).into_iter().collect();
        let grid = config.vision.grid();
        let mut report = LoadReport::default();
        let mut resized_from = None;
        // All names and shapes are compared before any tensor is read.
        for (name, shape) in &wanted {
            let Some((found, dtype)) = self.tensor_info(name) else {
                report.missing.push(name.clone());
                continue;
            };
            let from = other_grid(name, found, shape.dims(), grid);
            if let Some(dtype) = dtype.filter(|dtype| !dtype.is_float()) {
                report.misshapen.push(format!("{name} is {dtype:?}, not a float"));
            } else if from.is_some() {
                report.reshaped.push(format!("{name} {found:?} to {shape:?}"));
                resized_from = from;
            } else if found != shape.dims() {
                report.misshapen.push(format!("{name} is {found:?}, not {shape:?}"));
            }
        }
        for name in self.stored.keys().filter(|name| !wanted.contains_key(*name)) {
            match ignored_reason(name, &config.architecture) {
                Some(reason) => report.ignored.push((name.clone(), reason)),
                None if others(name) => {}
                None => report.unexpected.push(name.clone()),
            }
        }
        if let File::Pth(pth) = &self.file {
            report.ignored.extend(pth.ignored.iter().map(|name| (name.clone(), NOT_A_TENSOR)));
        }
        if !report.complete() {
            let way = match report.unexpected.iter().any(|name| is_adapter(name)) {
                true => "CP tensors are an adapter of the reference code: load it with its adapter",
                false => "take the configuration that belongs to these weights",
            };
            let report = format!("{report}; {way}");
            return Err(Error::Mismatch { what: self.path.display().to_string(), report });
        }
        let mut tensors = Tensors::new();
        for name in wanted.into_keys() {
            let mut tensor = self.weight(&name, device)?;
            if let (POSITIONS, Some(from)) = (name.as_str(), resized_from) {
                tensor = resize_positions(&tensor, from, grid)?;
            }
            report.loaded += 1;
            tensors.insert(name, tensor);
        }
        for (copy, name) in TIED {
            let (true, Some(kept)) = (self.stored.contains_key(copy), tensors.get(name)) else {
                continue;
            };
            if !tensors::same(&self.weight(copy, device)?, kept)? {
                let reason = format!("must be a copy of {name}, as BLIP shares the two");
                return Err(Error::config(copy, "a tensor of its own", reason));
            }
        }
        Ok((Backbone { config: config.clone(), tensors }, report))
    }
}

/// Side of the grid of position embeddings that have the wanted width and another number of positions.
fn other_grid(name: &str, found: &[usize], wanted: &[usize], grid: usize) -> Option<usize> {
    let (&[1, tokens, width], &[1, _, wanted_width]) = (found, wanted) else { return None };
    let from = tokens.checked_sub(1)?.isqrt();
    let square = from * from + 1 == tokens && from > 0 && from != grid;
    (name == POSITIONS && width == wanted_width && square).then_some(from)
}
