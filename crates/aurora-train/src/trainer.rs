//! Tuning: one step of a frozen backbone with trained additions, momentum model and queue.

use aurora_kernels::memory::available;
use aurora_kernels::random::Stream;
use aurora_layers::{Backbone, Blip, Checkpointing, Prepared, Tensors, Tuned, Workload};
use candle_core::{Device, Tensor, Var};
use std::sync::Arc;

use crate::config::{Config, LearningRates};
use crate::descent::{Descended, Descent};
use crate::error::{Error, Result};
use crate::itc::clamp_temperature;
use crate::momentum::Momentum;
use crate::queue::FeatureQueue;
use crate::retrieval::{
    Contrast, Encoded, Pairs, contrastive, encode, encode_features, matching_drawn,
};
use crate::schedule::ramp;

/// What a step measured.
#[derive(Debug)]
pub struct Trained {
    /// The loss that was minimised.
    pub loss: f64,
    /// Its parts by name.
    pub parts: Vec<(&'static str, f64)>,
    /// What the step did to the parameters.
    pub descended: Descended,
}

/// A tuning under way.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    frozen: Arc<Blip>,
    backbone: Tensors,
    live: Tuned,
    blip: Arc<Blip>,
    momentum: Momentum,
    queue: FeatureQueue,
    temperature: Tensor,
    temperature_var: Option<Var>,
    descent: Descent,
    /// What passes keep, from the first step on.
    checkpointing: Option<Checkpointing>,
}

impl Trainer {
    /// A tuning at its start.
    ///
    /// # Errors
    /// An adapter that this backbone cannot take.
    pub fn new(config: &Config, backbone: &Backbone, device: &Device) -> Result<Self> {
        let frozen = Arc::new(backbone.model()?);
        let start = Tuned::start(config.adapter.spec(), backbone, config.seed, device)?;
        let (live, variables) = start.into_variables()?;
        let blip = live.model(&frozen)?;
        let mut parameters: Vec<(String, Var, &str)> = variables
            .into_iter()
            .filter_map(|(name, var)| {
                let group = LearningRates::group(Tuned::part(&name))?;
                Some((name, var, group))
            })
            .collect();
        let retrieval = &config.retrieval;
        let temperature = Tensor::new(&[retrieval.temperature as f32], device)?;
        let temperature_var = match retrieval.train_temperature {
            true => Some(Var::from_tensor(&temperature)?),
            false => None,
        };
        if let Some(var) = &temperature_var {
            parameters.push(("temperature".into(), var.clone(), "temperature"));
        }
        let groups =
            config.learning_rates.groups(config.adapter.kind, config.optimizer.weight_decay);
        Ok(Self {
            momentum: Momentum::new(&live, &frozen, retrieval.momentum)?,
            queue: FeatureQueue::new(backbone.config.projection_size, retrieval.queue, device)?,
            temperature: temperature_var
                .as_ref()
                .map_or(temperature, |var| var.as_tensor().clone()),
            temperature_var,
            descent: Descent::new(parameters, groups, &config.optimizer, &config.schedule)?,
            checkpointing: None,
            config: config.clone(),
            backbone: backbone.tensors.clone(),
            frozen,
            live,
            blip,
        })
    }

    /// Number of trainable values.
    pub fn trainable_parameters(&self) -> usize {
        self.descent.parameters()
    }

    /// The frozen model that live and momentum model share.
    pub fn frozen(&self) -> &Arc<Blip> {
        &self.frozen
    }

    /// The live tensors; they change with every step.
    pub fn live(&self) -> &Tuned {
        &self.live
    }

    /// Puts a queue in the place of the one this tuning has, for instance that of a BLIP checkpoint.
    ///
    /// # Errors
    /// Features of another length.
    pub fn set_queue(&mut self, queue: FeatureQueue) -> Result<()> {
        let (found, expected) = (queue.dim(), self.queue.dim());
        if found != expected {
            let (operation, name) = ("set queue", "as length of a feature");
            return Err(Error::Count { operation, name, found, expected });
        }
        self.queue = queue;
        Ok(())
    }

    /// Mean |dW| / |W| over what is adapted: how far the tuning has moved the weights it may move.
    ///
    /// # Errors
    /// What candle reports.
    pub fn mean_relative_delta(&self) -> Result<f64> {
        Ok(self.live.mean_relative_delta(&self.frozen, &self.backbone)?)
    }

