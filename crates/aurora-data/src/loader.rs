//! Batches: threaded, seeded, in order.
//!
//! Batch number `step` is a function of the dataset, the options and `step` alone. Threads
//! compute batches ahead, at most a bounded number, and the consumer puts them in order, so any
//! number of threads gives the same batches, and a run resumed at a step sees what it would have
//! seen. A batch that cannot be made is an error in its place; dropping the iterator stops and
//! joins the threads.

mod threads;

use std::sync::{Arc, Mutex};

use aurora_kernels::random::Stream;
use candle_core::{Device, Tensor};

pub use threads::Batches;

use crate::caption::Keywords;
use crate::tokens::Padding;
use crate::transform::Transform;
use crate::{Dataset, Error, Result, Tokens};

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Seed of order, augmentation, captions and keywords.
    pub seed: u64,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// Threads; with 0 the consumer makes its batches itself.
    pub threads: usize,
    /// Batches that may be ready or in the making beyond one a thread.
    pub prefetch: usize,
    /// Most tokens of a text, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// What length texts are brought to.
    pub padding: Padding,
    /// Whether keywords follow captions.
    pub keywords: Keywords,
}

impl LoaderOptions {
    /// For training: shuffled, full batches only, some of the keywords, two threads.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        Self {
            batch_size,
            seed,
            shuffle: true,
            drop_last: true,
            threads: 2,
            prefetch: 2,
            max_tokens: 35,
            padding: Padding::Longest,
            keywords: Keywords::Sample,
        }
    }

    /// For evaluation: in order, every sample, the caption alone, two threads.
    pub fn evaluation(batch_size: usize) -> Self {
        Self {
            shuffle: false,
            drop_last: false,
            keywords: Keywords::Never,
            ..Self::training(batch_size, 0)
        }
    }
}

/// What one step takes.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Number of the batch since the beginning of the run.
    pub step: u64,
    /// The pass over the dataset it belongs to, from 0.
    pub epoch: u64,
    /// Indices of the samples in the dataset.
    pub indices: Vec<usize>,
    /// Their concepts: equal ids are positives of each other.
    pub concepts: Vec<i64>,
    /// The texts that were tokenized.
    pub texts: Vec<String>,
    /// (batch, 3, size, size) f32, normalised.
    pub images: Tensor,
    /// (batch, length) u32.
    pub input_ids: Tensor,
    /// (batch, length) f32, 1 where there is a token.
    pub attention_mask: Tensor,
}

impl Batch {
    /// The same with its tensors on another device.
    ///
    /// # Errors
    /// What candle reports.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        Ok(Self {
            images: self.images.to_device(device)?,
            input_ids: self.input_ids.to_device(device)?,
            attention_mask: self.attention_mask.to_device(device)?,
            ..self
        })
    }
}

/// Makes batches of a dataset. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    dataset: Dataset,
    transform: Arc<dyn Transform>,
    tokens: Arc<Tokens>,
    options: LoaderOptions,
    /// The order of the epoch last asked for.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl Loader {
    /// A loader over `dataset`.
    ///
    /// # Errors
    /// When there is nothing to load: an empty dataset or batch, or, with `drop_last`, fewer
    /// samples than a batch has.
    pub fn new(
        dataset: Dataset,
        transform: Arc<dyn Transform>,
        tokens: Arc<Tokens>,
        options: LoaderOptions,
    ) -> Result<Self> {
        if options.batch_size == 0 {
            return Err(Error::Option {
                option: "batch_size",
                value: "0".to_string(),
                allowed: "1 or more",
            });
        }
        if dataset.is_empty() {
            return Err(Error::Empty {
                what: "the dataset".to_string(),
                reason: "no sample is in the part that was asked for".to_string(),
            });
        }
        if options.drop_last && dataset.len() < options.batch_size {
            return Err(Error::Empty {
                what: "an epoch".to_string(),
                reason: format!(
                    "{} samples do not fill one batch of {}; lower batch_size",
                    dataset.len(),
                    options.batch_size
                ),
            });
        }
        let order = Mutex::new(None);
        let inner = Arc::new(Inner { dataset, transform, tokens, options, order });
        Ok(Self { inner })
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.inner.dataset
    }

    /// Batches in one pass.
    pub fn steps_per_epoch(&self) -> u64 {
        let (samples, batch) = (self.inner.dataset.len(), self.inner.options.batch_size);
        let steps =
            if self.inner.options.drop_last { samples / batch } else { samples.div_ceil(batch) };
        steps as u64
    }

    /// Batch number `step`, made here and now.
    ///
    /// # Errors
    /// When a picture does not decode, or a sample has no caption.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        self.inner.batch(step, self.steps_per_epoch())
    }

    /// The batches from number `first` up to, not including, `end`; without an end the epochs
    /// never stop. The iterator stops after an error.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn batches(&self, first: u64, end: Option<u64>) -> Result<Batches> {
        Batches::start(self.clone(), first, end.unwrap_or(u64::MAX))
    }

    /// The batches of one pass.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn epoch(&self, epoch: u64) -> Result<Batches> {
        let steps = self.steps_per_epoch();
        self.batches(epoch * steps, Some((epoch + 1) * steps))
    }
}

impl Inner {
    /// The order of an epoch, kept until another is asked for.
    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        // A thread that panicked left the order whole or not at all: it is replaced as one.
        let mut kept = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, order)) = kept.as_ref()
            && *of == epoch
        {
            return Arc::clone(order);
        }
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.options.shuffle {
            Stream::new(self.options.seed, "order", epoch, 0).shuffle(&mut order);
        }
        let order = Arc::new(order);
        *kept = Some((epoch, Arc::clone(&order)));
        order
    }

    fn batch(&self, step: u64, steps_per_epoch: u64) -> Result<Batch> {
        let options = &self.options;
        let (epoch, number) = (step / steps_per_epoch, (step % steps_per_epoch) as usize);
        let order = self.order(epoch);
        let first = number * options.batch_size;
        let indices: Vec<usize> =
            order.iter().copied().skip(first).take(options.batch_size).collect();

        let size = self.transform.size();
        let mut pixels = vec![0f32; indices.len() * 3 * size * size];
        let mut texts = Vec::with_capacity(indices.len());
        let mut concepts = Vec::with_capacity(indices.len());
        for (row, &index) in indices.iter().enumerate() {
            let mut stream = Stream::new(options.seed, "augment", epoch, index as u64);
            let area = row * 3 * size * size..(row + 1) * 3 * size * size;
            if let Some(out) = pixels.get_mut(area) {
                self.transform.apply(&*self.dataset.picture(index)?, &mut stream, out)?;
            }
            let mut stream = Stream::new(options.seed, "caption", epoch, index as u64);
            let captions = self.dataset.sample(index)?.captions.len();
            let caption = if options.shuffle { stream.below(captions) } else { 0 };
            texts.push(self.dataset.caption(index, caption, options.keywords, &mut stream)?);
            concepts.push(self.dataset.concept(index)?);
        }
        let shape = (indices.len(), 3, size, size);
        let images = Tensor::from_vec(pixels, shape, &Device::Cpu)?; // (batch, 3, size, size)
        let (input_ids, attention_mask) =
            self.tokens.encode_batch(&texts, options.max_tokens, options.padding)?;
        Ok(Batch { step, epoch, indices, concepts, texts, images, input_ids, attention_mask })
    }
}
