//! Online model of a tuning run, through which every objective runs its passes.

use aurora_kernels::allocator::available_memory;
use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, Backbone, BatchShape, Blip, BoundModel, GradientCheckpointing, Tensors,
};
use candle_core::{Device, Tensor, Var};
use std::sync::{Arc, OnceLock};

use super::TaskBatch;
use crate::config::Config;
use crate::error::Result;

/// Online model: the frozen backbone with the trained tensors.
#[derive(Debug)]
pub(super) struct OnlineModel {
    pub(super) config: Config,
    pub(super) frozen: Arc<Blip>,
    pub(super) backbone: Tensors,
    pub(super) tuned: AdaptedParams,
    pub(super) blip: Arc<Blip>,
    /// Gradient checkpointing, fixed at the first step.
    checkpointing: OnceLock<GradientCheckpointing>,
}

impl OnlineModel {
    /// Builds the model at step 0, and its variables.
    pub(super) fn new(
        config: &Config,
        backbone: &Backbone,
        device: &Device,
    ) -> Result<(Self, Vec<(String, Var)>)> {
        let frozen = Arc::new(backbone.model()?);
        let start =
            AdaptedParams::init(config.adapter.adapter_config(), backbone, config.seed, device)?;
        let (tuned, variables) = start.into_variables()?;
        let blip = tuned.model(&frozen)?;
        let online = Self {
            config: config.clone(),
            frozen,
            backbone: backbone.tensors.clone(),
            tuned,
            blip,
            checkpointing: OnceLock::new(),
        };
        Ok((online, variables))
    }

    /// Binds the model for one step; the step's passes share the result.
    pub(super) fn bind(&self, batch: &TaskBatch, step: u64) -> Result<BoundModel> {
        let Config { seed, adapter, precision, .. } = &self.config;
        let device = self.blip.device();
        let mask = match adapter.rank_dropout > 0.0 && self.tuned.adapter_config.adapter().is_some()
        {
            true => Some(rank_mask(adapter.rank, adapter.rank_dropout, *seed, step, device)?),
            false => None,
        };
        let mut bound = self.tuned.bind(&self.blip, mask.as_ref())?;
        bound.gradient_checkpointing = self.checkpointing(batch)?;
        bound.precision = (*precision).into();
        Ok(bound)
    }

    /// Gradient checkpointing, once fixed.
    pub(super) fn fixed_checkpointing(&self) -> Option<GradientCheckpointing> {
        self.checkpointing.get().copied()
    }

    /// Fixes gradient checkpointing beforehand.
    pub(super) fn fix_checkpointing(&self, chosen: GradientCheckpointing) {
        self.checkpointing.get_or_init(|| chosen);
    }

    /// Gradient checkpointing of a step. Chosen at the first step from its batch, before its graph takes memory.
    fn checkpointing(&self, batch: &TaskBatch) -> Result<GradientCheckpointing> {
        if let Some(chosen) = self.checkpointing.get() {
            return Ok(*chosen);
        }
        let work = match batch {
            TaskBatch::Retrieval(pairs) => {
                let retrieval = &self.config.retrieval;
                let (texts, length) = pairs.token_ids.dims2()?;
                let matched = retrieval.itm_weight > 0.0;
                let rows = if matched { texts.min(retrieval.itm_pairs) } else { 0 };
                BatchShape { images: pairs.images.count(), texts, length, pairs: 3 * rows }
            }
            TaskBatch::Vqa(batch) => {
                let (questions, length) = batch.questions.token_ids.dims2()?;
                let (answers, longest) = batch.answers.texts.token_ids.dims2()?;
                let length = length.max(longest);
                let images = batch.images.count();
                BatchShape { images, texts: 0, length, pairs: questions + answers }
            }
        };
        let graph = work.graph_bytes(self.frozen.config(), &self.tuned.adapter_config)?;
        // The system's free memory is not that of a GPU.
        let available = self.blip.device().is_cpu().then(available_memory).flatten();
        let chosen = self.config.gradient_checkpointing.resolve(graph, available);
        Ok(*self.checkpointing.get_or_init(|| chosen))
    }
}

/// Rank dropout mask of one step: each component is kept with probability `1 - dropout` and scaled up by its inverse.
fn rank_mask(rank: usize, dropout: f64, seed: u64, step: u64, device: &Device) -> Result<Tensor> {
    let mut stream = Stream::new(seed, "rank dropout", step, 0);
    let keep = 1.0 - dropout;
    let mask: Vec<f32> = (0..rank)
        .map(|_| if stream.uniform() < keep { (1.0 / keep) as f32 } else { 0.0 })
        .collect();
    Ok(Tensor::from_vec(mask, rank, device)?)
}