    /// What the passes of a step keep. Chosen at the first step and by its batch, before its graph takes memory.
    fn checkpointing(&mut self, pairs: &Pairs) -> Result<Checkpointing> {
        if let Some(chosen) = self.checkpointing {
            return Ok(chosen);
        }
        let retrieval = &self.config.retrieval;
        let (texts, length) = pairs.token_ids.dims2()?;
        let rows = if retrieval.itm_weight > 0.0 { texts.min(retrieval.itm_pairs) } else { 0 };
        let pictures = match *pairs.images.dims() {
            [clips, frames, _, _, _] => clips * frames,
            _ => texts,
        };
        let work = Workload { pictures, texts, length, pairs: 3 * rows };
        let graph = work.graph_bytes(self.frozen.config(), &self.live.spec)?;
        // Memory on a GPU is not what the system says is left.
        let available = pairs.images.device().is_cpu().then(available).flatten();
        let chosen = self.config.checkpoint.resolve(graph, available);
        self.checkpointing = Some(chosen);
        Ok(chosen)
    }

    /// One step: losses, gradients, parameters, momentum, queue.
    ///
    /// # Errors
    /// Shapes that do not fit the model, a loss that is not a number, a parameter without gradient.
    pub fn step(&mut self, pairs: &Pairs, step: u64) -> Result<Trained> {
        let Config { seed, adapter, retrieval, .. } = &self.config;
        let (seed, retrieval) = (*seed, retrieval.clone());
        let mask = match adapter.dropout > 0.0 && self.live.spec.adapter().is_some() {
            true => {
                Some(rank_mask(adapter.rank, adapter.dropout, seed, step, pairs.images.device())?)
            }
            false => None,
        };
        if let Some(var) = &self.temperature_var {
            clamp_temperature(var)?;
        }
        // First, so that nothing of it is left when the live graph grows.
        let followers = self.follow(pairs)?;
        let mut prepared = self.live.prepare(&self.blip, mask.as_ref())?;
        prepared.checkpointing = self.checkpointing(pairs)?;
        prepared.precision = self.config.precision.into();
        let encoded = encode(&self.blip, &prepared, pairs)?;
        let followers = followers.resolve(&encoded)?;
        let queue = self.queue.filled()?;
        let alpha = ramp(retrieval.alpha, step, retrieval.alpha_ramp_steps);
        let contrast = Contrast {
            momentum: Some([&followers[0], &followers[1]]),
            queue: Some(&queue),
            alpha,
            temperature: &self.temperature,
        };
        let (itc, similarity) = contrastive(&encoded, pairs.ids, &contrast)?;
        let value = |tensor: &Tensor| -> Result<f64> { Ok(f64::from(tensor.to_scalar::<f32>()?)) };
        let mut parts = vec![("itc", value(&itc)?)];
        let mut loss = itc;
        if retrieval.itm_weight > 0.0 {
            let (model, rows) = ((&*self.blip, &prepared), retrieval.itm_pairs);
            let itm = matching_drawn(model, pairs, &encoded, &similarity, rows, (seed, step))?;
            parts.push(("itm", value(&itm)?));
            loss = (loss + (itm * retrieval.itm_weight)?)?;
        }
        let descended = self.descent.step(&loss, step)?;
        // The loss looked at the queue's own memory, so only now.
        self.queue.enqueue(&followers[0], &followers[1], pairs.ids)?;
        self.live.absorb(&encoded.text_cls)?;
        Ok(Trained { loss: value(&loss)?, parts, descended })
    }

    /// The momentum model's features of the batch, pictures and texts; where nothing below the heads is trained, a
    /// view of the heads that will make them of the live model's states.
    fn follow(&self, pairs: &Pairs) -> Result<Followers> {
        let (blip, mut view) = self.momentum.advance()?;
        view.precision = self.config.precision.into();
        match self.live.spec.is_heads_alone() {
            true => Ok(Followers::Heads(Box::new(view))),
            false => Ok(Followers::Features(encode_features(&blip, &view, pairs)?)),
        }
    }
}

/// What the momentum model says of a batch.
enum Followers {
    Features([Tensor; 2]),
    Heads(Box<Prepared>),
}

impl Followers {
    /// The features, (batch, projection) each, without graph.
    fn resolve(self, live: &Encoded) -> Result<[Tensor; 2]> {
        let features = match self {
            Self::Features(features) => features,
            Self::Heads(view) => {
                [view.image_features(&live.image_states)?, view.text_cls_features(&live.text_cls)?]
            }
        };
        Ok(features.map(|tensor| tensor.detach()))
    }
}

/// A draw of rank components for one step: each stays with probability `1 - dropout` and is scaled up by its inverse.
fn rank_mask(rank: usize, dropout: f64, seed: u64, step: u64, device: &Device) -> Result<Tensor> {
    let mut stream = Stream::new(seed, "rank dropout", step, 0);
    let keep = 1.0 - dropout;
    let mask: Vec<f32> = (0..rank)
        .map(|_| if stream.uniform() < keep { (1.0 / keep) as f32 } else { 0.0 })
        .collect();
    Ok(Tensor::from_vec(mask, rank, device)?)
}
