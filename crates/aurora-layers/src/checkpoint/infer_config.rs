//! Model configuration inferred from tensor shapes, for checkpoints without a configuration.

use super::{Checkpoint, POSITIONS};
use crate::{Architecture, BlipConfig, DecoderTokens, Error, Result, TextConfig, VisionConfig};

/// Width of an attention head in ViT-B, ViT-L and BERT.
pub const HEAD_WIDTH: usize = 64;

const PATCHES: &str = "visual_encoder.patch_embed.proj.weight";
const HEAD: &str = "vision_proj.weight";

/// `[SEP]` of BERT's vocabulary: end of a text.
const SEP: u32 = 102;

impl Checkpoint {
    /// Infers the configuration from the shapes of the tensors.
    ///
    /// The number of heads shows in no shape: every head is taken to be `head_width` wide, [`HEAD_WIDTH`] in all
    /// published models. Epsilons are those of the original code, 1e-6 and 1e-12. A checkpoint with the heads of
    /// retrieval is a retrieval model, one without them question answering, and one without a text encoder too
    /// captioning; decoders get BERT's tokens.
    ///
    /// # Errors
    /// A tensor that is missing or of a shape that no BLIP has, by name; a width that `head_width` does not divide. The
    /// sizes are not checked against each other: a decoder of another vocabulary has its `[SEP]` still to be set.
    pub fn infer_config(&self, head_width: usize) -> Result<BlipConfig> {
        let [vision_hidden_size, _, patch, _] = self.sizes(PATCHES, "(width, 3, patch, patch)")?;
        let [_, tokens, _] = self.sizes(POSITIONS, "(1, 1 + patches, width)")?;
        let grid = tokens.saturating_sub(1).isqrt();
        if grid == 0 || grid * grid + 1 != tokens {
            let reason = "is not one more than the patches of a square image";
            return Err(Error::config(&format!("{POSITIONS}: tokens"), tokens, reason));
        }
        let mlp = |name: &str| -> Result<usize> {
            let [mlp, _] = self.sizes(name, "(hidden, width)")?;
            Ok(mlp)
        };
        let has = |name: &str| self.tensor_info(name).is_some();
        let encodes = has("text_encoder.embeddings.word_embeddings.weight");
        let decodes = has("text_decoder.bert.embeddings.word_embeddings.weight");
        let retrieves = has(HEAD) || !decodes;
        let tower = if retrieves || encodes { "text_encoder" } else { "text_decoder.bert" };
        let embeddings = |of: &str| format!("{tower}.embeddings.{of}_embeddings.weight");
        let [vocabulary, text_width] = self.sizes(&embeddings("word"), "(words, width)")?;
        let [positions, _] = self.sizes(&embeddings("position"), "(positions, width)")?;
        let projection = if retrieves {
            let [projection, _] = self.sizes(HEAD, "(projection, width)")?;
            projection
        } else {
            256 // of no meaning without heads
        };
        // [DEC] and [ENC] are added to the vocabulary in this order.
        let token = |from_end: usize| {
            u32::try_from(vocabulary.saturating_sub(from_end)).unwrap_or(u32::MAX)
        };
        let tokens = DecoderTokens { start_token_id: token(2), end_token_id: SEP, pad_token_id: 0 };
        let architecture = match (retrieves, encodes) {
            (true, _) => Architecture::Retrieval,
            (false, true) => Architecture::QuestionAnswering(tokens),
            (false, false) => Architecture::Captioning(tokens),
        };
        Ok(BlipConfig {
            vision: VisionConfig {
                image_size: grid.saturating_mul(patch),
                patch_size: patch,
                hidden_size: vision_hidden_size,
                num_hidden_layers: self.layers("visual_encoder.blocks.", ".norm1.weight"),
                num_attention_heads: heads("vision", vision_hidden_size, head_width)?,
                intermediate_size: mlp("visual_encoder.blocks.0.mlp.fc1.weight")?,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                vocab_size: vocabulary,
                hidden_size: text_width,
                num_hidden_layers: self
                    .layers(&format!("{tower}.encoder.layer."), ".attention.self.query.weight"),
                num_attention_heads: heads("text", text_width, head_width)?,
                intermediate_size: mlp(&format!(
                    "{tower}.encoder.layer.0.intermediate.dense.weight"
                ))?,
                max_position_embeddings: positions,
                layer_norm_eps: 1e-12,
                enc_token_id: token(1),
            },
            projection_dim: projection,
            architecture,
        })
    }

    fn sizes<const N: usize>(&self, name: &str, meaning: &str) -> Result<[usize; N]> {
        let found = self.tensor_info(name).map(|(shape, _)| shape);
        if let Some(Ok(sizes)) = found.map(<[usize; N]>::try_from) {
            return Ok(sizes);
        }
        let found = found.map_or_else(|| "is missing".to_owned(), |shape| format!("is {shape:?}"));
        Err(Error::Mismatch {
            what: self.path.display().to_string(),
            report: format!(
                "{name} {found}; the sizes of the model are read from its shape, {meaning}"
            ),
        })
    }

    /// Number of consecutive layers, from the first.
    fn layers(&self, before: &str, after: &str) -> usize {
        (0..)
            .take_while(|layer| self.tensor_info(&format!("{before}{layer}{after}")).is_some())
            .count()
    }
}

fn heads(tower: &str, width: usize, head_width: usize) -> Result<usize> {
    if head_width == 0 || !width.is_multiple_of(head_width) {
        let reason = format!("must divide the width of the {tower} tower, {width}; give another");
        return Err(Error::config("head_width", head_width, reason));
    }
    Ok(width / head_width)
}
