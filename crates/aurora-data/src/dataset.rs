//! Dataset: an ordered list of samples with concept ids, images and captions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aurora_kernels::random::Stream;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::caption::{Keywords, compose};
use crate::folder::Captions;
use crate::on_error::SkipLog;
use crate::source::{self, ReadOptions};
use crate::transform::Transform;
use crate::video::clip;
use crate::{ByteSource, Error, Image, Media, Result, Sample, Split};

/// Time at which images are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decode {
    /// All at once, in parallel, when the dataset is created; an image that does not decode is an
    /// error then. For sets that fit in memory.
    #[default]
    AtLoad,
    /// At every use, in the loader's threads.
    OnUse,
}

/// A sample, optionally with its decoded image.
#[derive(Debug)]
struct Item {
    sample: Sample,
    image: Option<Image>,
    concept: i64,
}

impl Item {
    fn decode(sample: &Sample) -> Result<Image> {
        let failed = |reason: String| Error::Decode {
            shard: sample.shard.to_string(),
            key: sample.key.clone(),
            reason,
        };
        clip::first(&sample.media).map_err(failed)
    }
}

/// Frees the encoded bytes of a decoded image in memory. Clips keep theirs: only their first frame
/// is decoded.
fn release(media: &mut Media) {
    if let Media::Image(content @ ByteSource::Memory(_)) = media {
        *content = ByteSource::default();
    }
}

/// Ordered list of captioned images. Cheap to clone; subsets share the images.
#[derive(Debug, Clone)]
pub struct Dataset {
    items: Arc<Vec<Item>>,
    /// Item indices of this dataset, in order.
    rows: Arc<Vec<usize>>,
}

impl Dataset {
    /// Dataset of samples. Images of one concept share an id; an image without a concept gets its
    /// own.
    ///
    /// # Errors
    /// When there is no sample; with [`Decode::AtLoad`] when an image does not decode.
    pub fn new(samples: Vec<Sample>, decode: Decode) -> Result<Self> {
        Self::new_with(samples, decode, &SkipLog::default())
    }

    /// Like [`Self::new`], with an error policy: with [`Decode::AtLoad`], `skips` handles images
    /// that do not decode.
    ///
    /// # Errors
    /// As [`Self::new`], with a policy that stops; when nothing is left.
    pub fn new_with(samples: Vec<Sample>, decode: Decode, skips: &SkipLog) -> Result<Self> {
        let empty = |reason: &str| Error::Empty {
            what: "the dataset".to_string(),
            reason: reason.to_string(),
        };
        if samples.is_empty() {
            return Err(empty("it was made of no samples"));
        }
        let images: Vec<Option<Result<Image>>> = match decode {
            Decode::OnUse => samples.iter().map(|_| None).collect(),
            Decode::AtLoad => samples.par_iter().map(|sample| Some(Item::decode(sample))).collect(),
        };
        let mut concepts: HashMap<String, i64> = HashMap::new();
        let mut items = Vec::with_capacity(samples.len());
        for (number, (mut sample, image)) in samples.into_iter().zip(images).enumerate() {
            let image = match image.transpose() {
                Ok(image) => image,
                Err(error) => {
                    skips.handle(format!("{}: {}", sample.shard, sample.key), error)?;
                    continue;
                }
            };
            let name = match &sample.concept {
                Some(concept) => concept.clone(),
                // Unique fallback concept, not expressible in a file: shard, key and number.
                None => format!("{}\u{0}{}\u{0}{number}", sample.shard, sample.key),
            };
            let next = concepts.len() as i64;
            let concept = *concepts.entry(name).or_insert(next);
            if image.is_some() {
                release(&mut sample.media);
            }
            items.push(Item { sample, image, concept });
        }
        if items.is_empty() {
            return Err(empty("no image of it decodes"));
        }
        let rows = (0..items.len()).collect();
        Ok(Self { items: Arc::new(items), rows: Arc::new(rows) })
    }

    /// Reads shards, folders and annotations, in the order given.
    ///
    /// # Errors
    /// Those of [`source::read`] and [`Self::new`].
    pub fn open<P: AsRef<Path>>(paths: &[P], captions: Captions, decode: Decode) -> Result<Self> {
        let options = ReadOptions { captions, ..ReadOptions::default() };
        let mut samples = Vec::new();
        for path in paths {
            samples.extend(source::read(path.as_ref(), &options, &SkipLog::default())?);
        }
        Self::new(samples, decode)
    }

    /// Subset of one split. It may be empty.
    #[must_use]
    pub fn split(&self, split: Split) -> Self {
        self.filter(|sample| sample.split == Some(split))
    }

