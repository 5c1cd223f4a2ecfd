//! `aurora merge`: merges an adapter into the weights of its backbone.

use std::path::Path;

use anyhow::{Context, Result};
use aurora_layers::merge::{RESIDUAL_ADAPTER, merge};
use aurora_layers::{AdapterFolder, load_adapter};
use aurora_train::pipeline::tokenizer_beside;
use candle_core::{DType, Device};

use super::shared::{check_empty, write_whole};
use crate::args::{BackboneFormat, MergeArgs};
use crate::{embedded_backbone, model, output};

/// Runs `aurora merge`.
///
/// # Errors
/// An adapter that does not fit its backbone or is no weight delta, a folder that is not empty.
pub fn run(args: &MergeArgs) -> Result<()> {
    let out = args.out.as_path();
    check_empty(out)?;
    let about = AdapterFolder::read(&args.adapter)?;
    let (name, backbone) = model::open_backbone(&args.base, &about.base_model_name_or_path)?;
    let tuned = load_adapter(&args.adapter, &backbone, &Device::Cpu)?;
    let merged = merge(&backbone, &tuned)?;
    let called = out.display().to_string();
    match args.format {
        BackboneFormat::Aurora => merged.write(out, DType::F32, &called)?,
        BackboneFormat::Transformers => merged.write_hugging_face(out, &called)?,
    }
    copy_vocabulary(&name, out)?;
    let replaced = merged.replaced().count();
    output::line(&format!(
        "{called}: the backbone {name} with the adapter in {replaced} of its {} tensors",
        merged.backbone.tensors.len()
    ));
    if merged.has_residual() {
        output::line(&format!(
            "gates and context are no weights: {} has them, and is to be loaded with it",
            out.join(RESIDUAL_ADAPTER).display()
        ));
    }
    Ok(())
}

/// Copies the backbone's vocabulary, if it has one beside it.
fn copy_vocabulary(name: &str, out: &Path) -> Result<()> {
    if name == embedded_backbone::NAME {
        return write_whole(&out.join("vocab.txt"), embedded_backbone::VOCABULARY);
    }
    let Ok(from) = tokenizer_beside(Path::new(name)) else {
        output::note(&format!("{name} has no vocabulary beside it to copy"));
        return Ok(());
    };
    let text = std::fs::read_to_string(&from)
        .with_context(|| format!("cannot read {}", from.display()))?;
    write_whole(&out.join(from.file_name().unwrap_or_default()), &text)
}
