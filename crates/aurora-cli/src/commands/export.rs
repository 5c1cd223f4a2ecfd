//! `aurora export`: writes an adapter in another library's format.

use anyhow::Result;
use aurora_layers::peft::export_lora;
use aurora_layers::{AdapterConfig, AdapterFolder, load_adapter};
use candle_core::Device;

use super::shared::{check_empty, write_whole};
use crate::args::{ExportArgs, ExportFormat};
use crate::{model, output};

/// Runs `aurora export`.
///
/// # Errors
/// An adapter that does not fit its backbone or that the format cannot hold, a folder that is not empty.
pub fn run(args: &ExportArgs) -> Result<()> {
    check_empty(&args.out)?;
    let about = AdapterFolder::read(&args.adapter)?;
    let (name, backbone) = model::open_backbone(&args.base, &about.base_model_name_or_path)?;
    let tuned = load_adapter(&args.adapter, &backbone, &Device::Cpu)?;
    let ExportFormat::PeftLora = args.format;
    export_lora(&args.out, &tuned, &backbone.config, &name, args.drop_gates)?;
    let dropped = args.drop_gates
        && (about.adapter_config.gated_query || about.adapter_config.context_slots > 0);
    write_whole(&args.out.join("README.md"), &lora_card(&about.adapter_config, &name, dropped))?;
    output::line(&format!("{}: a LoRA of PEFT for {name}", args.out.display()));
    if dropped {
        output::line("gates and context were left out: where they had opened, outputs differ");
    }
    Ok(())
}

/// Model card (`README.md`) of a LoRA folder.
fn lora_card(adapter_config: &AdapterConfig, base: &str, dropped: bool) -> String {
    let kind = adapter_config.kind.name();
    let beside = match dropped {
        true => {
            "Gates and context enhancement, which LoRA has no place for, were left out: where they \
             had opened, outputs differ from the adapter's."
        }
        false => "Nothing was left out: it adds what the adapter adds.",
    };
    format!(
        "---\nlibrary_name: peft\ntags:\n- lora\n- aurora\n---\n# LoRA of an Aurora adapter\n\n\
         An adapter of kind {kind} for the backbone `{base}`, written as a LoRA. Every weight delta \
         of that kind is a product of two factors, so nothing was rounded; `lora_alpha` equals `r`, \
         which makes the scale 1. {beside}\n\n\
         ```python\nfrom peft import PeftModel\nfrom transformers import BlipForImageTextRetrieval\n\n\
         backbone = BlipForImageTextRetrieval.from_pretrained(\"PATH OF THE BACKBONE\")\n\
         model = PeftModel.from_pretrained(backbone, \"PATH OF THIS FOLDER\")\n```\n\n\
         The backbone has to be the Hugging Face format of the same weights.\n"
    )
}
