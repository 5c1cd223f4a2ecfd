//! Embedded backbone: a small BLIP pretrained on openclipart drawings, so that the first tuning needs no download.
//! `assets/nano/README.md` says how it was made.

use std::path::Path;

use aurora_layers::Backbone;
use candle_core::Device;

/// Name of the embedded backbone in commands and configurations.
pub const NAME: &str = "nano";

/// Its `config.json`.
pub const CONFIG: &str = include_str!("../assets/nano/config.json");

/// Its `model.safetensors`.
pub const MODEL: &[u8] = include_bytes!("../assets/nano/model.safetensors");

/// Its `vocab.txt`, one WordPiece a line.
pub const VOCABULARY: &str = include_str!("../assets/nano/vocab.txt");

/// Loads the embedded backbone onto a device.
///
/// # Errors
/// None in a sound build; a test loads it.
pub fn load(device: &Device) -> aurora_layers::Result<Backbone> {
    let path = Path::new(NAME).join("model.safetensors");
    Backbone::from_bytes(CONFIG, MODEL, &path, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_backbone_is_whole() {
        let backbone = load(&Device::Cpu).unwrap();
        assert_eq!(backbone.config.text.vocab_size, VOCABULARY.lines().count());
        assert!(backbone.model().is_ok());
        // Size budget in the repository: 12 MB.
        assert!(MODEL.len() <= 12_000_000);
    }
}
