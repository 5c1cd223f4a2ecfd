//! Safetensors: one file, or shards under an index, mapped into memory.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::folder::read_json;
use crate::{Error, Result};

/// The index of a sharded checkpoint.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensors in one or more safetensors files.
#[derive(Debug)]
pub struct Shards {
    files: Vec<(PathBuf, memmap2::Mmap)>,
    tensors: BTreeMap<String, (usize, Vec<usize>)>, // file, shape
}

impl Shards {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, in a folder; or one file.
    ///
    /// # Errors
    /// A file that is missing or cut, a header longer than the file, tensors that overlap, an index that names a file
    /// outside of the folder or a tensor that its shard does not have.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Self::read(&[path.to_path_buf()]);
        }
        let index = path.join("model.safetensors.index.json");
        if !index.exists() {
            return Self::read(&[path.join("model.safetensors")]);
        }
        let Index { weight_map } = read_json(&index, "an index of shards")?;
        let wrong = |reason: String| Error::Format { path: index.clone(), reason };
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in &names {
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(wrong(format!(
                    "names the shard {name:?}; shards lie beside their index"
                )));
            }
        }
        let files: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        let shards = Self::read(&files)?;
        for (tensor, file) in &weight_map {
            let found = shards.tensors.get(tensor).and_then(|(at, _)| shards.files.get(*at));
            if found.is_none_or(|(path, _)| !path.ends_with(file)) {
                return Err(wrong(format!("says that {tensor} is in {file}, and it is not")));
            }
        }
        Ok(shards)
    }

    fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut shards = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            let failed = |source| Error::File { action: "read", path: path.clone(), source };
            let map = aurora_kernels::memory::map_file(path).map_err(failed)?;
            for (name, view) in parse(path, &map)?.tensors() {
                let entry = (shards.files.len(), view.shape().to_vec());
                if shards.tensors.insert(name.clone(), entry).is_some() {
                    let reason = format!("{name} is in another shard too");
                    return Err(Error::Format { path: path.clone(), reason });
                }
            }
            shards.files.push((path.clone(), map));
        }
        Ok(shards)
    }

    /// Names and shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (_, shape))| (name.as_str(), shape.as_slice()))
    }

    /// A tensor in the type it is stored in.
    ///
    /// # Errors
    /// A name that is not there, a type that no weight has.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let file = self.tensors.get(name).and_then(|(at, _)| self.files.get(*at));
        let Some((path, map)) = file else {
            let report = format!("missing: {name}");
            return Err(Error::Mismatch { what: "the checkpoint".into(), report });
        };
        let wrong = |reason: String| Error::Format { path: path.clone(), reason };
        let parsed = parse(path, map)?;
        let view = parsed.tensor(name).map_err(|error| wrong(error.to_string()))?;
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            safetensors::Dtype::BF16 => DType::BF16,
            safetensors::Dtype::F64 => DType::F64,
            safetensors::Dtype::I64 => DType::I64,
            other => {
                return Err(wrong(format!(
                    "{name} is stored as {other:?}, a type that no weight has"
                )));
            }
        };
        Ok(Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?)
    }
}

fn parse<'a>(path: &Path, map: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map).map_err(|error| Error::Format {
        path: path.into(),
        reason: format!("not a whole safetensors file ({error}); fetch or write it again"),
    })
}
