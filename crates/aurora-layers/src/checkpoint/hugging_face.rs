//! The `config.json` of a Hugging Face BLIP folder.

use std::path::Path;

use serde::Deserialize;

use crate::{Architecture, BlipConfig, DecoderTokens, Error, Result, TextConfig, VisionConfig};

/// What is read of it. Absent keys have the values that transformers gives them; keys about training and generation
/// are many and are left alone.
#[derive(Debug, Deserialize)]
struct Folder {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default = "projection")]
    image_text_hidden_size: usize,
    #[serde(default)]
    vision_config: Vision,
    #[serde(default)]
    text_config: Text,
}

fn projection() -> usize {
    256
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Vision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-5,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Text {
    vocab_size: usize,
    hidden_size: usize,
    encoder_hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    bos_token_id: u32,
    sep_token_id: u32,
    pad_token_id: u32,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            vocab_size: 30_524,
            hidden_size: 768,
            encoder_hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            // Not the 12 of every published checkpoint: those say so themselves.
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-12,
            bos_token_id: 30_522,
            sep_token_id: 102,
            pad_token_id: 0,
        }
    }
}

/// The models of transformers that can be read, as they stand in `architectures`.
const RETRIEVAL: &str = "BlipForImageTextRetrieval";
const QUESTION_ANSWERING: &str = "BlipForQuestionAnswering";
const CAPTIONING: &str = "BlipForConditionalGeneration";

/// The model of transformers for this architecture.
pub(super) fn class_name(architecture: &Architecture) -> &'static str {
    match architecture {
        Architecture::Retrieval => RETRIEVAL,
        Architecture::QuestionAnswering(_) => QUESTION_ANSWERING,
        Architecture::Captioning(_) => CAPTIONING,
    }
}

fn architecture(folder: &Folder) -> std::result::Result<Architecture, String> {
    let Text { bos_token_id, sep_token_id, pad_token_id, .. } = folder.text_config;
    let tokens =
        DecoderTokens { start_token_id: bos_token_id, end_token_id: sep_token_id, pad_token_id };
    match folder.architectures.first().map(String::as_str) {
        None | Some(RETRIEVAL) => Ok(Architecture::Retrieval),
        Some(QUESTION_ANSWERING) => Ok(Architecture::QuestionAnswering(tokens)),
        Some(CAPTIONING) => Ok(Architecture::Captioning(tokens)),
        Some(other) => Err(format!(
            "architectures names {other:?}; {RETRIEVAL}, {QUESTION_ANSWERING} and {CAPTIONING} can be read"
        )),
    }
}

/// The sizes that a Hugging Face configuration describes.
///
/// # Errors
/// Text that is no BLIP configuration, an activation other than GELU, sizes that contradict each other.
pub fn config(text: &str, path: &Path) -> Result<BlipConfig> {
    let wrong = |reason: String| Error::Format { path: path.into(), reason };
    let folder: Folder = serde_json::from_str(text)
        .map_err(|error| wrong(format!("not a Hugging Face BLIP configuration: {error}")))?;
    if let Some(kind) = folder.model_type.as_deref().filter(|kind| *kind != "blip") {
        return Err(wrong(format!("model_type is {kind:?}; only \"blip\" can be read")));
    }
    let architecture = architecture(&folder).map_err(wrong)?;
    let Folder { vision_config: vision, text_config: text, image_text_hidden_size, .. } = folder;
    for (field, found) in [
        ("vision_config.hidden_act", &vision.hidden_act),
        ("text_config.hidden_act", &text.hidden_act),
    ] {
        if found != "gelu" {
            return Err(Error::config(field, found, "only \"gelu\" is known"));
        }
    }
    if text.encoder_hidden_size != vision.hidden_size {
        let reason = format!("must equal vision_config.hidden_size = {}", vision.hidden_size);
        return Err(Error::config(
            "text_config.encoder_hidden_size",
            text.encoder_hidden_size,
            reason,
        ));
    }
    let config = BlipConfig {
        vision: VisionConfig {
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            hidden_size: vision.hidden_size,
            num_hidden_layers: vision.num_hidden_layers,
            num_attention_heads: vision.num_attention_heads,
            intermediate_size: vision.intermediate_size,
            layer_norm_eps: vision.layer_norm_eps,
        },
        text: TextConfig {
            vocab_size: text.vocab_size,
            hidden_size: text.hidden_size,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            intermediate_size: text.intermediate_size,
            max_position_embeddings: text.max_position_embeddings,
            layer_norm_eps: text.layer_norm_eps,
            // [DEC] and [ENC] are added to the vocabulary in this order.
            enc_token_id: text.vocab_size.saturating_sub(1) as u32,
        },
        projection_dim: image_text_hidden_size,
        architecture,
    };
    config.check()?;
    Ok(config)
}
