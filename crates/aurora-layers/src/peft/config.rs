//! `adapter_config.json` of a LoRA, as PEFT writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use regex::Regex;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::io::read_json;
use crate::{Error, Result};

/// Keys that decide the meaning of the numbers. Ranks are those of the tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoraConfig {
    pub(super) peft_type: String,
    #[serde(default)]
    pub(super) base_model_name_or_path: Option<String>,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    #[serde(default)]
    pub(super) lora_dropout: f64,
    #[serde(default = "none")]
    pub(super) bias: String,
    #[serde(default)]
    pub(super) target_modules: Value,
    #[serde(default)]
    pub(super) modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    pub(super) use_rslora: bool,
    #[serde(default)]
    pub(super) use_dora: bool,
    #[serde(default)]
    pub(super) fan_in_fan_out: bool,
    #[serde(default, skip_serializing)]
    pub(super) alpha_pattern: Patterns,
    #[serde(default)]
    pub(super) inference_mode: bool,
    #[serde(default)]
    pub(super) task_type: Option<String>,
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, Value>,
}

/// Value of `bias` for untrained biases.
pub(super) fn none() -> String {
    "none".to_owned()
}

/// Further options under which a LoRA is more than two factors beside a frozen weight.
const REFUSED: &[&str] = &[
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// Values of `init_lora_weights` under which PEFT changes the frozen weights too.
const CHANGES_WEIGHTS: &[&str] = &["corda", "loftq", "lora_ga", "olora", "pissa"];

impl LoraConfig {
    /// Reads the configuration of a plain LoRA.
    ///
    /// # Errors
    /// A file that cannot be read or parsed; options under which the tensors mean something else.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let config: Self = read_json(path, "a LoRA configuration of PEFT")?;
        let wrong = |reason: String| Err(Error::Format { path: path.into(), reason });
        for (field, is, allowed) in [
            ("peft_type", config.peft_type != "LORA", "\"LORA\""),
            ("use_dora", config.use_dora, "false"),
            ("bias", config.bias != "none", "\"none\""),
            ("fan_in_fan_out", config.fan_in_fan_out, "false"),
        ] {
            if is {
                return wrong(format!("{field} must be {allowed} to be imported"));
            }
        }
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if let Some(field) = REFUSED.iter().find(|field| config.rest.get(**field).is_some_and(set))
        {
            return wrong(format!("{field} must not be set to be imported"));
        }
        let start = config.rest.get("init_lora_weights").and_then(Value::as_str).unwrap_or("");
        let start = start.to_lowercase();
        if CHANGES_WEIGHTS.iter().any(|deltas| start.starts_with(deltas)) {
            return wrong(format!(
                "init_lora_weights is {start:?}, which changes the frozen weights too; let PEFT make a plain LoRA of \
                 it (save_pretrained with path_initial_model_for_weight_conversion)"
            ));
        }
        Ok(config)
    }

    /// Alpha of a module, by its Hugging Face name.
    pub(super) fn alpha(&self, module: &str) -> f64 {
        let found = self.alpha_pattern.0.iter().find(|(pattern, _)| pattern.is_match(module));
        found.map_or(self.lora_alpha, |(_, alpha)| *alpha)
    }
}

/// Values by pattern of module names, in the order of the file; the first match counts.
///
/// PEFT takes a pattern as a regular expression for the whole name or for the part after one of its dots.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns(Vec<(Regex, f64)>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Patterns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from pattern to number")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Patterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some((pattern, value)) = map.next_entry::<String, f64>()? {
                    let regex = Regex::new(&format!(r"^(.*\.)?({pattern})$"));
                    patterns.push((regex.map_err(A::Error::custom)?, value));
                }
                Ok(Patterns(patterns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<LoraConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        let text = format!("{{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16{fields}}}");
        std::fs::write(&path, text).unwrap();
        LoraConfig::read(&path)
    }

    /// Same matches as `get_pattern_key` of peft 0.21.2.
    #[test]
    fn the_first_pattern_that_matches_a_whole_part_of_the_name_counts() {
        let config = read(
            ", \"alpha_pattern\": {\"query\": 40, \"layers\\\\.[0-5]\\\\.self_attn\\\\.qkv\": 3, \
             \"self.key\": 5, \"fc\": 99, \"fc1|fc2\": 7, \"fc2\": 8}",
        );
        let config = config.unwrap();
        for (module, alpha) in [
            ("text_encoder.encoder.layer.3.crossattention.self.query", 40.0),
            ("vision_model.encoder.layers.5.self_attn.qkv", 3.0),
            ("vision_model.encoder.layers.11.self_attn.qkv", 16.0),
            ("text_encoder.encoder.layer.0.attention.self.key", 5.0),
            ("vision_model.encoder.layers.0.mlp.fc2", 7.0),
            ("query", 40.0),
            ("text_encoder.myquery", 16.0),
            ("query.more", 16.0),
        ] {
            assert_eq!(config.alpha(module), alpha, "{module}");
        }
    }

    #[test]
    fn what_changes_the_meaning_of_the_tensors_is_refused_by_name() {
        for (fields, wanted) in [
            (", \"lora_bias\": true", "lora_bias must not be set"),
            (", \"layer_replication\": [[0, 4]]", "layer_replication"),
            (", \"init_lora_weights\": \"pissa_niter_16\"", "pissa_niter_16"),
            (", \"init_lora_weights\": \"OLoRA\"", "frozen weights"),
            (", \"alpha_pattern\": {\"(\": 1}", "regex"),
            (", \"alpha_pattern\": {\"a\": \"b\"}", "adapter_config.json"),
        ] {
            let message = read(fields).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
        let fine = ", \"lora_bias\": false, \"kasa_config\": null, \"loftq_config\": {}, \"init_lora_weights\": \
                    \"gaussian\", \"rank_pattern\": {\"qkv\": 4}";
        read(fine).unwrap();
    }
}
