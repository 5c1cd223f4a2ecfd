//! Tensor names of BLIP: the original code's, which are ours too, and Hugging Face's.
//!
//! Only the vision tower differs; text towers, projections and the matching head have the same names.

/// Name parts of the vision tower: (original, Hugging Face).
const VISION: &[(&str, &str)] = &[
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj", "vision_model.embeddings.patch_embedding"),
    ("visual_encoder.norm", "vision_model.post_layernorm"),
];

/// Name parts of a vision block: (original, Hugging Face).
const BLOCK: &[(&str, &str)] = &[
    ("norm1", "layer_norm1"),
    ("norm2", "layer_norm2"),
    ("attn.qkv", "self_attn.qkv"),
    ("attn.proj", "self_attn.projection"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
];

const BLOCKS: (&str, &str) = ("visual_encoder.blocks.", "vision_model.encoder.layers.");

/// Original name of a Hugging Face name; names outside the vision tower are equal.
pub fn to_original(name: &str) -> String {
    translate(name, |pair| (pair.1, pair.0))
}

/// Hugging Face name of an original name.
pub fn to_hugging_face(name: &str) -> String {
    translate(name, |pair| (pair.0, pair.1))
}

type Pair = (&'static str, &'static str);

fn translate(name: &str, order: impl Fn(Pair) -> Pair) -> String {
    let swap = |name: &str, pairs: &[Pair]| {
        pairs.iter().map(|&pair| order(pair)).find_map(|(from, to)| {
            let rest = name.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
        })
    };
    let (from, to) = order(BLOCKS);
    let block = name.strip_prefix(from).and_then(|rest| {
        let (number, part) = rest.split_once('.')?;
        Some(format!("{to}{number}.{}", swap(part, BLOCK)?))
    });
    block.or_else(|| swap(name, VISION)).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (original, hugging_face) in [
            ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
            (
                "visual_encoder.patch_embed.proj.bias",
                "vision_model.embeddings.patch_embedding.bias",
            ),
            (
                "visual_encoder.blocks.11.attn.proj.weight",
                "vision_model.encoder.layers.11.self_attn.projection.weight",
            ),
            ("visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
            (
                "text_encoder.encoder.layer.0.output.dense.bias",
                "text_encoder.encoder.layer.0.output.dense.bias",
            ),
            ("visual_encoder.blocks.1.strange", "visual_encoder.blocks.1.strange"),
        ] {
            assert_eq!(to_hugging_face(original), hugging_face);
            assert_eq!(to_original(hugging_face), original);
        }
    }
}
