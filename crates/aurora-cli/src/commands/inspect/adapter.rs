//! `aurora inspect` of an adapter: ours, PEFT's, or weights without a configuration.

use std::path::Path;

use anyhow::Result;
use aurora_layers::checkpoint::{Checkpoint, PretrainedSource};
use aurora_layers::{AdaptedParams, AdapterConfig, AdapterFolder, ParamGroup};
use candle_core::Device;
use serde_json::Value;

use super::tensor_table::{TensorEntry, part_table, tensor_table};
use super::{read_json, values};
use crate::embedded_backbone;
use crate::output;

/// Prefix of every tensor name in an adapter file.
pub const PREFIX: &str = "base_model.";

/// Prints an adapter folder, ours or PEFT's.
pub fn print(folder: &Path, every_tensor: bool) -> Result<()> {
    let description = folder.join("adapter_config.json");
    let config: Value = read_json(&description)?;
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind == "AURORA" {
        ours(folder, every_tensor)
    } else {
        theirs(folder, &config, every_tensor)
    }
}

fn ours(folder: &Path, every_tensor: bool) -> Result<()> {
    let about = AdapterFolder::read(folder)?;
    output::line(&format!("{}: an adapter\n", folder.display()));
    for (label, value) in described(&about.adapter_config) {
        output::line(&format!("{label:<10} {value}"));
    }
    output::line(&format!(
        "{:<10} {} (fingerprint {})\n",
        "made for", about.base_model_name_or_path, about.base_model_fingerprint
    ));
    let trained = print_parts(&AdapterFolder::weights_path(folder), every_tensor)?;
    let mut note = format!("\n{} values were trained", output::count(trained));
    if let Some((name, whole)) = backbone_of(&about)? {
        note += &format!(
            ", {} of the {} of {name}",
            output::share(trained, whole),
            output::count(whole)
        );
    }
    output::line(&note);
    Ok(())
}

/// Backbone of an adapter, if it can be found, and its parameter count.
fn backbone_of(about: &AdapterFolder) -> Result<Option<(String, u64)>> {
    let name = &about.base_model_name_or_path;
    let embedded = embedded_backbone::load(&Device::Cpu)?;
    if embedded.fingerprint()? == about.base_model_fingerprint {
        return Ok(Some((embedded_backbone::NAME.to_owned(), embedded.parameters() as u64)));
    }
    // Comparing fingerprints would take reading the weights; loading does that.
    let pretrained = PretrainedSource::open(Path::new(name)).ok();
    Ok(pretrained.map(|pretrained| (name.clone(), values(&pretrained.config))))
}

/// Prints a PEFT folder: the fields of its configuration, verbatim.
fn theirs(folder: &Path, config: &Value, every_tensor: bool) -> Result<()> {
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("unknown");
    output::line(&format!("{}: a PEFT adapter of type {kind}\n", folder.display()));
    let keys = [
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "bias",
        "target_modules",
        "modules_to_save",
    ];
    for key in keys {
        let Some(value) = config.get(key).filter(|value| !value.is_null()) else { continue };
        let shown = match value {
            Value::String(text) => text.clone(),
            Value::Array(items) if items.len() > 12 => format!("{} modules", items.len()),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        output::line(&format!("{key:<24} {shown}"));
    }
    output::line("");
    print_parts(&AdapterFolder::weights_path(folder), every_tensor)?;
    if kind == "LORA" {
        output::line(&format!(
            "\nit says nothing of the weights it was trained on; `aurora import {} --backbone PATH \
             --out FOLDER` makes it an adapter of this program",
            folder.display()
        ));
    }
    Ok(())
}

/// Prints adapter weights without a configuration beside them.
pub fn print_weights(path: &Path, every_tensor: bool) -> Result<()> {
    output::line(&format!(
        "{}: an adapter's weights, with no adapter_config.json beside them\n",
        path.display()
    ));
    print_parts(path, every_tensor)?;
    Ok(())
}

/// Prints the parameter groups of an adapter file; returns the number of trainable values.
fn print_parts(path: &Path, every_tensor: bool) -> Result<u64> {
    let list = TensorEntry::of_checkpoint(&Checkpoint::open(path)?);
    part_table(&list, part, |part| param_group_name(*part)).print();
    if every_tensor {
        output::line("");
        tensor_table(&list).print();
    }
    let trained = list.iter().filter(|tensor| part(tensor) != ParamGroup::Buffer);
    Ok(trained.map(TensorEntry::values).sum())
}

fn part(tensor: &TensorEntry) -> ParamGroup {
    let name = tensor.name.strip_prefix(PREFIX).unwrap_or(&tensor.name);
    AdaptedParams::param_group(name.strip_prefix("model.").unwrap_or(name))
}

/// Labeled values of an adapter configuration.
pub fn described(adapter_config: &AdapterConfig) -> Vec<(&'static str, String)> {
    let variant = format!("{:?}", adapter_config.variant).to_lowercase();
    let mut lines = vec![("kind", adapter_config.kind.name().to_owned()), ("variant", variant)];
    if adapter_config.is_ranked() {
        lines.push(("rank", adapter_config.rank.to_string()));
    }
    if !adapter_config.targets.is_all() {
        lines.push(("targets", "a choice of maps".to_owned()));
    }
    lines.push(("gated query", if adapter_config.gated_query { "yes" } else { "no" }.to_owned()));
    lines.push(("context", format!("{} slots", adapter_config.context_slots)));
    lines.push(("heads", adapter_config.modules_to_save.join(", ")));
    lines
}

/// Display name of a parameter group.
pub fn param_group_name(part: ParamGroup) -> &'static str {
    match part {
        ParamGroup::Factor => "factors",
        ParamGroup::Gate => "gates",
        ParamGroup::Head => "heads",
        ParamGroup::Backbone => "backbone",
        ParamGroup::Buffer => "buffers",
    }
}
