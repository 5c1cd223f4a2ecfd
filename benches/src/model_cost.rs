//! Operation counts of whole passes of BLIP, by formula: those of their matmuls, two for each multiply-add. Norms,
//! activations and softmaxes are left out, so a time made of these operations and of the GEMM throughput of the device
//! is less than any program can take: a lower bound.

use aurora_layers::BlipConfig;

use crate::cost::LinearShape;

/// Formulation that a benchmark is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Our formulation: deltas of this rank beside or merged into the frozen weights, whichever is less; keys and
    /// values once an image, or absorbed projections where that is less; the tokens of the texts and no padding.
    Ours {
        /// Rank of a delta.
        rank: u64,
    },
    /// Plain formulation: every delta of this rank beside its weight; keys and values once for each text that attends
    /// to an image; texts padded to one length.
    Plain {
        /// Rank of a delta.
        rank: u64,
        /// Padded length of every text, in tokens.
        padded: u64,
    },
}

/// Linear layers of one tower over `tokens` tokens in every block: (inputs, outputs) of each.
#[derive(Debug, Clone, Copy)]
struct Maps<'a> {
    tokens: u64,
    blocks: u64,
    shapes: &'a [(u64, u64)],
}

impl Maps<'_> {
    fn products(self) -> u64 {
        self.sum(0, |shape| shape.product(4).operations)
    }

    /// Cost of deltas on all of them: merged once, or two thin matmuls a pass beside the frozen linear layer.
    fn deltas(self, side: Side, trained: bool) -> u64 {
        let rank = match side {
            Side::Ours { rank } | Side::Plain { rank, .. } => rank,
        };
        self.sum(rank, |shape| {
            let thin = shape.low_rank(4).operations;
            // Beside: forward; the gradient of x; those of both factors. Merged: the sum, and x A and dy B for the
            // factors' gradients, which the other way are there already.
            let beside = if trained { 3 * thin } else { thin };
            let formed = shape.reconstruct(4).operations + if trained { 2 * thin } else { 0 };
            match side {
                Side::Ours { .. } => beside.min(formed),
                Side::Plain { .. } => beside,
            }
        })
    }

    fn sum(self, rank: u64, cost: impl Fn(LinearShape) -> u64) -> u64 {
        let shape = |&(input, output)| LinearShape { tokens: self.tokens, input, output, rank };
        self.blocks * self.shapes.iter().map(|maps| cost(shape(maps))).sum::<u64>()
    }
}

/// Operation counts of a model for one side.
#[derive(Debug, Clone, Copy)]
pub struct ModelCost<'a> {
    /// Sizes of the model.
    pub config: &'a BlipConfig,
    /// Formulation.
    pub side: Side,
}

