//! What a tuning for retrieval has beside its online model: momentum model, queue and temperature.

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

/// The state of a tuning for retrieval.
#[derive(Debug)]
pub(super) struct Retrieval {
    section: RetrievalSection,
    pub(super) momentum: MomentumModel,
    pub(super) queue: FeatureQueue,
    temperature: Tensor,
    temperature_var: Option<Var>,
}

/// What a step leaves for those to come.
pub(super) struct DeferredUpdate {
    /// Momentum features of images and texts.
    features: [Tensor; 2],
    /// The texts' own `[CLS]`.
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

    /// The temperature, if it is trained.
    pub(super) fn temperature_var(&self) -> Option<&Var> {
        self.temperature_var.as_ref()
    }

    /// The temperature, trained or not.
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

    /// The losses of a batch.
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
        // First, so that nothing of it is left when the online graph grows.
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

    /// Takes the features of a batch into the queue.
    pub(super) fn enqueue(&mut self, deferred: &DeferredUpdate, ids: &[i64]) -> Result<()> {
        let [image, text] = &deferred.features;
        self.queue.enqueue(image, text, ids)
    }

    /// The momentum model's features of the batch, images and texts; where nothing below the heads is trained, a
    /// view of the heads that will make them of the online model's states.
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

/// The features of images or clips that the heads of `view` make of the online model's states.
fn image_features(view: &BoundModel, online: &EncodedBatch) -> Result<Tensor> {
    let Some(Frames { features, mask }) = &online.frames else {
        return Ok(view.image_features(&online.image_states)?);
    };
    let ((clips, tokens, width), frames) = (online.image_states.dims3()?, features.dim(1)?);
    let states = online.image_states.reshape((clips, frames, tokens / frames, width))?;
    Ok(view.clip_features(&states, mask.as_ref())?)
}

/// What the momentum model says of a batch.
enum MomentumFeatures {
    Features([Tensor; 2]),
    Heads(Box<BoundModel>),
}

impl MomentumFeatures {
    /// The features, (batch, projection) each, without graph.
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
