//! A backbone as a folder that transformers loads: its names, its configuration, one file or shards.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::hf_names::to_hugging_face;
use super::hugging_face::class_name;
use super::safetensors::{FILE, INDEX};
use crate::io::write_text;
use crate::tensors::write_named;
use crate::{Backbone, BlipConfig, Error, Result};

impl Backbone {
    /// Writes `config.json` and the weights, f32, as the model of this architecture in transformers has them: in
    /// `model.safetensors`, or where they take more than `largest_shard` bytes in shards of at most that with an index.
    /// A tensor larger than that is a shard of its own.
    ///
    /// Every file is written aside and renamed. A configuration or weights that are there already are replaced.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_hugging_face(&self, folder: &Path, largest_shard: Option<u64>) -> Result<()> {
        let failed =
            |action| move |source| Error::File { action, path: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(failed("create"))?;
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (name, tensor) in &self.tensors {
            let tensor = tensor.detach().to_dtype(candle_core::DType::F32)?;
            tensors.push((to_hugging_face(name), tensor));
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let shards = split(&tensors, largest_shard.unwrap_or(u64::MAX));
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
        // A reader takes the index where there is one: what is left of another way of writing must not be found.
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
        write_text(&folder.join("config.json"), &pretty(&config(&self.config)))
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// Runs of tensors of at most `largest` bytes each, or of one tensor.
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

/// The configuration that transformers reads; what is not in it has the values that transformers gives it.
fn config(config: &BlipConfig) -> Value {
    let (vision, text) = (&config.vision, &config.text);
    let mut text_config = json!({
        // [DEC], which stands before [ENC].
        "bos_token_id": text.enc_token_id.saturating_sub(1),
        "encoder_hidden_size": vision.hidden_size,
        "hidden_act": "gelu",
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "is_decoder": true,
        "layer_norm_eps": text.layer_norm_eps,
        "max_position_embeddings": text.max_position_embeddings,
        "model_type": "blip_text_model",
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "vocab_size": text.vocab_size,
    });
    if let Some(tokens) = config.architecture.decodes() {
        text_config["bos_token_id"] = tokens.start_token_id.into();
        text_config["eos_token_id"] = tokens.end_token_id.into();
        text_config["sep_token_id"] = tokens.end_token_id.into();
        text_config["pad_token_id"] = tokens.pad_token_id.into();
    }
    json!({
        "architectures": [class_name(&config.architecture)],
        "dtype": "float32",
        "image_text_hidden_size": config.projection_dim,
        "model_type": "blip",
        "text_config": text_config,
        // The word head of a decoder is its table of embeddings; it is not stored twice.
        "tie_word_embeddings": true,
        "vision_config": {
            "hidden_act": "gelu",
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size,
            "intermediate_size": vision.intermediate_size,
            "layer_norm_eps": vision.layer_norm_eps,
            "model_type": "blip_vision_model",
            "num_attention_heads": vision.num_attention_heads,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size,
        },
    })
}