impl ModelCost<'_> {
    fn vision_hidden_size(&self) -> u64 {
        self.config.vision.hidden_size as u64
    }

    fn text_width(&self) -> u64 {
        self.config.text.hidden_size as u64
    }

    fn image_tokens(&self) -> u64 {
        self.config.vision.tokens() as u64
    }

    fn vision_maps(&self) -> [(u64, u64); 4] {
        let (width, mlp) = (self.vision_hidden_size(), self.config.vision.intermediate_size as u64);
        [(width, 3 * width), (width, width), (width, mlp), (mlp, width)]
    }

    /// Tokens that each of these texts counts for.
    fn lengths(&self, lengths: &[u64]) -> Vec<u64> {
        match self.side {
            Side::Ours { .. } => lengths.to_vec(),
            Side::Plain { padded, .. } => vec![padded; lengths.len()],
        }
    }

    /// Attention matmuls, `products` for each pair of query and key.
    fn vision_attention(&self, images: u64, products: u64) -> u64 {
        let (tokens, blocks) = (self.image_tokens(), self.config.vision.num_hidden_layers as u64);
        blocks * images * products * 2 * tokens * tokens * self.vision_hidden_size()
    }

    fn with_vision(&self, images: u64, count: impl Fn(Maps<'_>) -> u64) -> u64 {
        count(Maps {
            tokens: images * self.image_tokens(),
            blocks: self.config.vision.num_hidden_layers as u64,
            shapes: &self.vision_maps(),
        })
    }

    /// Vision tower, forward, without deltas.
    pub fn vision(&self, images: u64) -> u64 {
        let vision = &self.config.vision;
        let patch = 3 * (vision.patch_size * vision.patch_size) as u64;
        let patches = images * (self.image_tokens() - 1);
        2 * patches * patch * self.vision_hidden_size()
            + self.with_vision(images, |maps| maps.products())
            + self.vision_attention(images, 2)
    }

    /// Vision tower with every site adapted, forward and backward: for a frozen linear layer the gradient of x alone,
    /// but for the first, whose x nothing is trained of.
    pub fn vision_trained(&self, images: u64) -> u64 {
        let width = self.vision_hidden_size();
        let first = if self.config.vision.num_hidden_layers == 0 { 0 } else { 3 * width * width };
        self.vision(images) + self.with_vision(images, |maps| maps.products())
            - 2 * images * self.image_tokens() * first
            + self.vision_attention(images, 5)
            + self.with_vision(images, |maps| maps.deltas(self.side, true))
    }

    /// Vision tower with every site adapted and every block recomputed in the backward pass (gradient checkpointing,
    /// Chen et al. 2016, arXiv:1604.06174).
    pub fn vision_recomputed(&self, images: u64) -> u64 {
        self.vision_trained(images)
            + self.with_vision(images, |maps| maps.products() + maps.deltas(self.side, false))
            + self.vision_attention(images, 2)
    }

    /// Vision tower of a momentum model, forward.
    pub fn vision_followed(&self, images: u64) -> u64 {
        self.vision(images) + self.with_vision(images, |maps| maps.deltas(self.side, false))
    }

    /// Texts of these lengths, alone or attending to an image whose keys are computed, forward; with `passes` 2, the
    /// gradients of the inputs of every frozen linear layer too.
    fn text(&self, lengths: &[u64], fused: bool, passes: u64) -> u64 {
        let (width, mlp) = (self.text_width(), self.config.text.intermediate_size as u64);
        let attention = if passes == 2 { 2 + 5 } else { 2 };
        let of_text = |tokens: u64| {
            let cross = if fused { 2 * width * width } else { 0 };
            let seen = if fused { self.image_tokens() } else { 0 };
            let maps = 4 * width * width + 2 * width * mlp + cross;
            passes * 2 * tokens * maps + attention * 2 * tokens * (tokens + seen) * width
        };
        self.config.text.num_hidden_layers as u64
            * self.lengths(lengths).into_iter().map(of_text).sum::<u64>()
    }

    /// Cross-attention keys and values of so many images in every layer.
    fn keys(&self, images: u64, passes: u64) -> u64 {
        let maps = 2 * self.vision_hidden_size() * self.text_width();
        self.config.text.num_hidden_layers as u64 * passes * 2 * images * self.image_tokens() * maps
    }

    /// Deltas on the linear layers of texts (query, key and value of self-attention; alone or with the cross-attention
    /// query).
    fn text_deltas(&self, lengths: &[u64], fused: bool, trained: bool) -> u64 {
        let width = self.text_width();
        Maps {
            tokens: self.lengths(lengths).iter().sum(),
            blocks: self.config.text.num_hidden_layers as u64,
            shapes: &[(width, width); 4][..if fused { 4 } else { 3 }],
        }
        .deltas(self.side, trained)
    }

    fn key_deltas(&self, images: u64) -> u64 {
        Maps {
            tokens: images * self.image_tokens(),
            blocks: self.config.text.num_hidden_layers as u64,
            shapes: &[(self.vision_hidden_size(), self.text_width()); 2],
        }
        .deltas(self.side, true)
    }

    /// Number of images whose keys and values are computed, for `texts` that attend to `images`.
    fn looked_at(&self, images: u64, texts: u64) -> u64 {
        match self.side {
            Side::Ours { .. } => images,
            Side::Plain { .. } => texts,
        }
    }

    /// Retrieval training step over pairs with texts of these lengths: online and momentum features of both towers,
    /// ITC with `queue` earlier pairs, ITM with a right pair and two wrong ones for each.
    pub fn retrieval_step(&self, lengths: &[u64], queue: u64) -> u64 {
        let batch = lengths.len() as u64;
        let three = lengths.repeat(3);
        let towers = self.vision_trained(batch)
            + self.vision_followed(batch)
            + self.text(lengths, false, 2)
            + self.text_deltas(lengths, false, true)
            + self.text(lengths, false, 1)
            + self.text_deltas(lengths, false, false);
        // Online and momentum features by the queue, both ways, and the gradient of the online ones.
        let columns = batch + queue;
        let contrast = 6 * 2 * batch * columns * self.config.projection_dim as u64;
        let images = self.looked_at(batch, 3 * batch);
        let matching = self.text(&three, true, 2)
            + self.text_deltas(&three, true, true)
            + self.keys(images, 2)
            + self.key_deltas(images);
        towers + contrast + matching
    }

    /// Fused pass over texts of these lengths that attend to images whose keys and values are computed, forward,
    /// without deltas.
    pub fn fuse(&self, lengths: &[u64]) -> u64 {
        self.text(lengths, true, 1)
    }

    /// Extra cost of cross-attention with absorbed projections: queries and outputs are as wide as an image's states,
    /// once for each head.
    fn absorbed(&self, lengths: &[u64]) -> u64 {
        let (seen, states) = (self.image_tokens(), self.vision_hidden_size());
        let (width, heads) = (self.text_width(), self.config.text.num_attention_heads as u64);
        let each = 4 * states * (heads * seen + width) - 4 * seen * width;
        self.config.text.num_hidden_layers as u64
            * self.lengths(lengths).into_iter().sum::<u64>()
            * each
    }

    /// Matching logits of texts of these lengths, one for each, that attend to so many images, whose states are
    /// computed.
    pub fn rerank(&self, lengths: &[u64], images: u64) -> u64 {
        let keys = self.keys(self.looked_at(images, lengths.len() as u64), 1);
        self.fuse(lengths)
            + match self.side {
                Side::Ours { .. } => keys.min(self.absorbed(lengths)),
                Side::Plain { .. } => keys,
            }
    }
}

