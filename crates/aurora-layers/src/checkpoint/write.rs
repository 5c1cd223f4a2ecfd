//! Writing a backbone as a folder of transformers: its names, its configuration, one file or shards.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use super::hf_names::to_hugging_face;
use super::safetensors::{FILE, INDEX};
use crate::io::write_text;
use crate::tensors::write_named;
use crate::{Backbone, Error, Result};

impl Backbone {
    /// Writes a folder that transformers loads, weights as `dtype`: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path, dtype: DType) -> Result<()> {
        self.write_shards(folder, dtype, u64::MAX)
    }

    /// Writes the folder in f32; weights of more than `largest_shard` bytes go to shards of at most that, with an
    /// index. A larger tensor is a shard of its own.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_hugging_face(&self, folder: &Path, largest_shard: Option<u64>) -> Result<()> {
        self.write_shards(folder, DType::F32, largest_shard.unwrap_or(u64::MAX))
    }

    /// Writes every file aside and renames it. An existing configuration and existing weights are replaced.
    fn write_shards(&self, folder: &Path, dtype: DType, largest_shard: u64) -> Result<()> {
        let failed =
            |action| move |source| Error::File { action, path: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(failed("create"))?;
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (name, tensor) in &self.tensors {
            let tensor = tensor.detach().to_dtype(dtype)?;
            tensors.push((to_hugging_face(name), tensor));
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let shards = split(&tensors, largest_shard);
        let note = Some(("format", "pt"));
        let names = |shard: &[(String, Tensor)]| -> Vec<String> {
            shard.iter().map(|(name, _)| name.clone()).collect()
        };
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            let file = match shards.len() {
                1 => FILE.to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let named = shard.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            write_named(named, note, &folder.join(&file))?;
            places.extend(names(shard).into_iter().map(|name| (name, file.clone())));
        }
        // Readers prefer the index where there is one, so leftovers of the other layout must go.
        let stale = if shards.len() == 1 {
            INDEX
        } else {
            let bytes: u64 = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": places });
            write_text(&folder.join(INDEX), &pretty(&index))?;
            FILE
        };
        match std::fs::remove_file(folder.join(stale)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("write")(error));
            }
            _ => {}
        }
        let mut config = self.config.to_json();
        config["dtype"] = type_name(dtype).into();
        write_text(&folder.join("config.json"), &pretty(&config))
    }
}

/// PyTorch's name of a type of weights.
fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// Shards: runs of tensors of at most `largest` bytes each, or of one tensor.
fn split(tensors: &[(String, Tensor)], largest: u64) -> Vec<&[(String, Tensor)]> {
    let (mut shards, mut first, mut size) = (Vec::new(), 0, 0);
    for (at, (_, tensor)) in tensors.iter().enumerate() {
        if at > first && size + bytes(tensor) > largest {
            shards.push(&tensors[first..at]);
            (first, size) = (at, 0);
        }
        size += bytes(tensor);
    }
    shards.push(&tensors[first..]);
    shards
}
