//! `aurora inspect`: contents of a backbone, an adapter or a run, and what tuning would train.

mod adapter;
mod backbone;
mod kinds;
mod tensor_table;

use std::path::Path;

use anyhow::Result;
use aurora_layers::checkpoint::{Checkpoint, PretrainedSource};
use aurora_layers::{Blip, BlipConfig};
use aurora_train::config::Config;
use aurora_train::run::{RunFolder, Summary};
use serde::de::DeserializeOwned;

use crate::args::InspectArgs;
use crate::commands::shared::{metrics_table, resolve, skipped_line};
use crate::exit_code::bad_input;
use crate::{embedded_backbone, output};
use kinds::InspectOptions;
use tensor_table::TensorEntry;

/// Runs `aurora inspect`.
///
/// # Errors
/// A path that is none of these, files that cannot be read.
pub fn run(args: &InspectArgs) -> Result<()> {
    let settings = &args.settings;
    let run: Option<Config> = match settings.config.is_some() || !settings.overrides.is_empty() {
        true => Some(resolve(settings)?),
        false => None,
    };
    let options = InspectOptions {
        tensors: args.tensors,
        kind: args.adapter_kind,
        rank: args.rank.map(|rank| rank as usize),
        variant: args.variant.0,
        run,
    };
    let path = args.path.as_path();
    if path == Path::new(embedded_backbone::NAME) && !path.exists() {
        return embedded(&options);
    }
    let has = |name: &str| path.join(name).is_file();
    if path.is_file() {
        file(path, &options)
    } else if has("adapter_config.json") {
        adapter::print(path, options.tensors)
    } else if has("config.json") {
        backbone::print(&open(path, &options)?, &options)
    } else if has("config.toml") {
        run_folder(path, options.tensors)
    } else {
        let what = if path.exists() { "holds" } else { "does not exist, so it holds" };
        Err(bad_input(format!(
            "{} {what} none of config.json (a backbone), adapter_config.json (an adapter), \
             config.toml (a run); a .pth file, a lone config.json and `{}`, the backbone inside \
             the program, can be looked at too",
            path.display(),
            embedded_backbone::NAME
        )))
    }
}

/// Opens a backbone at the image size of the given run.
fn open(path: &Path, options: &InspectOptions) -> Result<PretrainedSource> {
    let pretrained = PretrainedSource::open(path)?;
    let size = options.run.as_ref().and_then(|run| run.model.other_image_size());
    Ok(match size {
        Some(size) => pretrained.with_image_size(size)?,
        None => pretrained,
    })
}

fn embedded(options: &InspectOptions) -> Result<()> {
    let path = Path::new(embedded_backbone::NAME);
    let config = BlipConfig::from_json(embedded_backbone::CONFIG, &path.join("config.json"))?;
    let weights =
        Checkpoint::from_bytes(embedded_backbone::MODEL.to_vec(), &path.join("model.safetensors"))?;
    let list = TensorEntry::of_checkpoint(&weights);
    let heading = format!(
        "{}: a BLIP backbone for {} (inside the program)",
        embedded_backbone::NAME,
        config.architecture
    );
    backbone::print_listed(&heading, &config, &list, options)
}

/// Inspects a file: adapter weights, with the configuration in their folder, or a backbone.
fn file(path: &Path, options: &InspectOptions) -> Result<()> {
    let named = |name: &str| path.file_name().is_some_and(|found| found == name);
    let folder = path.parent().unwrap_or(Path::new("."));
    if named("adapter_config.json") {
        return adapter::print(folder, options.tensors);
    }
    if path.extension().is_some_and(|end| end == "safetensors") {
        let checkpoint = Checkpoint::open(path)?;
        let is_adapter = checkpoint.names().any(|name| name.starts_with(adapter::PREFIX));
        if is_adapter && folder.join("adapter_config.json").is_file() {
            return adapter::print(folder, options.tensors);
        }
        if is_adapter {
            return adapter::print_weights(path, options.tensors);
        }
    }
    backbone::print(&open(path, options)?, options)
}

/// Number of values in a backbone of these sizes.
fn values(config: &BlipConfig) -> u64 {
    Blip::param_shapes(config).iter().map(|(_, shape)| shape.elem_count() as u64).sum()
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| bad_input(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|e| bad_input(format!("{} is not what it should be: {e}", path.display())))
}

fn run_folder(path: &Path, every_tensor: bool) -> Result<()> {
    let file = path.join("summary.json");
    output::line(&format!("{}: a run", path.display()));
    if file.is_file() {
        let summary: Summary = read_json(&file)?;
        output::line("");
        metrics_table(&[("baseline", &summary.baseline), ("tuned", &summary.tuned)]).print();
        output::line(&format!(
            "\nseed {}, {} test pairs, {}",
            summary.seed,
            output::count(summary.test_pairs),
            output::duration(summary.seconds)
        ));
        if let Some(line) = skipped_line(summary.skipped, Some(&path.join("skipped.jsonl"))) {
            output::line(&line);
        }
    } else {
        output::line("it has no summary.json: it did not reach its end, or is under way");
        if let Some(newest) = RunFolder::open(path)?.checkpoints().newest()? {
            output::line(&format!(
                "`aurora train --resume {}` goes on from {}",
                path.display(),
                newest.display()
            ));
        }
    }
    let folder = path.join("adapter");
    if folder.is_dir() {
        output::line("");
        adapter::print(&folder, every_tensor)?;
    }
    Ok(())
}
