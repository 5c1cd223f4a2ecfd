//! Distillation of a small backbone from random weights, on images and captions, with two frozen teachers.
//!
//! Contrastive learning from scratch on a few thousand images stays near chance. Regressing both towers to the features
//! of teachers trained on more data makes it work:
//!
//! ```text
//! loss = ITC + ITM
//!      + image_cosine (1 - cos(image, teacher)) + image_nce InfoNCE(image, teacher)
//!      + patch_distill_weight (1 - cos(patch, teacher's part))
//!      + text_cosine (1 - cos(text, teacher))
//!      + joint_weight (1 - cos(feature, place in the joint space))     for both towers
//! ```
//!
//! InfoNCE is that of van den Oord et al. 2018, arXiv:1807.03748. The contrastive targets are soft by the text
//! teacher's similarities, and unpaired images and texts join the regressions. The linear layers into the teachers'
//! spaces are dropped afterwards.

pub mod loader;
pub mod teachers;

use aurora_kernels::random::Stream;
use aurora_kernels::{cross_entropy, linear, soft_cross_entropy};
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    TextConfig, Variant, VisionConfig, cls, normalize,
};
use candle_core::{D, Device, Tensor, Var};
use std::sync::Arc;

use crate::config::{ModelSizes, PretrainConfig};
use crate::distill::loader::DistillBatch;
use crate::distill::teachers::TeacherFeatures;
use crate::error::{Error, Result};
use crate::itc::clamped_temperature;
use crate::optimizer::Group;
use crate::optimizer::step::OptimizerStep;
use crate::retrieval::{EncodedBatch, ImageTextBatch, itm_with_hard_negatives};
use crate::trainer::StepOutput;

impl ModelSizes {
    /// BLIP configuration of these sizes, with the layer norm epsilons of the original BLIP; `[ENC]` is the last word
    /// piece.
    pub fn blip(&self) -> BlipConfig {
        BlipConfig {
            vision: VisionConfig {
                image_size: self.image_size,
                patch_size: self.patch_size,
                hidden_size: self.vision_hidden_size,
                num_hidden_layers: self.vision_layers,
                num_attention_heads: self.vision_heads,
                intermediate_size: self.mlp_ratio * self.vision_hidden_size,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                vocab_size: self.vocab_size,
                hidden_size: self.text_hidden_size,
                num_hidden_layers: self.text_layers,
                num_attention_heads: self.text_heads,
                intermediate_size: self.mlp_ratio * self.text_hidden_size,
                max_position_embeddings: self.max_positions,
                layer_norm_eps: 1e-12,
                enc_token_id: self.vocab_size.saturating_sub(1) as u32,
            },
            projection_dim: self.projection_dim,
            architecture: Architecture::Retrieval,
        }
    }
}

/// Distillation trainer: the model, its linear layers into the teachers' spaces, and the optimizer.
#[derive(Debug)]
pub struct Pretrainer {
    config: PretrainConfig,
    model: BlipConfig,
    online: AdaptedParams,
    blip: Arc<Blip>,
    to_image_teacher: [Var; 2], // weight (components, width), bias (components)
    to_image_parts: [Var; 2],   // likewise, for the patches
    to_text_teacher: [Var; 2],  // weight (384, width), bias (384)
    temperature: Var,
    optimizer: OptimizerStep,
}

