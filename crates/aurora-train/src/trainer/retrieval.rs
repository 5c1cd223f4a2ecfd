//! What a tuning for retrieval has beside its live model: momentum model, queue and temperature.

use aurora_layers::BoundModel;
use candle_core::{Device, Tensor, Var};

use super::live::Live;
use super::{Examples, Losses, value};
use crate::config::{Config, RetrievalSection};
use crate::error::{Error, Result};
use crate::itc::clamp_temperature;
use crate::momentum::Momentum;
use crate::queue::FeatureQueue;
use crate::retrieval::{
    Contrast, Encoded, Frames, Pairs, contrastive, encode, encode_features, matching_drawn,
};
use crate::schedule::ramp;

/// The state of a tuning for retrieval.
#[derive(Debug)]
pub(super) struct Retrieval {
    section: RetrievalSection,
    pub(super) momentum: Momentum,
    pub(super) queue: FeatureQueue,
    temperature: Tensor,
    temperature_var: Option<Var>,
}

/// What a step leaves for those to come.
pub(super) struct Followed {
    /// Momentum features of pictures and texts.
    features: [Tensor; 2],
    /// The texts' own `[CLS]`.
    pub(super) text_cls: Tensor,
}

impl Retrieval {
    pub(super) fn new(config: &Config, live: &Live, device: &Device) -> Result<Self> {
        let section = config.retrieval.clone();
        let temperature = Tensor::new(&[section.temperature as f32], device)?;
        let temperature_var = match section.learn_temperature {
            true => Some(Var::from_tensor(&temperature)?),
            false => None,
        };
        let width = live.frozen.config().projection_dim;
        Ok(Self {
            momentum: Momentum::new(&live.tuned, &live.frozen, section.momentum)?,
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
    pub(super) fn losses(&self, live: &Live, pairs: &Pairs, step: u64) -> Result<Losses> {
        let (retrieval, seed) = (&self.section, live.config.seed);
        if let Some(var) = &self.temperature_var {
            clamp_temperature(var)?;
        }
        // First, so that nothing of it is left when the live graph grows.
        let followers = self.follow(live, pairs)?;
        let bound = live.bind(&Examples::Pairs(*pairs), step)?;
        let encoded = encode(&live.blip, &bound, pairs)?;
        let followers = followers.resolve(&encoded)?;
        let queue = self.queue.filled()?;
        let alpha = ramp(retrieval.alpha, step, retrieval.alpha_warmup_steps);
        let contrast = Contrast {
            momentum: Some([&followers[0], &followers[1]]),
            queue: Some(&queue),
            alpha,
            temperature: &self.temperature,
        };
        let (itc, similarity) = contrastive(&encoded, pairs.ids, &contrast)?;
        let mut parts = vec![("itc", value(&itc)?)];
        let mut total = itc;
        if retrieval.itm_weight > 0.0 {
            let (model, rows) = ((&*live.blip, &bound), retrieval.itm_pairs);
            let itm = matching_drawn(model, pairs, &encoded, &similarity, rows, (seed, step))?;
            parts.push(("itm", value(&itm)?));
            total = (total + (itm * retrieval.itm_weight)?)?;
        }
        let followed = Some(Followed { features: followers, text_cls: encoded.text_cls });
        Ok(Losses { total, parts, followed })
    }

    /// Takes the features of a batch into the queue.
    pub(super) fn enqueue(&mut self, followed: &Followed, ids: &[i64]) -> Result<()> {
        let [image, text] = &followed.features;
        self.queue.enqueue(image, text, ids)
    }

    /// The momentum model's features of the batch, pictures and texts; where nothing below the heads is trained, a
    /// view of the heads that will make them of the live model's states.
    fn follow(&self, live: &Live, pairs: &Pairs) -> Result<Followers> {
        let (blip, mut view) = self.momentum.advance()?;
        view.precision = live.config.precision.into();
        match live.tuned.adapter_config.is_heads_alone() {
            true => Ok(Followers::Heads(Box::new(view))),
            false => Ok(Followers::Features(encode_features(&blip, &view, pairs)?)),
        }
    }
}

/// The features of pictures or clips that the heads of `view` make of the live model's states.
fn image_features(view: &BoundModel, live: &Encoded) -> Result<Tensor> {
    let Some(Frames { features, mask }) = &live.frames else {
        return Ok(view.image_features(&live.image_states)?);
    };
    let ((clips, tokens, width), frames) = (live.image_states.dims3()?, features.dim(1)?);
    let states = live.image_states.reshape((clips, frames, tokens / frames, width))?;
    Ok(view.clip_features(&states, mask.as_ref())?)
}

/// What the momentum model says of a batch.
enum Followers {
    Features([Tensor; 2]),
    Heads(Box<BoundModel>),
}

impl Followers {
    /// The features, (batch, projection) each, without graph.
    fn resolve(self, live: &Encoded) -> Result<[Tensor; 2]> {
        let features = match self {
            Self::Features(features) => features,
            Self::Heads(view) => {
                [image_features(&view, live)?, view.text_cls_features(&live.text_cls)?]
            }
        };
        Ok(features.map(|tensor| tensor.detach()))
    }
}
