//! Retrieval objective: momentum model, feature queue and temperature beside the online model.

use aurora_layers::BoundModel;
use candle_core::{Device, Tensor, Var};

use super::online::OnlineModel;
use super::{Losses, TaskBatch, value};
use crate::config::{Config, RetrievalSection};
use crate::ema::MomentumModel;
use crate::error::{Error, Result};
use crate::itc::clamp_temperature;
use crate::queue::FeatureQueue;
use crate::retrieval::{
    EncodedBatch, Frames, ImageTextBatch, ItcContext, encode, encode_features, itc,
    itm_with_hard_negatives,
};
use crate::schedule::ramp;

/// State of the retrieval objective.
#[derive(Debug)]
pub(super) struct Retrieval {
    section: RetrievalSection,
    pub(super) momentum: MomentumModel,
    pub(super) queue: FeatureQueue,
    temperature: Tensor,
    temperature_var: Option<Var>,
}

/// Update of the queue and the context bank, deferred to the end of a step.
pub(super) struct DeferredUpdate {
    /// Momentum features of images and texts.
    features: [Tensor; 2],
    /// `[CLS]` states of the texts alone.
    pub(super) text_cls: Tensor,
}

impl Retrieval {
    pub(super) fn new(config: &Config, online: &OnlineModel, device: &Device) -> Result<Self> {
        let section = config.retrieval.clone();
        let temperature = Tensor::new(&[section.temperature as f32], device)?;
        let temperature_var = match section.learn_temperature {
            true => Some(Var::from_tensor(&temperature)?),
            false => None,
        };
        let width = online.frozen.config().projection_dim;
        Ok(Self {
            momentum: MomentumModel::new(&online.tuned, &online.frozen, section.momentum)?,
            queue: FeatureQueue::new(width, section.queue_size, device)?,
            temperature: temperature_var
                .as_ref()
                .map_or(temperature, |var| var.as_tensor().clone()),
            temperature_var,
            section,
        })
    }

    /// Variable of the temperature, if it is trained.
    pub(super) fn temperature_var(&self) -> Option<&Var> {
        self.temperature_var.as_ref()
    }

    /// Temperature, trained or not.
    pub(super) fn temperature(&self) -> &Tensor {
        &self.temperature
    }

    pub(super) fn set_queue(&mut self, queue: FeatureQueue) -> Result<()> {
        let (found, expected) = (queue.dim(), self.queue.dim());
        if found != expected {
            let (operation, name) = ("set queue", "as length of a feature");
            return Err(Error::Count { operation, name, found, expected });
        }
        self.queue = queue;
        Ok(())
    }

    /// Losses of a batch.
    pub(super) fn losses(
        &self,
        online: &OnlineModel,
        pairs: &ImageTextBatch,
        step: u64,
    ) -> Result<Losses> {
        let (retrieval, seed) = (&self.section, online.config.seed);
        if let Some(var) = &self.temperature_var {
            clamp_temperature(var)?;
        }
        // Momentum pass first, so that nothing of it is left when the online graph grows.
        let momentum_features = self.momentum_features(online, pairs)?;
        let bound = online.bind(&TaskBatch::Retrieval(*pairs), step)?;
        let encoded = encode(&online.blip, &bound, pairs)?;
        let momentum_features = momentum_features.resolve(&encoded)?;
        let queue = self.queue.filled()?;
        let alpha = ramp(retrieval.alpha, step, retrieval.alpha_warmup_steps);
        let context = ItcContext {
            momentum: Some([&momentum_features[0], &momentum_features[1]]),
            queue: Some(&queue),
            alpha,
            temperature: &self.temperature,
        };
        let (itc, similarity) = itc(&encoded, pairs.ids, &context)?;
        let mut parts = vec![("itc", value(&itc)?)];
        let mut total = itc;
        if retrieval.itm_weight > 0.0 {
            let (model, rows) = ((&*online.blip, &bound), retrieval.itm_pairs);
            let itm =
                itm_with_hard_negatives(model, pairs, &encoded, &similarity, rows, (seed, step))?;
            parts.push(("itm", value(&itm)?));
            total = (total + (itm * retrieval.itm_weight)?)?;
        }
        let deferred =
            Some(DeferredUpdate { features: momentum_features, text_cls: encoded.text_cls });
        Ok(Losses { total, parts, deferred })
    }

    /// Enqueues the momentum features of a batch.
    pub(super) fn enqueue(&mut self, deferred: &DeferredUpdate, ids: &[i64]) -> Result<()> {
        let [image, text] = &deferred.features;
        self.queue.enqueue(image, text, ids)
    }

    /// Momentum features of the batch, images and texts. If nothing below the heads is trained, a view of the momentum
    /// heads instead, to be applied to the online model's states.
    fn momentum_features(
        &self,
        online: &OnlineModel,
        pairs: &ImageTextBatch,
    ) -> Result<MomentumFeatures> {
        let (blip, mut view) = self.momentum.step()?;
        view.precision = online.config.precision.into();
        match online.tuned.adapter_config.is_heads_alone() {
            true => Ok(MomentumFeatures::Heads(Box::new(view))),
            false => Ok(MomentumFeatures::Features(encode_features(&blip, &view, pairs)?)),
        }
    }
}

/// Features of images or clips, from the heads of `view` and the online model's states.
fn image_features(view: &BoundModel, online: &EncodedBatch) -> Result<Tensor> {
    let Some(Frames { features, mask }) = &online.frames else {
        return Ok(view.image_features(&online.image_states)?);
    };
    let ((clips, tokens, width), frames) = (online.image_states.dims3()?, features.dim(1)?);
    let states = online.image_states.reshape((clips, frames, tokens / frames, width))?;
    Ok(view.clip_features(&states, mask.as_ref())?)
}

/// Momentum features, or the momentum heads that compute them.
enum MomentumFeatures {
    Features([Tensor; 2]),
    Heads(Box<BoundModel>),
}

impl MomentumFeatures {
    /// Features, (batch, projection) each, without graph.
    fn resolve(self, online: &EncodedBatch) -> Result<[Tensor; 2]> {
        let features = match self {
            Self::Features(features) => features,
            Self::Heads(view) => {
                [image_features(&view, online)?, view.text_cls_features(&online.text_cls)?]
            }
        };
        Ok(features.map(|tensor| tensor.detach()))
    }
}
