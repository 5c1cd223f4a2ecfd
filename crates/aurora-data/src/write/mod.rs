//! Shard writer: samples from any source into tar files that [`crate::shard::read`] reads.
//!
//! Samples are prepared in parallel and written in order, so the bytes do not depend on the number
//! of threads. A shard is written to a temporary file and renamed; the manifest, with each shard's
//! length and SHA-256, is replaced after each. A run that finds a manifest of the same inputs
//! resumes after the last intact shard.

mod manifest;
mod shard_members;
mod shard_writer;

use std::fs;
use std::path::Path;

use rayon::prelude::*;

pub use manifest::{MANIFEST, Manifest, ShardEntry};
pub use shard_members::Encoding;

use crate::video::Sampling;
use crate::{Error, OnError, Result, Sample, SkipLog, Skipped};
use shard_members::ShardMembers;
use shard_writer::ShardWriter;

/// Options of [`write()`].
#[derive(Debug, Clone, PartialEq)]
pub struct ShardOptions {
    /// Size limit of a shard in bytes; a larger single sample gets its own shard.
    pub shard_bytes: u64,
    /// Side to which images with a longer side are resized, as in evaluation; `None`: image bytes
    /// stay as they are.
    pub size: Option<usize>,
    /// Encoding of resized images and extracted frames.
    pub encoding: Encoding,
    /// Frame sampling of videos; `None`: videos are stored as they are.
    pub video: Option<Sampling>,
    /// Seed of [`Sampling::Random`].
    pub seed: u64,
    /// Handling of unreadable samples.
    pub on_error: OnError,
    /// Limit of skipped samples.
    pub limit: usize,
    /// Threads; 0 for one per core.
    pub threads: usize,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            shard_bytes: 256 << 20,
            size: None,
            encoding: Encoding::Jpeg,
            video: None,
            seed: 0,
            on_error: OnError::Stop,
            limit: 100,
            threads: 0,
        }
    }
}

/// Report of [`write()`].
#[derive(Debug, Clone, PartialEq)]
pub struct WriteReport {
    /// Manifest as it stands in the folder.
    pub manifest: Manifest,
    /// Intact shards of an earlier run.
    pub kept: usize,
    /// Existing shards that differed from the manifest and were written anew.
    pub replaced: usize,
}

/// Samples prepared at a time, per thread: enough to keep all busy, few enough for memory.
const AHEAD: usize = 8;

/// Writes `samples` into `out` as `shard-000000.tar`, `shard-000001.tar`, ... and their manifest.
/// The key of a sample is its number; its own key and shard are kept in its record. `progress` is
/// called with the samples done and their total.
///
/// # Errors
/// A sample that cannot be read or has no texts, by the policy; a folder with other content, or
/// with shards of other samples or options; I/O errors.
pub fn write(
    samples: &[Sample],
    out: &Path,
    options: &ShardOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<WriteReport> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Worker { step: 0, reason: e.to_string() })?;
    pool.install(|| run(samples, out, options, progress))
}

fn run(
    samples: &[Sample],
    out: &Path,
    options: &ShardOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<WriteReport> {
    if samples.is_empty() {
        return Err(Error::Empty {
            what: "the set of samples".to_string(),
            reason: "there is nothing to write shards of".to_string(),
        });
    }
    let (mut manifest, known) = Manifest::open(out, manifest::work(samples, options))?;
    manifest.samples = samples.len() as u64;
    let kept = manifest.shards.len();
    let mut next = manifest.shards.last().map_or(0, |shard| shard.next);
    progress(next, manifest.samples);
    if !manifest.complete {
        let skipped: usize = manifest.shards.iter().map(|shard| shard.skipped.len()).sum();
        let skips = SkipLog::new(options.on_error, options.limit.saturating_sub(skipped));
        let width = manifest.samples.to_string().len().max(6);
        let mut shard: Option<ShardWriter> = None;
        let mut told = 0;
        let rest = samples.get(next as usize..).unwrap_or_default();
        for chunk in rest.chunks(AHEAD * rayon::current_num_threads()) {
            let first = next;
            let prepared: Vec<Result<ShardMembers>> = chunk
                .par_iter()
                .enumerate()
                .map(|(at, sample)| ShardMembers::prepare(sample, first + at as u64, options))
                .collect();
            for (sample, members) in chunk.iter().zip(prepared) {
                match members {
                    Err(error) => {
                        skips.handle(format!("{}: {}", sample.shard, sample.key), error)?;
                    }
                    Ok(members) => {
                        let bytes = shard_writer::length(&members);
                        if let Some(full) =
                            shard.take_if(|shard| shard.bytes() + bytes > options.shard_bytes)
                        {
                            close(full, next, &skips, &mut told, &mut manifest, out)?;
                        }
                        let open = match &mut shard {
                            Some(open) => open,
                            none => none.insert(ShardWriter::create(out, manifest.shards.len())?),
                        };
                        open.append(&format!("{next:0width$}"), &members)?;
                    }
                }
                next += 1;
                progress(next, manifest.samples);
            }
        }
        match shard {
            Some(last) => close(last, next, &skips, &mut told, &mut manifest, out)?,
            None if manifest.shards.is_empty() => {
                return Err(Error::Empty {
                    what: "the set of samples".to_string(),
                    reason: format!("every one of {} was left out", manifest.samples),
                });
            }
            // Samples skipped after the last shard are recorded with it.
            None => {
                if let Some(last) = manifest.shards.last_mut() {
                    last.next = next;
                    last.skipped.extend(skips.list());
                }
            }
        }
        manifest.complete = true;
        manifest.write(out)?;
    }
    shard_writer::remove_leftovers(out, manifest.shards.len())?;
    let replaced = known - kept;
    Ok(WriteReport { manifest, kept, replaced })
}

/// Renames a finished shard and adds it to the manifest.
fn close(
    shard: ShardWriter,
    next: u64,
    skips: &SkipLog,
    told: &mut usize,
    manifest: &mut Manifest,
    out: &Path,
) -> Result<()> {
    let mut entry = shard.finish()?;
    entry.next = next;
    entry.skipped = new_skips(skips, manifest, told);
    manifest.shards.push(entry);
    manifest.write(out)
}

/// Samples skipped since the last shard.
fn new_skips(skips: &SkipLog, manifest: &Manifest, told: &mut usize) -> Vec<Skipped> {
    if skips.len() == *told {
        return Vec::new();
    }
    *told = skips.len();
    let known = |new: &Skipped| manifest.shards.iter().any(|shard| shard.skipped.contains(new));
    skips.list().into_iter().filter(|new| !known(new)).collect()
}

/// Verifies every shard of a folder against its manifest.
///
/// # Errors
/// A manifest that is missing or invalid; the first shard that is missing or differs.
pub fn verify(folder: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    for shard in &manifest.shards {
        if let Err(reason) = shard.check(folder) {
            return Err(Error::Manifest { path: folder.join(&shard.file), reason });
        }
    }
    Ok(manifest)
}

/// Atomic write: to a temporary file that is renamed.
fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    let aside = path.with_extension("part");
    let failed = |source| Error::Write { path: path.to_path_buf(), source };
    fs::write(&aside, contents).and_then(|()| fs::rename(&aside, path)).map_err(failed)
}
