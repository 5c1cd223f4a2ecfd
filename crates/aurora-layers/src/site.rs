//! Sites: the frozen linear layers of a backbone that can take a weight delta.

use crate::{Architecture, BlipConfig};
use serde::{Deserialize, Serialize};

/// Tower of the model that a site belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tower {
    /// Vision transformer.
    Vision,
    /// Text encoder.
    Text,
    /// Text decoder.
    Decoder,
}

impl Tower {
    /// All towers.
    pub const ALL: [Self; 3] = [Self::Vision, Self::Text, Self::Decoder];

    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Text => "text",
            Self::Decoder => "decoder",
        }
    }

    /// Prefix of the names of the tower's tensors.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Vision => "visual_encoder",
            Self::Text => "text_encoder",
            Self::Decoder => "text_decoder.bert",
        }
    }
}

/// Text towers of a model, each with the width of the states its cross-attention reads: image tokens, or the question's
/// states for the decoder of a question answering model.
pub(crate) fn text_towers(config: &BlipConfig) -> Vec<(Tower, usize)> {
    let (vision, text) = (config.vision.hidden_size, config.text.hidden_size);
    match config.architecture {
        Architecture::Retrieval => vec![(Tower::Text, vision)],
        Architecture::QuestionAnswering(_) => vec![(Tower::Text, vision), (Tower::Decoder, text)],
        Architecture::Captioning(_) => vec![(Tower::Decoder, vision)],
    }
}

/// Path of a layer of a text tower.
pub(crate) fn text_layer(tower: Tower, layer: usize) -> String {
    format!("{}.encoder.layer.{layer}", tower.prefix())
}

/// Role of a site in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Query, key and value in one linear layer, three slices stacked along the output.
    Qkv,
    /// Output projection of vision self-attention.
    AttnOut,
    /// First linear layer of an MLP, its slices stacked along the output.
    Fc1,
    /// Second linear layer of an MLP, its slices side by side along the input.
    Fc2,
    /// Query projection of text attention.
    Query,
    /// Key projection of text attention.
    Key,
    /// Value projection of text attention.
    Value,
}

/// Site: a frozen linear layer `y = x W^T + b` that can take a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Path of the layer, without `.weight`.
    pub path: String,
    /// Tower.
    pub tower: Tower,
    /// Index of its block or layer, from 0.
    pub layer: usize,
    /// Role in the block.
    pub role: Role,
    /// Width of x.
    pub in_dim: usize,
    /// Width of y.
    pub out_dim: usize,
    /// Number of equal slices of the weight: along the input for [`Role::Fc2`], else along the output.
    pub slices: usize,
}

impl Site {
    /// Input width of one slice.
    pub fn slice_in(&self) -> usize {
        if self.role == Role::Fc2 { self.in_dim / self.slices } else { self.in_dim }
    }

    /// Path of its block or layer.
    pub fn block(&self) -> &str {
        let index = format!(".{}.", self.layer);
        self.path.find(&index).map_or(&self.path, |at| &self.path[..at + index.len() - 1])
    }

    /// Output width of one slice.
    pub fn slice_out(&self) -> usize {
        if self.role == Role::Fc2 { self.out_dim } else { self.out_dim / self.slices }
    }
}

/// All sites of a BLIP model, in the order of the forward pass: per vision block qkv, projection and both MLP layers;
/// per layer of each text tower query, key and value of self-attention and of cross-attention.
///
/// An MLP whose width is no multiple of the tower's is one slice.
pub fn sites(config: &BlipConfig) -> Vec<Site> {
    let mut sites = Vec::new();
    let (width, mlp) = (config.vision.hidden_size, config.vision.intermediate_size);
    let mlp_slices = if mlp.is_multiple_of(width) { mlp / width } else { 1 };
    for layer in 0..config.vision.num_hidden_layers {
        let mut add = |name: &str, role, in_dim, out_dim, slices| {
            let path = format!("visual_encoder.blocks.{layer}.{name}");
            sites.push(Site { path, tower: Tower::Vision, layer, role, in_dim, out_dim, slices });
        };
        add("attn.qkv", Role::Qkv, width, 3 * width, 3);
        add("attn.proj", Role::AttnOut, width, width, 1);
        add("mlp.fc1", Role::Fc1, width, mlp, mlp_slices);
        add("mlp.fc2", Role::Fc2, mlp, width, mlp_slices);
    }
    let text = config.text.hidden_size;
    let layers =
        |(tower, seen)| (0..config.text.num_hidden_layers).map(move |layer| (tower, seen, layer));
    for (tower, seen, layer) in text_towers(config).into_iter().flat_map(layers) {
        for (block, context) in [("attention", text), ("crossattention", seen)] {
            for (name, role, in_dim) in [
                ("query", Role::Query, text),
                ("key", Role::Key, context),
                ("value", Role::Value, context),
            ] {
                let path = format!("{}.{block}.self.{name}", text_layer(tower, layer));
                sites.push(Site { path, tower, layer, role, in_dim, out_dim: text, slices: 1 });
            }
        }
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{tiny, tiny_with};

    #[test]
    fn blip_base_has_216_slices() {
        let mut config = tiny();
        config.vision.num_hidden_layers = 12;
        config.text.num_hidden_layers = 12;
        let slices =
            |config: &BlipConfig| -> usize { sites(config).iter().map(|site| site.slices).sum() };
        assert_eq!(slices(&config), 216);
        let Architecture::QuestionAnswering(tokens) =
            tiny_with(Architecture::QuestionAnswering).architecture
        else {
            panic!("made so")
        };
        config.architecture = Architecture::QuestionAnswering(tokens);
        assert_eq!(slices(&config), 288);
        config.architecture = Architecture::Captioning(tokens);
        assert_eq!(slices(&config), 216);
    }

    #[test]
    fn slices_tile_the_map() {
        for site in sites(&tiny()) {
            assert_eq!(
                site.slices * site.slice_in() * site.slice_out(),
                site.in_dim * site.out_dim,
                "{}",
                site.path
            );
        }
    }
}
