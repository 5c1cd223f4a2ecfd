//! `aurora import`: adapter folder from a PEFT LoRA or a checkpoint of the reference code.

use std::path::Path;

use anyhow::{Context, Result};
use aurora_layers::checkpoint::{Checkpoint, PretrainedSource};
use aurora_layers::peft::import_lora;
use aurora_layers::{AdaptedParams, Backbone, Error, save_adapter};
use candle_core::Device;

use super::shared::check_empty;
use crate::args::ImportArgs;
use crate::exit_code::bad_input;
use crate::{model, output};

/// Runs `aurora import`.
///
/// # Errors
/// A path that is neither, an adapter that does not fit the backbone, a folder that is not empty.
pub fn run(args: &ImportArgs) -> Result<()> {
    check_empty(&args.out)?;
    let path = args.path.as_path();
    let (name, backbone, tuned) = if path.is_file() { reference(args)? } else { lora(args)? };
    let card = format!(
        "# Aurora adapter\n\nKind {}, rank {}, for the backbone `{name}`; imported from `{}`.\n",
        tuned.adapter_config.kind.name(),
        tuned.adapter_config.rank,
        path.display()
    );
    save_adapter(&args.out, &tuned, &backbone, &name, &card)?;
    output::line(&format!(
        "{}: an adapter of kind {}, rank {}, for {name}",
        args.out.display(),
        tuned.adapter_config.kind.name(),
        tuned.adapter_config.rank
    ));
    Ok(())
}

fn lora(args: &ImportArgs) -> Result<(String, Backbone, AdaptedParams)> {
    let path = args.path.as_path();
    if !path.join("adapter_config.json").is_file() {
        let what = if path.exists() { "holds no adapter_config.json" } else { "is not there" };
        return Err(bad_input(format!(
            "{} {what}; a LoRA folder of PEFT's can be imported, or a checkpoint of the reference \
             code (.pth)",
            path.display()
        )));
    }
    let Some(name) = &args.base.backbone else {
        return Err(bad_input(format!(
            "{}: a LoRA of PEFT's does not say which weights it was trained on; give them with \
             --backbone",
            path.display()
        )));
    };
    let (name, backbone) = model::open_backbone(&args.base, name)?;
    let tuned = import_lora(path, &backbone, &Device::Cpu);
    let no_fit = matches!(tuned, Err(Error::Mismatch { .. }));
    let tuned = match no_fit {
        true => tuned.with_context(|| {
            format!(
                "{} is no LoRA for {name}; give the backbone it was trained on with --backbone",
                path.display()
            )
        })?,
        false => tuned?,
    };
    Ok((name, backbone, tuned))
}

/// Adapter in a checkpoint of the reference code; its backbone is the checkpoint without it.
fn reference(args: &ImportArgs) -> Result<(String, Backbone, AdaptedParams)> {
    let path: &Path = &args.path;
    if args.base.backbone.is_some() {
        return Err(bad_input(format!(
            "{}: a checkpoint of the reference code has its backbone inside; leave --backbone out",
            path.display()
        )));
    }
    let mut pretrained = PretrainedSource::open(path)?;
    if let Some(size) = args.base.image_size {
        pretrained = pretrained.with_image_size(size)?;
    }
    let Some(checkpoint): Option<&Checkpoint> = pretrained.checkpoint.as_ref() else {
        return Err(bad_input(format!(
            "{} describes a model and holds no adapter; a LoRA folder of PEFT's can be imported, or \
             a checkpoint of the reference code (.pth)",
            path.display()
        )));
    };
    let (backbone, tuned, report) =
        checkpoint.backbone_and_adapter(&pretrained.config, &Device::Cpu)?;
    let name = path.display().to_string();
    output::note(&format!("{name}: {}", report.summary()));
    Ok((name, backbone, tuned))
}
