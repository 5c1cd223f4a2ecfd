//! Distillation batches: captioned views, unpaired texts, unpaired images, and the teachers' features of each.

use aurora_data::{Dataset, Decode, Keywords, Padding, Split, Tokenizer, embedded, transform};
use aurora_kernels::random::Stream;
use candle_core::{DType, Device, Tensor};

use crate::config::PretrainConfig;
use crate::distill::teachers::TeacherFeatures;
use crate::error::{Error, Result};
use crate::retrieval::ImageTextBatch;

/// Distillation batch: one step's images and texts with the teachers' features. The first `ids` of both are pairs;
/// images and texts past them are unpaired.
#[derive(Debug, Clone)]
pub struct DistillBatch {
    /// Images (images, 3, size, size), normalized.
    pub images: Tensor,
    /// Token ids (texts, length), u32, some masked.
    pub token_ids: Tensor,
    /// Ones for tokens and zeros for padding, (texts, length).
    pub mask: Tensor,
    /// Id of each pair.
    pub ids: Vec<i64>,
    /// Image teacher's features (images, components).
    pub image_teacher: Tensor,
    /// Image teacher's features of the images' parts (images, parts, components).
    pub patch_distill: Tensor,
    /// Places of the images in the joint space (images, joint).
    pub image_joint: Tensor,
    /// Text teacher's features (texts, 384).
    pub text_teacher: Tensor,
    /// Places of the texts in the joint space (texts, joint).
    pub text_joint: Tensor,
}

impl DistillBatch {
    /// Pairs of the batch, followed by its unpaired images and texts.
    pub fn pairs(&self) -> ImageTextBatch<'_> {
        ImageTextBatch {
            images: (&self.images).into(),
            token_ids: &self.token_ids,
            mask: &self.mask,
            ids: &self.ids,
        }
    }

    /// Moves the tensors to another device.
    ///
    /// # Errors
    /// Any candle error.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let moved = |tensor: &Tensor| tensor.to_device(device);
        Ok(Self {
            images: moved(&self.images)?,
            token_ids: moved(&self.token_ids)?,
            mask: moved(&self.mask)?,
            image_teacher: moved(&self.image_teacher)?,
            patch_distill: moved(&self.patch_distill)?,
            image_joint: moved(&self.image_joint)?,
            text_joint: moved(&self.text_joint)?,
            text_teacher: moved(&self.text_teacher)?,
            ids: self.ids,
        })
    }
}

/// Loader of distillation batches.
#[derive(Debug)]
pub struct DistillLoader<'a> {
    config: &'a PretrainConfig,
    teachers: &'a TeacherFeatures,
    tokens: &'a Tokenizer,
    pack: Dataset,
    captioned: Vec<u32>, // rows of the views
    alone: Vec<u32>,
}

impl<'a> DistillLoader<'a> {
    /// Builds a loader: views from the teachers' folder, captions from the embedded pack.
    ///
    /// # Errors
    /// Teachers made for another pack, or with a view of an image that is held out.
    pub fn new(
        config: &'a PretrainConfig,
        teachers: &'a TeacherFeatures,
        tokens: &'a Tokenizer,
    ) -> Result<Self> {
        let pack = Dataset::new(embedded::openclipart()?, Decode::OnUse)?;
        let count = |name, found, expected| {
            if found == expected {
                return Ok(());
            }
            Err(Error::Count { operation: "pretraining", name, found, expected })
        };
        count("captions in the teachers' file", teachers.text.dim(0)?, pack.len())?;
        let (mut captioned, mut alone) = (Vec::new(), Vec::new());
        for (view, &row) in (0u32..).zip(&teachers.view_rows) {
            let Ok(row) = usize::try_from(row) else {
                alone.push(view);
                continue;
            };
            let sample = pack.sample(row)?;
            if sample.split != Some(Split::Train) {
                let what = format!("view {view} of the teachers' file");
                let reason = format!("it shows {}, which is held out", sample.key);
                return Err(aurora_data::Error::Empty { what, reason }.into());
            }
            captioned.push(view);
        }
        if captioned.is_empty() || (alone.is_empty() && config.pretrain.image_only > 0) {
            let what = "the teachers' file".to_owned();
            let reason = "it lacks views with a caption, or views without one".to_owned();
            return Err(aurora_data::Error::Empty { what, reason }.into());
        }
        Ok(Self { config, teachers, tokens, pack, captioned, alone })
    }

