//! The sizes of a BLIP model, as they stand in a backbone folder's `config.json`.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Sizes of the vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Side of the square picture, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width of the tower.
    pub hidden_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; divide `hidden_size`.
    pub heads: usize,
    /// Width of the hidden layer of the MLP.
    pub mlp_size: usize,
    /// Epsilon of every layer norm (1e-6 in the original BLIP, 1e-5 in Hugging Face's configurations).
    pub layer_norm_eps: f64,
}

impl VisionConfig {
    /// Number of patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of tokens: the patches and `[CLS]`.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }
}

/// Sizes of the text transformer with cross-attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Word pieces, `[DEC]` and `[ENC]` included.
    pub vocab_size: usize,
    /// Width of the tower.
    pub hidden_size: usize,
    /// Number of layers; each has self-attention, cross-attention and an MLP.
    pub layers: usize,
    /// Attention heads; divide `hidden_size`.
    pub heads: usize,
    /// Width of the hidden layer of the MLP.
    pub mlp_size: usize,
    /// Longest text, in tokens.
    pub max_positions: usize,
    /// Epsilon of every layer norm (1e-12 in BERT).
    pub layer_norm_eps: f64,
    /// The token that stands first in a text that is fused with a picture.
    pub enc_token_id: u32,
}

/// A BLIP model for retrieval: two towers, two projections, a matching head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlipConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text tower.
    pub text: TextConfig,
    /// Width of the common space of the contrastive objective.
    pub projection_size: usize,
}

/// Bounds far above any model, so that sizes can be multiplied and layers listed whatever a file says.
const LARGEST: usize = 1 << 20;
const MOST_LAYERS: usize = 1024;

impl BlipConfig {
    /// Read from JSON text and check it.
    pub fn from_json(text: &str, path: &std::path::Path) -> Result<Self> {
        let config: Self = serde_json::from_str(text).map_err(|error| Error::Format {
            path: path.into(),
            reason: format!("not a model configuration: {error}"),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Whether the sizes can make a model; the error names the field that cannot be.
    pub fn check(&self) -> Result<()> {
        let (vision, text) = (&self.vision, &self.text);
        for (field, value) in [
            ("vision.image_size", vision.image_size),
            ("vision.patch_size", vision.patch_size),
            ("vision.hidden_size", vision.hidden_size),
            ("vision.heads", vision.heads),
            ("vision.mlp_size", vision.mlp_size),
            ("text.vocab_size", text.vocab_size),
            ("text.hidden_size", text.hidden_size),
            ("text.heads", text.heads),
            ("text.mlp_size", text.mlp_size),
            ("text.max_positions", text.max_positions),
            ("projection_size", self.projection_size),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
            if value > LARGEST {
                return Err(Error::config(field, value, format!("must be at most {LARGEST}")));
            }
        }
        for (field, value) in [("vision.layers", vision.layers), ("text.layers", text.layers)] {
            if value > MOST_LAYERS {
                return Err(Error::config(field, value, format!("must be at most {MOST_LAYERS}")));
            }
        }
        let divides = |field: &str, part: usize, whole: usize, of: &str| {
            if whole.is_multiple_of(part) {
                return Ok(());
            }
            Err(Error::config(field, part, format!("must divide {of} = {whole}")))
        };
        divides("vision.patch_size", vision.patch_size, vision.image_size, "vision.image_size")?;
        divides("vision.heads", vision.heads, vision.hidden_size, "vision.hidden_size")?;
        divides("text.heads", text.heads, text.hidden_size, "text.hidden_size")?;
        for (field, eps) in [
            ("vision.layer_norm_eps", vision.layer_norm_eps),
            ("text.layer_norm_eps", text.layer_norm_eps),
        ] {
            if !(eps > 0.0 && eps < 1.0) {
                return Err(Error::config(field, eps, "must lie between 0 and 1"));
            }
        }
        if text.enc_token_id as usize >= text.vocab_size {
            return Err(Error::config(
                "text.enc_token_id",
                text.enc_token_id,
                format!("must be below text.vocab_size = {}", text.vocab_size),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A model small enough for a unit test, its two towers of different widths.
    pub(crate) fn tiny() -> BlipConfig {
        BlipConfig {
            vision: VisionConfig {
                image_size: 16,
                patch_size: 8,
                hidden_size: 24,
                layers: 2,
                heads: 3,
                mlp_size: 96,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                vocab_size: 20,
                hidden_size: 16,
                layers: 2,
                heads: 2,
                mlp_size: 64,
                max_positions: 12,
                layer_norm_eps: 1e-12,
                enc_token_id: 19,
            },
            projection_size: 8,
        }
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_named() {
        let mut config = tiny();
        config.text.heads = 3;
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("text.heads = 3"), "{message}");
        assert!(message.contains("text.hidden_size = 16"), "{message}");
    }

    #[test]
    fn survives_json() {
        let text = serde_json::to_string(&tiny()).unwrap();
        assert_eq!(BlipConfig::from_json(&text, "x".as_ref()).unwrap(), tiny());
        let wrong = text.replace("heads", "haeds");
        assert!(
            BlipConfig::from_json(&wrong, "c.json".as_ref())
                .unwrap_err()
                .to_string()
                .contains("c.json")
        );
    }
}
