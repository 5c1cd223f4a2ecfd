//! Activation memory of a training step, counted from shapes.

use crate::{AdapterConfig, AdapterKind, BlipConfig, Result};

/// Bytes of an f32.
const VALUE: u64 = 4;

/// Batch shape of one retrieval training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Number of images, or of frames over all clips.
    pub images: usize,
    /// Number of texts encoded alone.
    pub texts: usize,
    /// Tokens per text, padding included.
    pub length: usize,
    /// Number of image-text pairs in the fusion encoder.
    pub pairs: usize,
}

impl BatchShape {
    /// Upper bound, in bytes, on the graph of a step with [`crate::GradientCheckpointing::None`]: the outputs of all
    /// operations, every text counted at full length, and the merged weight of every site that `adapter_config` adds a
    /// delta to. Zero where nothing below the heads is trained.
    ///
    /// # Errors
    /// Targets that match nothing.
    pub fn graph_bytes(&self, config: &BlipConfig, adapter_config: &AdapterConfig) -> Result<u64> {
        if adapter_config.is_heads_alone() {
            return Ok(0);
        }
        let (vision, text) = (&config.vision, &config.text);
        let count = |tokens: usize, layers: usize, each: usize| {
            [tokens, layers, each].iter().map(|&factor| factor as u64).product::<u64>()
        };
        // Vision block: two norms (2), queries, keys and values (3), attention, projection and residual sum (3), the
        // MLP's output and residual sum (2), each of the hidden size; fc1 and GELU, each of the intermediate size.
        let block = 10 * vision.hidden_size + 2 * vision.intermediate_size;
        // Text layer alone: queries, keys and values, unpadded and scattered (6), attention, scattered and unpadded
        // (2), output, residual sum and norm (3); the same three of the MLP; fc1 and GELU.
        let alone = 14 * text.hidden_size + 2 * text.intermediate_size;
        // Cross-attention: queries (2), attention (2), output, residual sum and norm (3). Gate: two branches of two,
        // two sums.
        let fused = alone + (if adapter_config.gated_query { 13 } else { 7 }) * text.hidden_size;
        let image_tokens = self.images * vision.tokens();
        let states = count(image_tokens, vision.num_hidden_layers, block)
            + count(image_tokens, text.num_hidden_layers, 2 * text.hidden_size) // keys and values for the texts
            + count(self.texts * self.length, text.num_hidden_layers, alone)
            + count(self.pairs * self.length, text.num_hidden_layers, fused);
        let has_delta = !matches!(adapter_config.kind, AdapterKind::Ia3 | AdapterKind::Bottleneck);
        let sites = adapter_config.sites(config)?;
        let weights =
            sites.iter().filter(|_| has_delta).map(|site| (site.in_dim * site.out_dim) as u64);
        Ok(VALUE * (states + weights.sum::<u64>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::tests::blip_base;
    use crate::gradient_checkpoint::ungrouped;
    use crate::{AdaptedParams, Backbone, BoundModel, CrossAttention, Variant};
    use candle_core::{DType, Device, Tensor};
    use std::collections::BTreeMap;

    /// Bytes that the graph of a tensor holds, each storage counted once.
    fn held(loss: &Tensor) -> u64 {
        let mut sizes = BTreeMap::new();
        for node in loss.sorted_nodes().into_iter().filter(|node| !node.is_variable()) {
            let (storage, layout) = node.storage_and_layout();
            let size = (layout.shape().elem_count() * node.dtype().size_in_bytes()) as u64;
            let place = std::ptr::from_ref(&*storage) as usize;
            let largest = sizes.entry(place).or_insert(0);
            *largest = size.max(*largest);
        }
        sizes.values().sum()
    }

    fn loss(backbone: &Backbone, bound: &BoundModel, work: &BatchShape) -> Tensor {
        let (blip, device) = (backbone.model().unwrap(), &Device::Cpu);
        let side = backbone.config.vision.image_size;
        let images = Tensor::ones((work.images, 3, side, side), DType::F32, device).unwrap();
        let states = blip.encode_image(&images, bound).unwrap();
        let text = |rows: usize| {
            let ids = Tensor::zeros((rows, work.length), DType::U32, device).unwrap();
            // The last token of the first text is missing, so that texts are unpadded.
            let mask = (0..rows * work.length).map(|at| f32::from(at + 1 != work.length));
            let mask: Vec<f32> = mask.collect();
            (ids, Tensor::from_vec(mask, (rows, work.length), device).unwrap())
        };
        let keys = blip.encode_kv(&states, bound).unwrap();
        let rows: Vec<u32> = (0..work.pairs).map(|pair| (pair % work.images) as u32).collect();
        let ((ids, mask), (pair_ids, pair_mask)) = (text(work.texts), text(work.pairs));
        let alone = blip.encode_text_cls(&ids, &mask, bound).unwrap();
        let seen = CrossAttention::new(&keys).rows(rows);
        let fused = blip.fuse_cls(&pair_ids, &pair_mask, &seen, bound).unwrap();
        let sums = [states, alone, fused].map(|states| states.sum_all().unwrap());
        ((&sums[0] + &sums[1]).unwrap() + &sums[2]).unwrap()
    }

    /// The bound holds against the graph itself; with gradient checkpointing the graph is small.
    #[test]
    fn is_what_the_graph_holds() {
        let mut config = crate::config::tests::tiny();
        (config.vision.num_hidden_layers, config.text.num_hidden_layers) = (4, 4);
        let backbone = Backbone::random(config.clone(), 1, &Device::Cpu).unwrap();
        for work in [
            BatchShape { images: 6, texts: 6, length: 6, pairs: 6 },
            BatchShape { images: 2, texts: 9, length: 8, pairs: 27 },
        ] {
            let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 2);
            let tuned =
                AdaptedParams::init(adapter_config.clone(), &backbone, 3, &Device::Cpu).unwrap();
            let (tuned, _) = tuned.into_variables().unwrap();
            let mut bound = tuned.bind(&backbone.model().unwrap(), None).unwrap();
            let plain = ungrouped::run(|| held(&loss(&backbone, &bound, &work)));
            let weights = crate::sites(&config);
            let weights: usize = weights.iter().map(|site| site.in_dim * site.out_dim).sum();
            let counted =
                work.graph_bytes(&config, &adapter_config).unwrap() - VALUE * weights as u64;
            let share = counted as f64 / plain as f64;
            assert!((0.9..1.35).contains(&share), "{counted} counted, {plain} held");
            bound.gradient_checkpointing = crate::GradientCheckpointing::Block;
            let segments = held(&loss(&backbone, &bound, &work));
            assert!(3 * segments < plain, "{segments} of {plain}");
        }
    }

    /// BLIP-base, by hand: 18 * 768 values per token and vision block.
    #[test]
    fn of_blip_base() {
        let mut config = blip_base();
        (config.vision.image_size, config.vision.patch_size) = (384, 16);
        let work = BatchShape { images: 16, texts: 0, length: 30, pairs: 0 };
        let mut adapter_config = AdapterConfig::new(AdapterKind::Bottleneck, Variant::Paper, 2);
        let states = 16 * 577 * 12 * (18 * 768 + 2 * 768) * 4;
        assert_eq!(work.graph_bytes(&config, &adapter_config).unwrap(), states);
        adapter_config.kind = AdapterKind::Cp;
        let weights = 216 * 768 * 768 * 4;
        assert_eq!(work.graph_bytes(&config, &adapter_config).unwrap(), states + weights);
        adapter_config.kind = AdapterKind::Heads;
        assert_eq!(work.graph_bytes(&config, &adapter_config).unwrap(), 0);
    }
}
