//! Shapes, named after the sites of models: BLIP-base with images of 384 and 224 pixels (`vit_b16_384`,
//! `vit_b16_224`) and texts of 35 tokens, and the small model that the quickstart tunes (`nano`: 192 wide, three heads,
//! 37 tokens an image, 16 a text), of which a batch has 64 times as many.

use crate::cost::{AttentionShape, LinearShape};
use crate::measure::Setting;

/// Images of the small model for each of BLIP-base.
const NANO: usize = 64;

/// Linear layer of a model.
#[derive(Debug, Clone, Copy)]
pub struct LinearSite {
    /// Model and layer.
    pub name: &'static str,
    /// Tokens for each image of the setting.
    tokens: usize,
    input: usize,
    output: usize,
    rank: usize,
}

/// Linear layers of a vision block at both image sizes, of a text layer, and of the small model.
pub const LINEAR: [LinearSite; 10] = [
    base("vit_b16_384.qkv", 577, 768, 2304),
    base("vit_b16_384.fc2", 577, 3072, 768),
    base("vit_b16_224.fc1", 197, 768, 3072),
    base("vit_b16_224.proj", 197, 768, 768),
    base("text.query", 35, 768, 768),
    nano("nano.qkv", 37, 192, 576),
    nano("nano.proj", 37, 192, 192),
    nano("nano.fc1", 37, 192, 768),
    nano("nano.fc2", 37, 768, 192),
    nano("nano.text.query", 16, 192, 192),
];

const fn base(name: &'static str, tokens: usize, input: usize, output: usize) -> LinearSite {
    LinearSite { name, tokens, input, output, rank: 64 }
}

const fn nano(name: &'static str, tokens: usize, input: usize, output: usize) -> LinearSite {
    LinearSite { name, tokens: NANO * tokens, input, output, rank: 16 }
}

impl LinearSite {
    /// Shape in a batch.
    pub fn shape(self, setting: &Setting) -> LinearShape {
        LinearShape {
            tokens: (self.tokens * setting.images) as u64,
            input: self.input as u64,
            output: self.output as u64,
            rank: self.rank as u64,
        }
    }
}

/// Attention of a model.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSite {
    /// Model and attention.
    pub name: &'static str,
    /// Rows of keys for each image of the setting.
    rows: usize,
    /// Rows of queries for each row of keys.
    share: usize,
    q_len: usize,
    k_len: usize,
    /// Number of heads.
    pub heads: usize,
    width: usize,
}

/// Self-attention of both towers, texts over images (each with a right text and two hard negatives), re-ranking (a text
/// with 8 candidate images for each image of the setting), and the small model's.
pub const ATTENTION: [AttentionSite; 8] = [
    attention("vit_b16_384.self", 1, 1, 577, 577),
    attention("vit_b16_224.self", 1, 1, 197, 197),
    attention("text.self", 8, 1, 35, 35),
    attention("text.cross", 1, 3, 35, 577),
    attention("rerank", 8, 1, 35, 577),
    AttentionSite { heads: 3, width: 192, ..attention("nano.self", NANO, 1, 37, 37) },
    AttentionSite { heads: 3, width: 192, ..attention("nano.text.self", NANO, 1, 16, 16) },
    AttentionSite { heads: 3, width: 192, ..attention("nano.text.cross", NANO, 3, 16, 37) },
];

/// Absorbed cross-attention: candidates of a text of typical length, 13 tokens, 8 for each image of the setting.
pub const ABSORBED: AttentionSite = attention("rerank.13_tokens", 8, 1, 13, 577);

/// Texts that attend to an image: a right one and two hard negatives.
pub const TEXTS: usize = 3;
/// Tokens of each of these texts.
pub const TOKENS: usize = 13;
/// Padded length of these texts.
pub const PADDED: usize = 35;

const fn attention(
    name: &'static str,
    rows: usize,
    share: usize,
    q_len: usize,
    k_len: usize,
) -> AttentionSite {
    AttentionSite { name, rows, share, q_len, k_len, heads: 12, width: 768 }
}

impl AttentionSite {
    /// Shape in a batch.
    pub fn shape(self, setting: &Setting) -> AttentionShape {
        let keys = (self.rows * setting.images) as u64;
        AttentionShape {
            queries: keys * self.share as u64,
            keys,
            q_len: self.q_len as u64,
            k_len: self.k_len as u64,
            width: self.width as u64,
        }
    }
}

/// Rows of tokens of one width.
#[derive(Debug, Clone, Copy)]
pub struct RowsSite {
    /// Model and operation.
    pub name: &'static str,
    rows: usize,
    /// Elements of a row.
    pub width: usize,
}

/// Sites of layer normalization.
pub const NORM: [RowsSite; 4] = [
    RowsSite { name: "vit_b16_384.norm1", rows: 577, width: 768 },
    RowsSite { name: "text.norm", rows: 35, width: 768 },
    RowsSite { name: "nano.norm1", rows: NANO * 37, width: 192 },
    RowsSite { name: "nano.text.norm", rows: NANO * 16, width: 192 },
];

/// Sites of the activation between the linear layers of an MLP.
pub const GELU: [RowsSite; 2] = [
    RowsSite { name: "vit_b16_384.mlp", rows: 577, width: 3072 },
    RowsSite { name: "nano.mlp", rows: NANO * 37, width: 768 },
];

/// Sites of the contrastive loss: a row for each image, its candidates the batch and a queue. BLIP's batch is 16
/// images on one device.
pub const LOSS: [RowsSite; 2] = [
    RowsSite { name: "queue_57600", rows: 8, width: 57_600 + 16 },
    RowsSite { name: "nano.queue_2048", rows: NANO, width: 2048 + 128 },
];

/// Sites of the gated query: a fusion layer's output.
pub const GATE: [RowsSite; 2] = [
    RowsSite { name: "text.gate", rows: 3 * 35, width: 768 },
    RowsSite { name: "nano.text.gate", rows: NANO * 3 * 16, width: 192 },
];

impl RowsSite {
    /// Rows in a batch.
    pub fn rows(self, setting: &Setting) -> usize {
        self.rows * setting.images
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sites_have_names_of_their_own() {
        let names: Vec<&str> = LINEAR
            .iter()
            .map(|site| site.name)
            .chain(ATTENTION.iter().map(|site| site.name))
            .chain([ABSORBED.name])
            .chain([NORM.as_slice(), &GELU, &LOSS, &GATE].concat().iter().map(|site| site.name))
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    #[test]
    fn a_batch_multiplies_tokens_alone() {
        let [two, four] = [2, 4].map(|images| LINEAR[0].shape(&Setting { images }));
        assert_eq!(two, LinearShape { tokens: 1154, input: 768, output: 2304, rank: 64 });
        assert_eq!(four, LinearShape { tokens: 2308, ..two });
        let cross = ATTENTION[3].shape(&Setting { images: 2 });
        assert_eq!((cross.queries, cross.keys), (6, 2));
    }
}