    /// Batch of a step: a function of seed and step alone.
    ///
    /// # Errors
    /// Any candle error.
    pub fn batch(&self, step: u64) -> Result<DistillBatch> {
        let (seed, settings) = (self.config.seed, &self.config.pretrain);
        let teachers = self.teachers;
        let device = teachers.text.device();
        let mut views = epoch_sampler(
            &self.captioned,
            (seed, "pretraining pairs"),
            step,
            self.config.data.batch_size,
        );
        let mut texts = Vec::with_capacity(views.len() + settings.text_only);
        let mut text_teacher = Vec::with_capacity(views.len() + settings.text_only);
        let mut ids = Vec::with_capacity(views.len());
        let mut stream = Stream::new(seed, "pretraining texts", step, 0);
        for &view in &views {
            let row = teachers.view_rows[view as usize] as usize;
            // Half of the captions come with their keywords, the form that is evaluated.
            let (keywords, source) = if stream.uniform() < 0.5 {
                (Keywords::All, &teachers.text_all)
            } else {
                (Keywords::Never, &teachers.text)
            };
            texts.push(self.pack.caption(row, 0, keywords, &mut stream)?);
            text_teacher.push(source.get(row)?);
            ids.push(self.pack.concept(row)?);
        }
        for _ in 0..settings.text_only {
            let row = stream.below(teachers.string_texts.len());
            texts.push(teachers.string_texts[row].clone());
            text_teacher.push(teachers.strings.get(row)?);
        }
        views.extend(epoch_sampler(
            &self.alone,
            (seed, "pretraining pictures"),
            step,
            settings.image_only,
        ));

        let (token_ids, mask) =
            self.tokens.encode_batch(&texts, self.config.model.max_positions, Padding::Longest)?;
        let text_teacher = Tensor::stack(&text_teacher, 0)?;
        let count = views.len();
        let views = Tensor::from_vec(views, count, device)?;
        Ok(DistillBatch {
            images: normalized(&teachers.views.index_select(&views, 0)?)?,
            token_ids: self.mask_tokens(&token_ids, step)?,
            mask,
            ids,
            image_teacher: teachers.image.index_select(&views, 0)?,
            patch_distill: teachers.patch_distill.index_select(&views, 0)?.to_dtype(DType::F32)?,
            image_joint: teachers.image_joint.index_select(&views, 0)?,
            text_joint: teachers.joint(&text_teacher)?,
            text_teacher,
        })
    }

    /// Token masking: replaces a share of the word pieces by `[MASK]`.
    fn mask_tokens(&self, token_ids: &Tensor, step: u64) -> Result<Tensor> {
        let special = self.tokens.special();
        let kept = [special.pad, special.cls, special.sep];
        let mut stream = Stream::new(self.config.seed, "token mask", step, 0);
        let mut ids: Vec<u32> = token_ids.flatten_all()?.to_vec1()?;
        for id in &mut ids {
            if !kept.contains(id) && stream.uniform() < self.config.pretrain.mask_prob {
                *id = special.mask;
            }
        }
        Ok(Tensor::from_vec(ids, token_ids.shape(), token_ids.device())?)
    }
}

/// Epoch sampler: items `step * count ..` of an endless sequence of epochs, each shuffled anew.
fn epoch_sampler(items: &[u32], (seed, purpose): (u64, &str), step: u64, count: usize) -> Vec<u32> {
    let mut drawn = Vec::with_capacity(count);
    let mut shuffled: Option<(u64, Vec<u32>)> = None;
    for position in step * count as u64..(step + 1) * count as u64 {
        let (epoch, place) =
            (position / items.len() as u64, (position % items.len() as u64) as usize);
        if shuffled.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let mut order = items.to_vec();
            Stream::new(seed, purpose, epoch, 0).shuffle(&mut order);
            shuffled = Some((epoch, order));
        }
        drawn.extend(shuffled.as_ref().and_then(|(_, order)| order.get(place)));
    }
    drawn
}

/// Normalizes pixels (images, size, size, 3) u8 to (images, 3, size, size) f32, as [`transform`] does.
fn normalized(pixels: &Tensor) -> Result<Tensor> {
    let device = pixels.device();
    let mean = Tensor::new(&transform::MEAN, device)?;
    let std = Tensor::new(&transform::STD, device)?;
    let values = (pixels.to_dtype(DType::F32)? / 255.0)?;
    let values = values.broadcast_sub(&mean)?.broadcast_div(&std)?;
    Ok(values.permute((0, 3, 1, 2))?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_once_an_epoch_whatever_the_batch_size() {
        let items: Vec<u32> = (10..27).collect();
        let batches = |count: usize, steps: u64| -> Vec<u32> {
            (0..steps).flat_map(|step| epoch_sampler(&items, (3, "test"), step, count)).collect()
        };
        let mut first = batches(1, 17);
        assert_eq!(
            batches(5, 7)[..17],
            first[..],
            "the sequence does not depend on the batch size"
        );
        assert_ne!(first, batches(1, 34)[17..], "an epoch has an order of its own");
        first.sort_unstable();
        assert_eq!(first, items);
        assert_eq!(batches(40, 1).len(), 40);
        assert!(epoch_sampler(&items, (3, "test"), 9, 0).is_empty());
    }

    #[test]
    fn pixels_are_normalized_channel_by_channel() {
        let pixels =
            Tensor::from_vec(vec![0u8, 255, 51], (1, 1, 1, 3), &candle_core::Device::Cpu).unwrap();
        let found: Vec<f32> =
            normalized(&pixels).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (channel, value) in [0f32, 1.0, 0.2].into_iter().enumerate() {
            let expected = (value - transform::MEAN[channel]) / transform::STD[channel];
            assert!((found[channel] - expected).abs() < 1e-6, "{found:?}");
        }
    }
}