impl Pretrainer {
    /// Initializes random weights; word embeddings come from the text teacher's if the configuration says so.
    ///
    /// # Errors
    /// Impossible sizes; teachers made for another vocabulary or width.
    pub fn new(
        config: &PretrainConfig,
        teachers: &TeacherFeatures,
        device: &Device,
    ) -> Result<Self> {
        let model = config.model.blip();
        fits(config, teachers)?;
        let mut backbone = Backbone::random(model.clone(), config.seed, device)?;
        if config.pretrain.init_word_embeddings {
            let name = "text_encoder.embeddings.word_embeddings.weight";
            backbone.tensors.insert(name.into(), teachers.words.to_device(device)?);
        }
        let frozen = Arc::new(backbone.model()?);
        let adapter_config = AdapterConfig::new(AdapterKind::Full, Variant::Paper, 0);
        let (online, variables) =
            AdaptedParams::init(adapter_config, &backbone, config.seed, device)?
                .into_variables()?;
        let blip = online.model(&frozen)?;
        let head = |name: &str, width: usize, teacher: &Tensor| -> Result<[Var; 2]> {
            let outputs = teacher.dim(D::Minus1)?;
            let weight =
                Stream::new(config.seed, name, 0, 0).normal_tensor((outputs, width), 0.02)?;
            let bias = Tensor::zeros(outputs, candle_core::DType::F32, device)?;
            Ok([Var::from_tensor(&weight.to_device(device)?)?, Var::from_tensor(&bias)?])
        };
        let to_image_teacher = head("to image teacher", model.vision.hidden_size, &teachers.image)?;
        let to_image_parts =
            head("to image parts", model.vision.hidden_size, &teachers.patch_distill)?;
        let to_text_teacher = head("to text teacher", model.text.hidden_size, &teachers.text)?;
        let temperature = Var::new(&[config.pretrain.temperature as f32], device)?;
        let mut parameters: Vec<(String, Var, &str)> = variables
            .into_iter()
            // The reference recipe decays everything; vectors (norms, biases) are better left alone.
            .map(|(name, var)| {
                (name, var.clone(), if var.rank() > 1 { "weights" } else { "vectors" })
            })
            .collect();
        for (name, [weight, bias]) in [
            ("to_image_teacher", &to_image_teacher),
            ("to_image_parts", &to_image_parts),
            ("to_text_teacher", &to_text_teacher),
        ] {
            parameters.push((format!("{name}.weight"), weight.clone(), "weights"));
            parameters.push((format!("{name}.bias"), bias.clone(), "vectors"));
        }
        parameters.push(("temperature".into(), temperature.clone(), "vectors"));
        let rate = config.pretrain.learning_rate;
        let groups = vec![
            Group::new("weights", rate, config.optimizer.weight_decay),
            Group::new("vectors", rate, 0.0),
        ];
        let optimizer =
            OptimizerStep::new(parameters, groups, &config.optimizer, &config.schedule)?;
        let config = config.clone();
        Ok(Self {
            config,
            model,
            online,
            blip,
            to_image_teacher,
            to_image_parts,
            to_text_teacher,
            temperature,
            optimizer,
        })
    }

    /// Current model.
    pub fn blip(&self) -> &Blip {
        &self.blip
    }

    /// Copy of the current weights.
    ///
    /// # Errors
    /// Any candle error.
    pub fn backbone(&self) -> Result<Backbone> {
        Ok(Backbone { config: self.model.clone(), tensors: self.online.snapshot()?.tensors })
    }

