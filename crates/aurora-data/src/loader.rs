//! Data loader: multi-threaded, seeded, ordered batches.
//!
//! Batch number `step` is a function of the dataset, the options and `step` alone. Worker threads
//! compute batches ahead, at most a bounded number, and the consumer puts them in order, so any
//! number of threads gives the same batches, and a run resumed at a step sees what it would have
//! seen. A batch that cannot be made is an error in its place; dropping the iterator stops and
//! joins the threads.
//!
//! Each epoch has one order of all samples ([`Shuffle`]). The ranks take their shares of it in
//! turn, without communication. The position of a run in its data is a [`LoaderState`].
//!
//! With a policy that skips broken samples ([`Loader::with_skips`]), a replacement takes the place
//! of a broken sample: the first good one of a sequence drawn for that place, so that batches stay
//! full and functions of their numbers. In training it counts; in evaluation [`Batch::valid`] marks
//! it as not counting.

mod batch;
mod collate;
mod options;
mod plan;
mod shuffle;
mod state;
mod threads;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use batch::{Batch, BatchAnswers};
pub use options::{LastBatch, LoaderOptions, Mode, TextField};
pub use shuffle::Shuffle;
pub use state::LoaderState;
pub use threads::Batches;

use plan::Plan;
use state::Contents;

use crate::transform::Transform;
use crate::{Dataset, Error, OnError, Result, SkipLog, Tokenizer};

/// Loader of batches from a dataset. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    dataset: Dataset,
    transform: Arc<dyn Transform>,
    tokenizer: Arc<Tokenizer>,
    options: LoaderOptions,
    plan: Plan,
    skips: Arc<SkipLog>,
    /// Lengths of the runs of consecutive samples of one shard.
    runs: Arc<Vec<usize>>,
    orders: Arc<Orders>,
    contents: Arc<OnceLock<Contents>>,
}

/// Cached orders of the last even and the last odd epoch: at an epoch boundary, threads need both.
#[derive(Default)]
struct Orders([Mutex<Option<EpochOrder>>; 2]);

/// Order of one epoch.
struct EpochOrder {
    epoch: u64,
    order: Arc<Vec<usize>>,
}

impl Loader {
    /// Loader over `dataset`. It stops at the first broken sample.
    ///
    /// # Errors
    /// When there is nothing to load: an empty dataset or batch, or, with [`LastBatch::Drop`],
    /// fewer samples than a batch of every rank has. Options that contradict each other.
    pub fn new(
        dataset: Dataset,
        transform: Arc<dyn Transform>,
        tokenizer: Arc<Tokenizer>,
        options: LoaderOptions,
    ) -> Result<Self> {
        options.check(dataset.len())?;
        if transform.size() == 0 {
            let (option, value) = ("size", "0".to_string());
            return Err(Error::Option { option, value, allowed: "a side of 1 pixel or more" });
        }
        let plan = Plan::new(&options, dataset.len());
        let skips = Arc::new(SkipLog::new(OnError::Stop, 0));
        let runs = Arc::new(runs(&dataset));
        let (orders, contents) = (Arc::default(), Arc::default());
        let inner =
            Inner { dataset, transform, tokenizer, options, plan, skips, runs, orders, contents };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sets the policy for broken samples. Skipped samples are listed in `skips`, in the order of
    /// names. Only how far threads had got when the limit was passed depends on the threads.
    #[must_use]
    pub fn with_skips(self, skips: Arc<SkipLog>) -> Self {
        let inner = Arc::unwrap_or_clone(self.inner);
        Self { inner: Arc::new(Inner { skips, ..inner }) }
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.inner.dataset
    }

    /// Error policy and log of skipped samples.
    pub fn skips(&self) -> &SkipLog {
        &self.inner.skips
    }

    /// Batches per epoch, equal on every rank.
    pub fn steps_per_epoch(&self) -> u64 {
        self.inner.plan.steps()
    }

    /// Batch number `step`, computed on the calling thread.
    ///
    /// # Errors
    /// When an image does not decode, or a sample has no caption, and the policy is to stop.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        self.inner.batch(step)
    }

    /// Iterator over the batches `first..end`; without an end it is infinite. It stops after an
    /// error.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn batches(&self, first: u64, end: Option<u64>) -> Result<Batches> {
        Batches::start(self.clone(), first, end.unwrap_or(u64::MAX))
    }

    /// Iterator over the batches of one epoch.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn epoch(&self, epoch: u64) -> Result<Batches> {
        let steps = self.steps_per_epoch();
        self.batches(epoch * steps, Some((epoch + 1) * steps))
    }

    /// State of a run before batch number `step`.
    pub fn state(&self, step: u64) -> LoaderState {
        let Inner { options, plan, .. } = &*self.inner;
        LoaderState::new(options, plan, self.contents(), step)
    }

    /// Step at which a run resumes: [`Self::batches`] from there on are those that it has not seen.
    ///
    /// # Errors
    /// When `state` is of another dataset, or of options that give other batches; the message names
    /// the difference.
    pub fn resume(&self, state: &LoaderState) -> Result<u64> {
        state.step(&self.state(0), &self.inner.plan)
    }

    /// Limit of batches that are ready or in progress.
    fn ahead(&self) -> usize {
        let bytes = self.inner.row_length().saturating_mul(self.inner.options.batch_size);
        self.inner.options.ahead(bytes.saturating_mul(size_of::<f32>()) as u64)
    }

    fn contents(&self) -> &Contents {
        self.inner.contents.get_or_init(|| Contents::of(&self.inner.dataset, &self.inner.runs))
    }
}

impl Inner {
    /// Order of an epoch, cached until one after the next is requested.
    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let [even, odd] = &self.orders.0;
        let kept = if epoch.is_multiple_of(2) { even } else { odd };
        // Poisoning is harmless: the order is replaced as a whole.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.epoch == epoch) {
            return Arc::clone(&kept.order);
        }
        let order = self.options.shuffle.epoch_order(&self.runs, self.options.seed, epoch);
        let order = Arc::new(order);
        *kept = Some(EpochOrder { epoch, order: Arc::clone(&order) });
        order
    }
}

/// Lengths of the runs of consecutive samples of one shard.
fn runs(dataset: &Dataset) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut last = None;
    for sample in dataset.samples() {
        match runs.last_mut() {
            Some(run) if last == Some(&sample.shard) => *run += 1,
            _ => runs.push(1),
        }
        last = Some(&sample.shard);
    }
    runs
}