    /// Subset of the samples for which `keep` returns true, in the same order and with the same
    /// concept ids.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        let kept = |&row: &usize| self.items.get(row).is_some_and(|item| keep(&item.sample));
        let rows = self.rows.iter().copied().filter(kept).collect();
        Self { items: Arc::clone(&self.items), rows: Arc::new(rows) }
    }

    /// Dataset with every image decoded and resized to a square once, so that transforms need not
    /// resize.
    ///
    /// # Errors
    /// When an image does not decode or `size` is 0.
    pub fn resized(&self, size: usize) -> Result<Self> {
        let items = (0..self.len())
            .into_par_iter()
            .map(|index| {
                let item = self.item(index)?;
                let image = self.image(index)?.resize(size, None)?;
                let mut sample = item.sample.clone();
                release(&mut sample.media);
                Ok(Item { sample, image: Some(image), concept: item.concept })
            })
            .collect::<Result<Vec<Item>>>()?;
        let rows = (0..items.len()).collect();
        Ok(Self { items: Arc::new(items), rows: Arc::new(rows) })
    }

    /// True if every image is decoded and in memory.
    pub fn is_decoded(&self) -> bool {
        self.rows.iter().all(|&row| self.items.get(row).is_some_and(|item| item.image.is_some()))
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are no samples.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn item(&self, index: usize) -> Result<&Item> {
        let item = self.rows.get(index).and_then(|&row| self.items.get(row));
        item.ok_or(Error::OutOfRange { index, count: self.len() })
    }

    /// Sample at `index`. The encoded bytes of an image decoded at load are no longer in memory.
    ///
    /// # Errors
    /// When `index` is past the end.
    pub fn sample(&self, index: usize) -> Result<&Sample> {
        self.item(index).map(|item| &item.sample)
    }

    /// Iterator over the samples in order.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rows.iter().filter_map(|&row| self.items.get(row)).map(|item| &item.sample)
    }

    /// Concept id of a sample.
    ///
    /// # Errors
    /// When `index` is past the end.
    pub fn concept(&self, index: usize) -> Result<i64> {
        self.item(index).map(|item| item.concept)
    }

    /// Concept ids in order.
    pub fn concepts(&self) -> Vec<i64> {
        let items = self.rows.iter().filter_map(|&row| self.items.get(row));
        items.map(|item| item.concept).collect()
    }

    /// Decoded image of a sample; the first frame of a clip.
    ///
    /// # Errors
    /// When `index` is past the end or the image does not decode.
    pub fn image(&self, index: usize) -> Result<Cow<'_, Image>> {
        let item = self.item(index)?;
        match &item.image {
            Some(image) => Ok(Cow::Borrowed(image)),
            None => Item::decode(&item.sample).map(Cow::Owned),
        }
    }

    /// Caption `number` (modulo the number of captions) of a sample, with its keywords.
    ///
    /// # Errors
    /// When `index` is past the end or the sample has no caption.
    pub fn caption(
        &self,
        index: usize,
        number: usize,
        keywords: Keywords,
        stream: &mut Stream,
    ) -> Result<String> {
        let sample = self.sample(index)?;
        let count = sample.captions.len().max(1);
        let caption = sample.captions.get(number % count).ok_or_else(|| Error::NoCaption {
            shard: sample.shard.to_string(),
            key: sample.key.clone(),
        })?;
        Ok(compose(caption, &sample.keywords, keywords, stream))
    }

    /// Evaluation texts: every caption with the index of its sample, in order. [`Keywords::Sample`]
    /// counts as [`Keywords::All`] here.
    pub fn texts(&self, keywords: Keywords) -> Vec<(usize, String)> {
        let mode = if keywords == Keywords::Never { Keywords::Never } else { Keywords::All };
        let mut stream = Stream::new(0, "unused", 0, 0);
        let mut out = Vec::with_capacity(self.len());
        for (index, sample) in self.samples().enumerate() {
            for caption in &sample.captions {
                out.push((index, compose(caption, &sample.keywords, mode, &mut stream)));
            }
        }
        out
    }

    /// Image batch of `indices`: (batch, 3, size, size) f32, normalized, computed in parallel.
    /// Meant for transforms that draw no random numbers.
    ///
    /// # Errors
    /// When an index is past the end or an image does not decode.
    pub fn images(&self, indices: &[usize], transform: &dyn Transform) -> Result<Tensor> {
        let size = transform.size();
        let mut out = vec![0f32; indices.len() * 3 * size * size];
        if out.is_empty() {
            return Err(Error::Empty {
                what: "the batch of images".to_string(),
                reason: format!("{} images of {size} pixels were asked for", indices.len()),
            });
        }
        out.par_chunks_mut(3 * size * size).zip(indices).try_for_each(|(out, &index)| {
            let mut stream = Stream::new(0, "augment", 0, index as u64);
            transform.apply(&*self.image(index)?, &mut stream, out)
        })?;
        Ok(Tensor::from_vec(out, (indices.len(), 3, size, size), &Device::Cpu)?)
    }
}
