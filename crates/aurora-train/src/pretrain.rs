//! Pretraining of a small backbone, from random weights, on pictures and captions and two teachers.
//!
//! Contrastive learning from scratch on a few thousand pictures stays near chance. Regressing both towers to the
//! features of teachers that have seen more makes it work: `loss = ITC + ITM + image_cosine (1 - cos(image, teacher)) +
//! image_nce InfoNCE(image, teacher) + text_cosine (1 - cos(text, teacher))`, where the contrastive targets are soft by
//! the text teacher's similarities, and texts without pictures join the text regression. The maps to the teachers'
//! spaces are thrown away afterwards.

use aurora_kernels::random::Stream;
use aurora_kernels::{cross_entropy, linear, soft_cross_entropy};
use aurora_layers::{
    AdapterKind, Backbone, Blip, BlipConfig, Flavour, TextConfig, TuneSpec, Tuned, VisionConfig,
    cls, normalize,
};
use candle_core::{D, Device, Tensor, Var};
use std::sync::Arc;

use crate::config::{ModelSizes, PretrainConfig};
use crate::descent::Descent;
use crate::error::Result;
use crate::itc::clamped_temperature;
use crate::optimizer::Group;
use crate::retrieval::{Encoded, Pairs, matching_drawn};
use crate::teachers::Teachers;
use crate::trainer::Trained;

impl ModelSizes {
    /// The configuration of a model of these sizes, with the layer norm constants of the original BLIP; `[ENC]` is the
    /// last word piece.
    pub fn blip(&self) -> BlipConfig {
        BlipConfig {
            vision: VisionConfig {
                image_size: self.picture,
                patch_size: self.patch,
                hidden_size: self.vision_width,
                layers: self.vision_layers,
                heads: self.vision_heads,
                mlp_size: self.mlp_ratio * self.vision_width,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                vocab_size: self.vocabulary,
                hidden_size: self.text_width,
                layers: self.text_layers,
                heads: self.text_heads,
                mlp_size: self.mlp_ratio * self.text_width,
                max_positions: self.positions,
                layer_norm_eps: 1e-12,
                enc_token_id: self.vocabulary.saturating_sub(1) as u32,
            },
            projection_size: self.projection,
        }
    }
}

/// Pairs to learn from, with what the teachers say of them.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// Pictures with captions. The texts may be more than the pictures: those past the last picture stand alone.
    pub pairs: Pairs<'a>,
    /// The picture teacher's features (pictures, components).
    pub image_teacher: &'a Tensor,
    /// The text teacher's features (texts, 384).
    pub text_teacher: &'a Tensor,
}

/// A model in pretraining.
#[derive(Debug)]
pub struct Pretrainer {
    config: PretrainConfig,
    model: BlipConfig,
    live: Tuned,
    blip: Arc<Blip>,
    to_image_teacher: [Var; 2], // weight (components, width), bias (components)
    to_text_teacher: [Var; 2],  // weight (384, width), bias (384)
    temperature: Var,
    descent: Descent,
}

impl Pretrainer {
    /// Random weights; word embeddings start from the text teacher's where the configuration says so.
    ///
    /// # Errors
    /// Sizes that cannot be; teachers made for another vocabulary or width.
    pub fn new(config: &PretrainConfig, teachers: &Teachers, device: &Device) -> Result<Self> {
        let model = config.model.blip();
        let mut backbone = Backbone::random(model.clone(), config.seed, device)?;
        if config.pretrain.word_start {
            let name = "text_encoder.embeddings.word_embeddings.weight";
            backbone.tensors.insert(name.into(), teachers.words.clone());
        }
        let frozen = Arc::new(backbone.model()?);
        let spec = TuneSpec::new(AdapterKind::Full, Flavour::Aurora, 0);
        let (live, variables) =
            Tuned::start(spec, &backbone, config.seed, device)?.into_variables()?;
        let blip = live.model(&frozen)?;
        let head = |name: &str, width: usize, teacher: &Tensor| -> Result<[Var; 2]> {
            let outputs = teacher.dim(D::Minus1)?;
            let weight =
                Stream::new(config.seed, name, 0, 0).normal_tensor((outputs, width), 0.02)?;
            let bias = Tensor::zeros(outputs, candle_core::DType::F32, device)?;
            Ok([Var::from_tensor(&weight.to_device(device)?)?, Var::from_tensor(&bias)?])
        };
        let to_image_teacher = head("to image teacher", model.vision.hidden_size, &teachers.image)?;
        let to_text_teacher = head("to text teacher", model.text.hidden_size, &teachers.text)?;
        let temperature = Var::new(&[config.pretrain.temperature as f32], device)?;
        let mut parameters: Vec<(String, Var, &str)> = variables
            .into_iter()
            // The released recipe decays everything; vectors (norms, biases) are better left alone.
            .map(|(name, var)| {
                (name, var.clone(), if var.rank() > 1 { "weights" } else { "vectors" })
            })
            .collect();
        for (name, [weight, bias]) in
            [("to_image_teacher", &to_image_teacher), ("to_text_teacher", &to_text_teacher)]
        {
            parameters.push((format!("{name}.weight"), weight.clone(), "weights"));
            parameters.push((format!("{name}.bias"), bias.clone(), "vectors"));
        }
        parameters.push(("temperature".into(), temperature.clone(), "vectors"));
        let rate = config.pretrain.learning_rate;
        let groups = vec![
            Group::new("weights", rate, config.optimizer.weight_decay),
            Group::new("vectors", rate, 0.0),
        ];
        let descent = Descent::new(parameters, groups, &config.optimizer, &config.schedule)?;
        let config = config.clone();
        Ok(Self {
            config,
            model,
            live,
            blip,
            to_image_teacher,
            to_text_teacher,
            temperature,
            descent,
        })
    }