    /// Runs one step.
    ///
    /// # Errors
    /// Shapes that do not fit the model, a loss that is not a number, a parameter without gradient.
    pub fn step(&mut self, batch: &DistillBatch, step: u64) -> Result<StepOutput> {
        let settings = self.config.pretrain.clone();
        let bound = self.online.bind(&self.blip, None)?;
        let count = batch.ids.len();
        let image_states = self.blip.encode_image(&batch.images, &bound)?;
        let text_cls = self.blip.encode_text_cls(&batch.token_ids, &batch.mask, &bound)?;

        let toward = |x: &Tensor, [weight, bias]: &[Var; 2]| -> Result<Tensor> {
            normalize(&linear(x, weight.as_tensor(), Some(bias.as_tensor()))?).map_err(Into::into)
        };
        let image_guess = toward(&cls(&image_states)?, &self.to_image_teacher)?; // (images, components)
        let text_guess = toward(&text_cls, &self.to_text_teacher)?; // (texts, 384)
        let image_cosine = one_minus_cosine(&image_guess, &batch.image_teacher)?;
        let text_cosine = one_minus_cosine(&text_guess, &batch.text_teacher)?;
        let sharp =
            (image_guess.matmul(&batch.image_teacher.t()?)? / settings.image_nce_temperature)?;
        let own = Tensor::arange(0u32, batch.images.dim(0)? as u32, batch.images.device())?;
        let image_nce = cross_entropy(&sharp, &own)?;
        let patches = image_states.narrow(1, 1, image_states.dim(1)? - 1)?.contiguous()?;
        let parts = toward(&patches, &self.to_image_parts)?; // (images, parts, components)
        let patch_distill = one_minus_cosine(&parts, &normalize(&batch.patch_distill)?)?;

        let image = bound.image_features(&image_states)?; // (images, joint)
        let text = bound.text_cls_features(&text_cls)?; // (texts, joint)
        let joint = (one_minus_cosine(&image, &batch.image_joint)?
            + one_minus_cosine(&text, &batch.text_joint)?)?;

        let first = |tensor: &Tensor| tensor.narrow(0, 0, count);
        let (image_states, text_cls) = (first(&image_states)?, first(&text_cls)?);
        let (image, text) = (first(&image)?, first(&text)?);
        let temperature = clamped_temperature(self.temperature.as_tensor())?;
        let scores = image.matmul(&text.t()?)?.broadcast_div(&temperature)?; // (batch, batch)
        let captions = first(&batch.text_teacher)?;
        let targets = soft_targets(
            &captions,
            &batch.ids,
            settings.soft_target_weight,
            settings.soft_temperature,
        )?;
        let itc = ((soft_cross_entropy(&scores, &targets)?
            + soft_cross_entropy(&scores.t()?.contiguous()?, &targets)?)?
            * 0.5)?;

        let mut losses = vec![("itc", itc.clone(), 1.0)];
        losses.push(("image_cosine", image_cosine, settings.image_cosine));
        losses.push(("image_nce", image_nce, settings.image_nce));
        losses.push(("patch_distill", patch_distill, settings.patch_distill_weight));
        losses.push(("joint", joint, settings.joint_weight));
        losses.push(("text_cosine", text_cosine, settings.text_cosine));
        if settings.itm_weight > 0.0 {
            // From the first step, so that every parameter has a gradient: with weight 0 before `itm_from_step`, then
            // on part of the batch, since each pair costs a pass of its own.
            let weight = if step >= settings.itm_from_step { settings.itm_weight } else { 0.0 };
            let rows = count.min(if weight > 0.0 { settings.itm_pairs } else { 8 });
            let encoded = EncodedBatch { image_states, text_cls, image, text, frames: None };
            let model = (&*self.blip, &bound);
            let key = (self.config.seed, step);
            let (token_ids, mask) = (&first(&batch.token_ids)?, &first(&batch.mask)?);
            let pairs = ImageTextBatch { token_ids, mask, ..batch.pairs() };
            let itm = itm_with_hard_negatives(model, &pairs, &encoded, &scores, rows, key)?;
            losses.push(("itm", itm, weight));
        }
        let mut loss = Tensor::zeros((), candle_core::DType::F32, scores.device())?;
        for (_, part, weight) in &losses {
            // A tensor, since candle drops the graph of a product with the plain number zero.
            let weight = Tensor::new(*weight as f32, scores.device())?;
            loss = (loss + (part * weight)?)?;
        }
        let value = |tensor: &Tensor| -> Result<f64> { Ok(f64::from(tensor.to_scalar::<f32>()?)) };
        let named = losses
            .iter()
            .map(|(name, part, _)| Ok((*name, value(part)?)))
            .collect::<Result<_>>()?;
        let stats = self.optimizer.step(&loss, step)?;
        Ok(StepOutput { loss: value(&loss)?, parts: named, stats })
    }
}

fn one_minus_cosine(guess: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    Ok((1.0 - (guess * teacher)?.sum(D::Minus1)?.mean_all()?)?)
}

/// Checks that the teachers were made for images and a joint space of this model's sizes.
fn fits(config: &PretrainConfig, teachers: &TeacherFeatures) -> Result<()> {
    let model = &config.model;
    let wanted = [
        ("side of the views", teachers.views.dim(1)?, model.image_size),
        (
            "parts of a view",
            teachers.patch_distill.dim(1)?,
            (model.image_size / model.patch_size).pow(2),
        ),
        ("length of the joint space", teachers.image_joint.dim(1)?, model.projection_dim),
        ("word embeddings", teachers.words.dim(0)?, model.vocab_size),
        ("length of the word embeddings", teachers.words.dim(1)?, model.text_hidden_size),
    ];
    for (name, found, expected) in wanted {
        if found != expected {
            return Err(Error::Count { operation: "teachers", name, found, expected });
        }
    }
    Ok(())
}

/// Soft targets (batch, batch): `(1 - share) equal ids, evenly + share softmax(teacher similarity / temperature)`.
fn soft_targets(captions: &Tensor, ids: &[i64], share: f64, temperature: f64) -> Result<Tensor> {
    let scores = (captions.matmul(&captions.t()?)? / temperature)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let soft = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let hard = crate::itc::HardTargets::new(ids, &[]).dense(captions)?;
    Ok(((soft * share)? + (hard * (1.0 - share))?)?)
}
