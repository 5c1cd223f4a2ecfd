//! Worker threads of a loader.
//!
//! A worker takes a permit, then the next step's number, makes the batch and sends it. There are
//! `num_workers + prefetch` permits, or as many as batches fit in the memory limit, and the
//! consumer returns one for each batch it yields, so no more batches than that exist at a time.
//! Since numbers are taken in order, the step that the consumer waits for always has a permit.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{Batch, Loader, LoaderState};
use crate::{Error, Result};

/// Iterator over batches in the order of their steps.
pub struct Batches {
    loader: Loader,
    next: u64,
    end: u64,
    /// True after a batch that could not be made: the iterator has ended.
    failed: bool,
    /// Worker pool; `None` when batches are made on the consumer's thread.
    pool: Option<Pool>,
}

struct Pool {
    permits: Sender<()>,
    results: Receiver<(u64, Result<Batch>)>,
    /// Batches that arrived out of order.
    early: BTreeMap<u64, Result<Batch>>,
    workers: Vec<JoinHandle<()>>,
}

impl Batches {
    pub(super) fn start(loader: Loader, first: u64, end: u64) -> Result<Self> {
        let pool = if loader.inner.options.num_workers == 0 || first >= end {
            None
        } else {
            Some(Pool::start(&loader, first, end)?)
        };
        Ok(Self { loader, next: first, end, failed: false, pool })
    }

    /// Step of the next batch, or of the one that could not be made.
    pub fn next_step(&self) -> u64 {
        self.next
    }

    /// State at the next batch, or at the one that could not be made.
    pub fn state(&self) -> LoaderState {
        self.loader.state(self.next)
    }

    fn take(&mut self) -> Result<Batch> {
        let step = self.next;
        let Some(pool) = &mut self.pool else { return self.loader.batch(step) };
        loop {
            if let Some(result) = pool.early.remove(&step) {
                // No worker is left to take it once every step has been claimed.
                pool.permits.try_send(()).ok();
                return result;
            }
            match pool.results.recv() {
                Ok((step, result)) => {
                    pool.early.insert(step, result);
                }
                Err(_) => {
                    let reason = "every thread ended before the batch was made".to_string();
                    return Err(Error::Worker { step, reason });
                }
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.end {
            return None;
        }
        let batch = self.take();
        match &batch {
            Ok(_) => self.next += 1,
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if let Some(Pool { permits, results, workers, .. }) = self.pool.take() {
            // With the channels closed, every worker ends after its current batch.
            drop((permits, results));
            for worker in workers {
                worker.join().ok();
            }
        }
    }
}

impl Pool {
    fn start(loader: &Loader, first: u64, end: u64) -> Result<Self> {
        let ahead = loader.ahead();
        let (permits, permitted) = bounded(ahead);
        let (send, results) = unbounded();
        let counter = Arc::new(AtomicU64::new(first));
        for _ in 0..ahead {
            permits.try_send(()).ok();
        }
        let mut pool = Self { permits, results, early: BTreeMap::new(), workers: Vec::new() };
        // More threads than batches would only wait.
        for number in 0..loader.inner.options.num_workers.min(ahead) {
            let (loader, counter) = (loader.clone(), Arc::clone(&counter));
            let (permitted, send) = (permitted.clone(), send.clone());
            let worker = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || work(&loader, &counter, end, &permitted, &send))
                .map_err(|e| Error::Worker { step: first, reason: e.to_string() })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }
}

fn work(
    loader: &Loader,
    counter: &AtomicU64,
    end: u64,
    permitted: &Receiver<()>,
    send: &Sender<(u64, Result<Batch>)>,
) {
    while permitted.recv().is_ok() {
        let step = counter.fetch_add(1, Ordering::Relaxed);
        if step >= end {
            return;
        }
        // A panic must reach the consumer, or it would wait for this step forever.
        let result = catch_unwind(AssertUnwindSafe(|| loader.batch(step))).unwrap_or_else(|_| {
            let reason = "it panicked; its message is on standard error".to_string();
            Err(Error::Worker { step, reason })
        });
        if send.send((step, result)).is_err() {
            return;
        }
    }
}