#[cfg(test)]
mod tests {
    use aurora_layers::{Architecture, TextConfig, VisionConfig};

    use super::*;

    fn base(image_size: usize) -> BlipConfig {
        BlipConfig {
            vision: VisionConfig {
                image_size,
                patch_size: 16,
                hidden_size: 768,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 3072,
                layer_norm_eps: 1e-5,
            },
            text: TextConfig {
                vocab_size: 30_524,
                hidden_size: 768,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 3072,
                max_position_embeddings: 512,
                layer_norm_eps: 1e-12,
                enc_token_id: 30_523,
            },
            projection_dim: 256,
            architecture: Architecture::Retrieval,
        }
    }

    const OURS: Side = Side::Ours { rank: 64 };
    const PLAIN: Side = Side::Plain { rank: 32, padded: 35 };

    fn giga(operations: u64) -> f64 {
        (operations as f64 / 1e8).round() / 10.0
    }

    #[test]
    fn a_vit_base_computes_what_is_known_of_it() {
        // 17.6 and 55.5 giga multiply-adds an image.
        for (size, known) in [(224, 35.1), (384, 111.0)] {
            let config = base(size);
            let found = giga(ModelCost { config: &config, side: OURS }.vision(1));
            assert!((found - known).abs() < 0.2, "{size}: {found}");
        }
    }

    #[test]
    fn a_backward_pass_through_frozen_maps_costs_less_than_two_forward() {
        let config = base(384);
        for side in [OURS, PLAIN] {
            let cost = ModelCost { config: &config, side };
            let ratio = cost.vision_trained(4) as f64 / cost.vision(4) as f64;
            assert!(ratio > 2.0 && ratio < 3.0, "{ratio}");
        }
    }

    #[test]
    fn deltas_that_are_formed_cost_no_more_with_more_tokens() {
        let maps = |tokens| Maps { tokens, blocks: 1, shapes: &[(768, 768)] };
        let many = maps(10_000).deltas(OURS, false);
        assert_eq!(many, 2 * 64 * 768 * 768);
        assert_eq!(maps(20_000).deltas(OURS, false), many);
        assert_eq!(maps(10).deltas(OURS, false), 2 * 10 * 64 * 1536);
        assert_eq!(maps(20_000).deltas(PLAIN, false), 2 * 20_000 * 32 * 1536);
        assert_eq!(maps(20_000).deltas(PLAIN, true), 3 * 2 * 20_000 * 32 * 1536);
    }

    #[test]
    fn keys_of_one_image_are_computed_once_or_for_every_text() {
        let config = base(224);
        let [ours, plain] = [OURS, PLAIN].map(|side| ModelCost { config: &config, side });
        let lengths = vec![35; 128];
        let keys = 12 * 2 * 197 * 2 * 768 * 768;
        assert_eq!(plain.rerank(&lengths, 1) - ours.rerank(&lengths, 1), 127 * keys);
        let short = vec![13; 128];
        // Every image has a text of its own, too short for keys and values: for the 13 tokens of one, 4 * 768 * (12 *
        // 197 + 768) operations each in a layer, less those of plain attention.
        let absorbed = 128 * 12 * 13 * (4 * 768 * (12 * 197 + 768) - 4 * 197 * 768);
        assert_eq!(ours.rerank(&short, 128) - ours.fuse(&short), absorbed);
        assert!(absorbed < 128 * keys);
        assert_eq!(plain.rerank(&short, 128), plain.rerank(&lengths, 128));
        assert!(ours.rerank(&short, 128) < ours.rerank(&lengths, 128));
    }

    #[test]
    fn a_step_is_its_towers_twice_and_more() {
        let config = base(224);
        let [ours, plain] = [OURS, PLAIN].map(|side| ModelCost { config: &config, side });
        let lengths = vec![13; 4];
        let step = ours.retrieval_step(&lengths, 57_600);
        assert!(step > ours.vision_trained(4) + ours.vision_followed(4));
        assert!(step < plain.retrieval_step(&lengths, 57_600));
        let queue = step - ours.retrieval_step(&lengths, 0);
        assert_eq!(queue, 12 * 4 * 57_600 * 256);
    }
}
