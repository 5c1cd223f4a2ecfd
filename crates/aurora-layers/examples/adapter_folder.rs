//! Adapter folder: save an adapter, load it again, and see it refuse another backbone.

#![allow(clippy::print_stdout)] // an example shows what it did

use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, BlipConfig, TextConfig,
    Variant, VisionConfig, load_adapter, save_adapter,
};
use candle_core::Device;

fn main() -> aurora_layers::Result<()> {
    let device = Device::Cpu;
    let config = BlipConfig {
        vision: VisionConfig {
            image_size: 96,
            patch_size: 16,
            hidden_size: 192,
            num_hidden_layers: 4,
            num_attention_heads: 3,
            intermediate_size: 768,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 3600,
            hidden_size: 192,
            num_hidden_layers: 4,
            num_attention_heads: 3,
            intermediate_size: 768,
            max_position_embeddings: 20,
            layer_norm_eps: 1e-12,
            enc_token_id: 3599,
        },
        projection_dim: 128,
        architecture: Architecture::Retrieval,
    };
    let backbone = Backbone::random(config.clone(), 1, &device)?;
    let tuned = AdaptedParams::init(
        AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 32),
        &backbone,
        1,
        &device,
    )?;
    let values: usize = tuned.tensors.values().map(|tensor| tensor.elem_count()).sum();
    println!(
        "backbone: {} values; adapter: {values} in {} tensors",
        backbone.parameters(),
        tuned.tensors.len()
    );

    let folder = std::env::temp_dir().join(format!("aurora-example-{}", std::process::id()));
    save_adapter(&folder, &tuned, &backbone, "random", "An example.")?;
    let back = load_adapter(&folder, &backbone, &device)?;
    println!("loaded {} tensors from {}", back.tensors.len(), folder.display());

    let other = Backbone::random(config, 2, &device)?;
    if let Err(error) = load_adapter(&folder, &other, &device) {
        println!("another backbone: {error}");
    }
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        println!("left behind: {error}");
    }
    Ok(())
}