    /// The model as it is now.
    pub fn blip(&self) -> &Blip {
        &self.blip
    }

    /// The weights as they are now, in memory of their own.
    ///
    /// # Errors
    /// What candle reports.
    pub fn backbone(&self) -> Result<Backbone> {
        Ok(Backbone { config: self.model.clone(), tensors: self.live.snapshot()?.tensors })
    }

    /// One step.
    ///
    /// # Errors
    /// Shapes that do not fit the model, a loss that is not a number, a parameter without gradient.
    pub fn step(&mut self, lesson: &Lesson, step: u64) -> Result<Trained> {
        let settings = self.config.pretrain.clone();
        let Pairs { images, token_ids, mask, ids } = lesson.pairs;
        let prepared = self.live.prepare(&self.blip, None)?;
        let batch = images.dim(0)?;
        let image_states = self.blip.encode_image(images, &prepared)?;
        let text_states = self.blip.encode_text(token_ids, mask, &prepared)?;

        let image_cls = cls(&image_states)?;
        let toward = |x: &Tensor, [weight, bias]: &[Var; 2]| -> Result<Tensor> {
            normalize(&linear(x, weight.as_tensor(), Some(bias.as_tensor()))?).map_err(Into::into)
        };
        let image_guess = toward(&image_cls, &self.to_image_teacher)?; // (batch, components)
        let text_guess = toward(&cls(&text_states)?, &self.to_text_teacher)?; // (texts, 384)
        let image_cosine = one_minus_cosine(&image_guess, lesson.image_teacher)?;
        let text_cosine = one_minus_cosine(&text_guess, lesson.text_teacher)?;
        let sharp =
            (image_guess.matmul(&lesson.image_teacher.t()?)? / settings.image_nce_temperature)?;
        let own = Tensor::arange(0u32, batch as u32, images.device())?;
        let image_nce = cross_entropy(&sharp, &own)?;

        let text_states = text_states.narrow(0, 0, batch)?;
        let image = prepared.image_features(&image_states)?;
        let text = prepared.text_features(&text_states)?;
        let temperature = clamped_temperature(self.temperature.as_tensor())?;
        let scores = image.matmul(&text.t()?)?.broadcast_div(&temperature)?; // (batch, batch)
        let captions = lesson.text_teacher.narrow(0, 0, batch)?;
        let targets =
            soft_targets(&captions, ids, settings.soft_targets, settings.soft_temperature)?;
        let itc = ((soft_cross_entropy(&scores, &targets)?
            + soft_cross_entropy(&scores.t()?.contiguous()?, &targets)?)?
            * 0.5)?;

        let mut parts = vec![("itc", itc.clone(), 1.0)];
        parts.push(("image_cosine", image_cosine, settings.image_cosine));
        parts.push(("image_nce", image_nce, settings.image_nce));
        parts.push(("text_cosine", text_cosine, settings.text_cosine));
        if settings.itm_weight > 0.0 {
            // From the first step, so that every parameter has a gradient; weightless until its turn comes, and then
            // on a part of the batch, since each of its pairs costs a pass of its own.
            let weight = if step >= settings.itm_from_step { settings.itm_weight } else { 0.0 };
            let rows = batch.min(if weight > 0.0 { settings.itm_pairs } else { 8 });
            let encoded = Encoded { image_states, text_states, image, text };
            let model = (&*self.blip, &prepared);
            let key = (self.config.seed, step);
            let itm = matching_drawn(model, &lesson.pairs, &encoded, &scores, rows, key)?;
            parts.push(("itm", itm, weight));
        }
        let mut loss = Tensor::zeros((), candle_core::DType::F32, images.device())?;
        for (_, part, weight) in &parts {
            // As a tensor: candle drops the graph of what is multiplied by a plain zero.
            let weight = Tensor::new(*weight as f32, images.device())?;
            loss = (loss + (part * weight)?)?;
        }
        let value = |tensor: &Tensor| -> Result<f64> { Ok(f64::from(tensor.to_scalar::<f32>()?)) };
        let named =
            parts.iter().map(|(name, part, _)| Ok((*name, value(part)?))).collect::<Result<_>>()?;
        let descended = self.descent.step(&loss, step)?;
        Ok(Trained { loss: value(&loss)?, parts: named, descended })
    }
}

fn one_minus_cosine(guess: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    Ok((1.0 - (guess * teacher)?.sum(D::Minus1)?.mean(0)?)?)
}

/// `(1 - share) equal ids, evenly + share softmax(teacher similarity / temperature)`, (batch, batch).
fn soft_targets(captions: &Tensor, ids: &[i64], share: f64, temperature: f64) -> Result<Tensor> {
    let scores = (captions.matmul(&captions.t()?)? / temperature)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let soft = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let hard = crate::itc::hard_targets(ids, &[], captions)?;
    Ok(((soft * share)? + (hard * (1.0 - share))?)?)
}
