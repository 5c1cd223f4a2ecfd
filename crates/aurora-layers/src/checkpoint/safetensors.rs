//! Safetensors: one file, or shards under an index.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::byte_source::{ByteSource, TensorView};
use crate::io::read_json;
use crate::{Error, Result, Tensors};

/// File name of the weights in a folder; `INDEX` is that of the index.
pub(super) const FILE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Maximum length of a header, in bytes; a thousand tensors take a tenth of a million.
const LONGEST_HEADER: u64 = 100_000_000;

/// Index of a sharded checkpoint.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensor of a file.
#[derive(Debug)]
struct Entry {
    file: usize,
    at: u64, // byte of the file
    stored: Dtype,
    shape: Vec<usize>,
}

/// Tensors of one or more safetensors files.
#[derive(Debug)]
pub struct Shards {
    files: Vec<ByteSource>,
    tensors: BTreeMap<String, Entry>,
}

impl Shards {
    /// Opens `model.safetensors` in a folder, or the shards that `model.safetensors.index.json` names; or one file.
    ///
    /// # Errors
    /// A file that is missing or truncated, a header longer than the file, tensors that overlap or leave a hole, an
    /// index that names a file outside of the folder or a tensor that its shard does not have, a tensor in two shards.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::read(vec![ByteSource::open(path)?]);
        }
        let (file, index) = (path.join(FILE), path.join(INDEX));
        if !index.exists() {
            if !file.exists() {
                let reason = format!(
                    "has neither {FILE} nor {INDEX}; give the folder that holds one of them, or the .pth or .bin \
                     file itself"
                );
                return Err(Error::Format { path: path.into(), reason });
            }
            return Self::read(vec![ByteSource::open(&file)?]);
        }
        let Index { weight_map } = read_json(&index, "an index of shards")?;
        let wrong = |reason: String| Error::Format { path: index.clone(), reason };
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(wrong("names no shard; fetch or write it again".to_owned()));
        }
        let mut files = Vec::new();
        for name in &names {
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(wrong(format!(
                    "names the shard {name:?}; shards lie beside their index"
                )));
            }
            let shard = path.join(name);
            if !shard.is_file() {
                return Err(wrong(format!(
                    "names the shard {name}, which is not there; fetch it, or write the checkpoint again"
                )));
            }
            files.push(ByteSource::open(&shard)?);
        }
        let shards = Self::read(files)?;
        for (tensor, file) in &weight_map {
            let found = shards.tensors.get(tensor).and_then(|entry| shards.files.get(entry.file));
            if found.is_none_or(|source| !source.path().ends_with(file)) {
                return Err(wrong(format!(
                    "says that {tensor} is in {file}, and it is not; fetch or write the checkpoint again"
                )));
            }
        }
        Ok(shards)
    }

    /// File from bytes in memory; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        Self::read(vec![ByteSource::from_bytes(bytes, path)])
    }

    pub(super) fn read(files: Vec<ByteSource>) -> Result<Self> {
        let mut tensors: BTreeMap<String, Entry> = BTreeMap::new();
        for (file, source) in files.iter().enumerate() {
            let (start, metadata) = header(source)?;
            for name in metadata.offset_keys() {
                let Some(info) = metadata.info(&name) else { continue };
                let at = start + info.data_offsets.0 as u64;
                let entry = Entry { file, at, stored: info.dtype, shape: info.shape.clone() };
                if let Some(other) = tensors.insert(name.clone(), entry) {
                    let other = files.get(other.file).map_or(source, |other| other).path();
                    return Err(source.wrong(format!(
                        "{name} is in {} too; a tensor stands in one shard, write the checkpoint again",
                        other.display()
                    )));
                }
            }
        }
        Ok(Self { files, tensors })
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// Path of the file that a tensor is in.
    pub(super) fn path(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).and_then(|entry| self.files.get(entry.file)).map(ByteSource::path)
    }

    /// Shape of a tensor, and its type where candle has it.
    pub(super) fn tensor_info(&self, name: &str) -> Option<(&[usize], Option<DType>)> {
        let entry = self.tensors.get(name)?;
        Some((&entry.shape, dtype(entry.stored)))
    }

    /// Reads a tensor in the type it is stored in.
    ///
    /// # Errors
    /// A name that is not there, a type that no weight has.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let found = self.tensors.get(name);
        let Some((entry, source)) = found.and_then(|e| Some((e, self.files.get(e.file)?))) else {
            let report = format!("missing: {name}");
            return Err(Error::Mismatch { what: "the checkpoint".into(), report });
        };
        let Entry { at, stored, shape, .. } = entry;
        let Some(dtype) = dtype(*stored) else {
            return Err(source.wrong(format!(
                "{name} is stored as {stored:?}, a type that no weight has; f32, f16, bf16, f64, i64, i32, u32 or u8 can \
                 be read"
            )));
        };
        let span = shape.iter().product();
        source.tensor(TensorView { at: *at, span, shape, stride: None }, dtype, device)
    }
}

/// Reads the tensors of a safetensors file, floats as `dtype`, to `device`.
///
/// # Errors
/// As [`Shards::open`]; a type that candle does not have.
pub fn read_tensors(path: &Path, dtype: DType, device: &Device) -> Result<Tensors> {
    let file = Shards::open(path)?;
    let tensor = |name: &str| -> Result<(String, Tensor)> {
        let tensor = file.tensor(name, device)?;
        let tensor = if tensor.dtype().is_float() { tensor.to_dtype(dtype)? } else { tensor };
        Ok((name.to_owned(), tensor))
    };
    file.shapes().map(|(name, _)| tensor(name)).collect()
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        _ => return None,
    })
}

/// Header of a file, and the byte offset of its numbers. Tensors fill the file without gaps to the end.
fn header(source: &ByteSource) -> Result<(u64, Metadata)> {
    let length = source.length();
    let again = "not a whole safetensors file";
    if length < 8 {
        return Err(source.wrong(format!(
            "{again}: {length} bytes, and the length of the header alone takes 8; fetch or write it again"
        )));
    }
    if source.bytes(8, 1).is_ok_and(|byte| byte != b"{") {
        return Err(source.wrong(
            "is no file of weights: neither safetensors nor a zip archive or pickle of torch.save (a text of a few lines \
             stands where the weights themselves were not fetched, as Git LFS leaves it); fetch it again",
        ));
    }
    let mut head = [0; 8];
    head.copy_from_slice(&source.bytes(0, 8)?);
    let head = u64::from_le_bytes(head);
    if head > length - 8 || head > LONGEST_HEADER {
        return Err(source.wrong(format!(
            "{again}: its header should have {head} bytes, the file has {length} and a header at most \
             {LONGEST_HEADER}; fetch or write it again"
        )));
    }
    let text = source.bytes(8, head as usize)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| {
        source.wrong(format!(
            "{again}: the header is broken ({error}; tensors have to follow each other without overlap or hole); \
             fetch or write it again"
        ))
    })?;
    let (start, wanted) = (8 + head, metadata.data_len() as u64);
    if start.checked_add(wanted) != Some(length) {
        return Err(source.wrong(format!(
            "{again}: the header tells of {wanted} bytes of numbers and there are {}; fetch or write it again",
            length - start
        )));
    }
    Ok((start, metadata))
}
