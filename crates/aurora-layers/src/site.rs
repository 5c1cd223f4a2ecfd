//! Sites: the frozen linear maps of a backbone that can take a weight delta.

use crate::BlipConfig;
use serde::{Deserialize, Serialize};

/// Which half of the model a site stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tower {
    /// The vision transformer.
    Vision,
    /// The text transformer.
    Text,
}

impl Tower {
    /// Every tower.
    pub const ALL: [Self; 2] = [Self::Vision, Self::Text];

    /// What the names of its tensors begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Vision => "visual_encoder",
            Self::Text => "text_encoder",
        }
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Text => "text",
        }
    }
}

/// What a site computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Query, key and value in one map, three slices stacked along the output.
    Qkv,
    /// The map after vision self-attention.
    Projection,
    /// First map of an MLP, its slices stacked along the output.
    Expand,
    /// Second map of an MLP, its slices laid side by side along the input.
    Contract,
    /// Query of text attention.
    Query,
    /// Key of text attention.
    Key,
    /// Value of text attention.
    Value,
}

/// One frozen linear map `y = x W^T + b` that can take a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Name of the map, without `.weight`.
    pub path: String,
    /// The tower it stands in.
    pub tower: Tower,
    /// Index of its block or layer.
    pub layer: usize,
    /// What it computes.
    pub role: Role,
    /// Width of x.
    pub in_dim: usize,
    /// Width of y.
    pub out_dim: usize,
    /// Number of equal slices the map is cut into: along the input for [`Role::Contract`], else along the output.
    pub slices: usize,
}

impl Site {
    /// Input width of one slice.
    pub fn slice_in(&self) -> usize {
        if self.role == Role::Contract { self.in_dim / self.slices } else { self.in_dim }
    }

    /// Path of the block or layer it stands in.
    pub fn block(&self) -> &str {
        let index = format!(".{}.", self.layer);
        self.path.find(&index).map_or(&self.path, |at| &self.path[..at + index.len() - 1])
    }

    /// Output width of one slice.
    pub fn slice_out(&self) -> usize {
        if self.role == Role::Contract { self.out_dim } else { self.out_dim / self.slices }
    }
}

/// Every site of a BLIP model, in the order of the forward pass: per vision block qkv, projection and both MLP maps;
/// per text layer query, key and value of self-attention and of cross-attention.
///
/// An MLP whose width is no multiple of the tower's is one slice.
pub fn sites(config: &BlipConfig) -> Vec<Site> {
    let mut sites = Vec::new();
    let (width, mlp) = (config.vision.hidden_size, config.vision.mlp_size);
    let mlp_slices = if mlp.is_multiple_of(width) { mlp / width } else { 1 };
    for layer in 0..config.vision.layers {
        let mut add = |name: &str, role, in_dim, out_dim, slices| {
            let path = format!("visual_encoder.blocks.{layer}.{name}");
            sites.push(Site { path, tower: Tower::Vision, layer, role, in_dim, out_dim, slices });
        };
        add("attn.qkv", Role::Qkv, width, 3 * width, 3);
        add("attn.proj", Role::Projection, width, width, 1);
        add("mlp.fc1", Role::Expand, width, mlp, mlp_slices);
        add("mlp.fc2", Role::Contract, mlp, width, mlp_slices);
    }
    let text = config.text.hidden_size;
    for layer in 0..config.text.layers {
        for (block, context) in [("attention", text), ("crossattention", width)] {
            for (name, role, in_dim) in [
                ("query", Role::Query, text),
                ("key", Role::Key, context),
                ("value", Role::Value, context),
            ] {
                let path = format!("text_encoder.encoder.layer.{layer}.{block}.self.{name}");
                sites.push(Site {
                    path,
                    tower: Tower::Text,
                    layer,
                    role,
                    in_dim,
                    out_dim: text,
                    slices: 1,
                });
            }
        }
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tiny;

    #[test]
    fn blip_base_has_216_slices() {
        let mut config = tiny();
        config.vision.layers = 12;
        config.text.layers = 12;
        assert_eq!(sites(&config).iter().map(|site| site.slices).sum::<usize>(), 216);
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
