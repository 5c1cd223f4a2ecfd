//! `config.json` of a BLIP folder in Hugging Face's layout: read and written.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Architecture, BlipConfig, DecoderTokens, Error, Result, TextConfig, VisionConfig};

/// Keys that are read. Absent keys have the defaults of transformers; keys about training and generation are ignored.
#[derive(Debug, Deserialize)]
struct Folder {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default = "projection")]
    image_text_hidden_size: usize,
    #[serde(default)]
    vision_config: Option<Vision>,
    #[serde(default)]
    text_config: Option<Text>,
}

/// Error for JSON that is no BLIP configuration.
const NOT_BLIP: &str =
    "not a BLIP configuration: it has none of model_type \"blip\", vision_config and text_config";

impl Folder {
    /// True if nothing says that this is a BLIP model.
    fn is_nothing(&self) -> bool {
        self.model_type.is_none() && self.vision_config.is_none() && self.text_config.is_none()
    }
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
    /// Our own key: transformers has none, and takes the last token of the vocabulary.
    enc_token_id: Option<u32>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            vocab_size: 30_524,
            hidden_size: 768,
            encoder_hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            // The default of transformers, not the 12 that every published checkpoint states.
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-12,
            bos_token_id: 30_522,
            sep_token_id: 102,
            pad_token_id: 0,
            enc_token_id: None,
        }
    }
}

/// Model classes of transformers that can be read, as named in `architectures`.
const RETRIEVAL: &str = "BlipForImageTextRetrieval";
const QUESTION_ANSWERING: &str = "BlipForQuestionAnswering";
const CAPTIONING: &str = "BlipForConditionalGeneration";

/// Model class of transformers for an architecture.
fn class_name(architecture: &Architecture) -> &'static str {
    match architecture {
        Architecture::Retrieval => RETRIEVAL,
        Architecture::QuestionAnswering(_) => QUESTION_ANSWERING,
        Architecture::Captioning(_) => CAPTIONING,
    }
}

fn architecture(folder: &Folder, text: &Text) -> std::result::Result<Architecture, String> {
    let Text { bos_token_id, sep_token_id, pad_token_id, .. } = *text;
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

/// Id of `[ENC]` in published vocabularies, whose last tokens are `[DEC]` and `[ENC]`, in this order.
fn last_token(vocab_size: usize) -> u32 {
    vocab_size.saturating_sub(1) as u32
}

impl BlipConfig {
    /// Parses and checks a `config.json` of transformers. Absent keys have the defaults of transformers.
    ///
    /// # Errors
    /// Text that is no BLIP configuration, an activation other than GELU, sizes that contradict each other.
    pub fn from_json(text: &str, path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Format { path: path.into(), reason };
        let mut folder: Folder = serde_json::from_str(text)
            .map_err(|error| wrong(format!("not a Hugging Face BLIP configuration: {error}")))?;
        if folder.is_nothing() {
            return Err(wrong(NOT_BLIP.to_owned()));
        }
        if let Some(kind) = folder.model_type.as_deref().filter(|kind| *kind != "blip") {
            return Err(wrong(format!("model_type is {kind:?}; only \"blip\" can be read")));
        }
        let text = folder.text_config.take().unwrap_or_default();
        let vision = folder.vision_config.take().unwrap_or_default();
        let architecture = architecture(&folder, &text).map_err(wrong)?;
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
        let config = Self {
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
                enc_token_id: text.enc_token_id.unwrap_or(last_token(text.vocab_size)),
            },
            projection_dim: folder.image_text_hidden_size,
            architecture,
        };
        config.check()?;
        Ok(config)
    }

    /// `config.json` that transformers and [`Self::from_json`] read.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (vision, text) = (&self.vision, &self.text);
        let mut text_config = json!({
            // [DEC], which is the token before [ENC].
            "bos_token_id": text.enc_token_id.saturating_sub(1),
            "encoder_hidden_size": vision.hidden_size,
            "hidden_act": "gelu",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "is_decoder": true,
            "layer_norm_eps": text.layer_norm_eps,
            "max_position_embeddings": text.max_position_embeddings,
            "model_type": "blip_text_model",
            "num_attention_heads": text.num_attention_heads,
            "num_hidden_layers": text.num_hidden_layers,
            "vocab_size": text.vocab_size,
        });
        if text.enc_token_id != last_token(text.vocab_size) {
            text_config["enc_token_id"] = text.enc_token_id.into();
        }
        if let Some(tokens) = self.architecture.decodes() {
            text_config["bos_token_id"] = tokens.start_token_id.into();
            text_config["eos_token_id"] = tokens.end_token_id.into();
            text_config["sep_token_id"] = tokens.end_token_id.into();
            text_config["pad_token_id"] = tokens.pad_token_id.into();
        }
        json!({
            "architectures": [class_name(&self.architecture)],
            "image_text_hidden_size": self.projection_dim,
            "model_type": "blip",
            "text_config": text_config,
            // The language modeling head is tied to the embedding table; it is not stored twice.
            "tie_word_embeddings": true,
            "vision_config": {
                "hidden_act": "gelu",
                "hidden_size": vision.hidden_size,
                "image_size": vision.image_size,
                "intermediate_size": vision.intermediate_size,
                "layer_norm_eps": vision.layer_norm_eps,
                "model_type": "blip_vision_model",
                "num_attention_heads": vision.num_attention_heads,
                "num_hidden_layers": vision.num_hidden_layers,
                "patch_size": vision.patch_size,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{tiny, tiny_with};

    #[test]
    fn survives_json() {
        let mut other_token = tiny();
        other_token.text.enc_token_id = 2;
        for config in [
            tiny(),
            tiny_with(Architecture::QuestionAnswering),
            tiny_with(Architecture::Captioning),
            other_token,
        ] {
            let text = config.to_json().to_string();
            assert_eq!(BlipConfig::from_json(&text, "x".as_ref()).unwrap(), config);
        }
        let text = tiny().to_json().to_string();
        assert!(!text.contains("enc_token_id"), "transformers' own keys are enough");
        let wrong = text.replace("vision_config", "vision").replace("text_config", "text");
        let wrong = wrong.replace("model_type", "kind");
        let message = BlipConfig::from_json(&wrong, "c.json".as_ref()).unwrap_err().to_string();
        assert!(message.contains("c.json") && message.contains("vision_config"), "{message}");
    }
}
