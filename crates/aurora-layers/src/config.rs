//! BLIP configuration, its sizes under the names of Hugging Face's `config.json`.

use crate::{Error, Result};

/// Configuration of the vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Side of the square image, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width of the tower.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the hidden layer of the MLP.
    pub intermediate_size: usize,
    /// Epsilon of every layer norm (1e-6 in the original BLIP, 1e-5 in Hugging Face's configurations).
    pub layer_norm_eps: f64,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of tokens: patches and `[CLS]`.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }
}

/// Configuration of the text transformer with cross-attention.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Vocabulary size in word pieces, `[DEC]` and `[ENC]` included.
    pub vocab_size: usize,
    /// Width of the tower.
    pub hidden_size: usize,
    /// Number of layers; each has self-attention, cross-attention and an MLP.
    pub num_hidden_layers: usize,
    /// Attention heads; divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the hidden layer of the MLP.
    pub intermediate_size: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every layer norm (1e-12 in BERT).
    pub layer_norm_eps: f64,
    /// `[ENC]`: first token of a text in the fusion encoder.
    pub enc_token_id: u32,
}

/// Special tokens of a text decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderTokens {
    /// First token of every text: `[DEC]`.
    pub start_token_id: u32,
    /// End of a text: `[SEP]`.
    pub end_token_id: u32,
    /// Padding: `[PAD]`.
    pub pad_token_id: u32,
}

/// Architecture of a BLIP model: the parts beside its vision tower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Architecture {
    /// Text encoder with cross-attention to images, two projections, a matching head.
    #[default]
    Retrieval,
    /// Text encoder with cross-attention to images, and a decoder with cross-attention to the question's states.
    QuestionAnswering(DecoderTokens),
    /// Decoder with cross-attention to images.
    Captioning(DecoderTokens),
}

impl Architecture {
    /// True if there is a text encoder.
    pub fn encodes(&self) -> bool {
        !matches!(self, Self::Captioning(_))
    }

    /// Tokens of the text decoder, if there is one.
    pub fn decodes(&self) -> Option<&DecoderTokens> {
        match self {
            Self::Retrieval => None,
            Self::QuestionAnswering(tokens) | Self::Captioning(tokens) => Some(tokens),
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Retrieval => "retrieval",
            Self::QuestionAnswering(_) => "question answering",
            Self::Captioning(_) => "captioning",
        })
    }
}

/// Configuration of a BLIP model: a vision tower, and the text towers and heads of its architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipConfig {
    /// Vision tower.
    pub vision: VisionConfig,
    /// Text towers: encoder and decoder share one configuration.
    pub text: TextConfig,
    /// Width of the joint embedding space of the contrastive objective.
    pub projection_dim: usize,
    /// Architecture.
    pub architecture: Architecture,
}

/// Upper bounds far above any model: sizes can be multiplied and layers listed, whatever a file says.
const LARGEST: usize = 1 << 20;
const MOST_LAYERS: usize = 1024;

impl BlipConfig {
    /// Checks that the sizes make a model; the error names the field that does not.
    pub fn check(&self) -> Result<()> {
        let (vision, text) = (&self.vision, &self.text);
        for (field, value) in [
            ("vision.image_size", vision.image_size),
            ("vision.patch_size", vision.patch_size),
            ("vision.hidden_size", vision.hidden_size),
            ("vision.num_attention_heads", vision.num_attention_heads),
            ("vision.intermediate_size", vision.intermediate_size),
            ("text.vocab_size", text.vocab_size),
            ("text.hidden_size", text.hidden_size),
            ("text.num_attention_heads", text.num_attention_heads),
            ("text.intermediate_size", text.intermediate_size),
            ("text.max_position_embeddings", text.max_position_embeddings),
            ("projection_dim", self.projection_dim),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "must be at least 1"));
            }
            if value > LARGEST {
                return Err(Error::config(field, value, format!("must be at most {LARGEST}")));
            }
        }
        for (field, value) in [
            ("vision.num_hidden_layers", vision.num_hidden_layers),
            ("text.num_hidden_layers", text.num_hidden_layers),
        ] {
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
        divides(
            "vision.num_attention_heads",
            vision.num_attention_heads,
            vision.hidden_size,
            "vision.hidden_size",
        )?;
        divides(
            "text.num_attention_heads",
            text.num_attention_heads,
            text.hidden_size,
            "text.hidden_size",
        )?;
        for (field, eps) in [
            ("vision.layer_norm_eps", vision.layer_norm_eps),
            ("text.layer_norm_eps", text.layer_norm_eps),
        ] {
            if !(eps > 0.0 && eps < 1.0) {
                return Err(Error::config(field, eps, "must lie between 0 and 1"));
            }
        }
        let decoder = self.architecture.decodes().map(|tokens| {
            [
                ("architecture.start_token_id", tokens.start_token_id),
                ("architecture.end_token_id", tokens.end_token_id),
                ("architecture.pad_token_id", tokens.pad_token_id),
            ]
        });
        let tokens = [("text.enc_token_id", text.enc_token_id)];
        for (field, token) in tokens.into_iter().chain(decoder.into_iter().flatten()) {
            if token as usize >= text.vocab_size {
                let reason = format!("must be below text.vocab_size = {}", text.vocab_size);
                return Err(Error::config(field, token, reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Model small enough for a unit test, its two towers of different widths.
    pub(crate) fn tiny() -> BlipConfig {
        BlipConfig {
            vision: VisionConfig {
                image_size: 16,
                patch_size: 8,
                hidden_size: 24,
                num_hidden_layers: 2,
                num_attention_heads: 3,
                intermediate_size: 96,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                vocab_size: 20,
                hidden_size: 16,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                intermediate_size: 64,
                max_position_embeddings: 12,
                layer_norm_eps: 1e-12,
                enc_token_id: 19,
            },
            projection_dim: 8,
            architecture: Architecture::Retrieval,
        }
    }

    /// [`tiny`] with a decoder.
    pub(crate) fn tiny_with(
        architecture: impl FnOnce(DecoderTokens) -> Architecture,
    ) -> BlipConfig {
        let tokens = DecoderTokens { start_token_id: 18, end_token_id: 3, pad_token_id: 0 };
        BlipConfig { architecture: architecture(tokens), ..tiny() }
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_named() {
        let mut config = tiny();
        config.text.num_attention_heads = 3;
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("text.num_attention_heads = 3"), "{message}");
        assert!(message.contains("text.hidden_size = 16"), "{message}");
    }

    #[test]
    fn a_decoders_tokens_are_in_the_vocabulary() {
        let mut tokens = DecoderTokens { start_token_id: 1, end_token_id: 2, pad_token_id: 20 };
        let config =
            |tokens| BlipConfig { architecture: Architecture::Captioning(tokens), ..tiny() };
        let message = config(tokens).check().unwrap_err().to_string();
        assert!(message.contains("architecture.pad_token_id = 20"), "{message}");
        tokens.pad_token_id = 0;
        config(tokens).check().unwrap();
    }
}
