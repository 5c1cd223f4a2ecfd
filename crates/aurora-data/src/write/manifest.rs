//! Manifest of a folder of shards: fingerprint of the inputs, and hashes of the shards.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ShardOptions, shard_members, write_whole};
use crate::digest::hexadecimal;
use crate::{Error, Media, Result, Sample, Skipped};

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Byte limit of a manifest: some hundred thousand shards.
const MAX_BYTES: u64 = 64 << 20;

/// Manifest of a folder of shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of the inputs: the samples' keys, lengths and records, and the options that affect
    /// the bytes.
    pub work: String,
    /// Number of samples to write.
    pub samples: u64,
    /// True if all samples are written.
    pub complete: bool,
    /// The shards in order.
    pub shards: Vec<ShardEntry>,
}

/// Manifest entry of a shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// File name within the folder.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Number of samples.
    pub samples: u64,
    /// Number of the next sample after the shard.
    pub next: u64,
    /// Samples skipped since the previous shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

impl Manifest {
    /// Number of samples in all shards.
    pub fn written(&self) -> u64 {
        self.shards.iter().map(|shard| shard.samples).sum()
    }

    /// Skipped samples, in order.
    pub fn skipped(&self) -> impl Iterator<Item = &Skipped> {
        self.shards.iter().flat_map(|shard| &shard.skipped)
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// When there is none, or it does not parse.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
        match read {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { path });
            }
            Err(source) => return Err(Error::Read { path, source }),
            Ok(_) => {}
        }
        serde_json::from_slice(&text)
            .map_err(|e| Error::Manifest { path, reason: format!("it is no manifest: {e}") })
    }

    /// Manifest in `folder`, cut to its leading intact shards, with the number of shards it listed;
    /// a new one where there is none.
    pub(super) fn open(folder: &Path, work: String) -> Result<(Self, usize)> {
        let failed = |source| Error::Write { path: folder.to_path_buf(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut manifest = match Self::read(folder) {
            Ok(manifest) => manifest,
            Err(Error::Missing { .. }) => {
                if let Some(entry) = fs::read_dir(folder).map_err(failed)?.next() {
                    let found = entry.map_err(failed)?.file_name().display().to_string();
                    let reason = format!(
                        "shards are written into a folder that is empty or holds shards of the \
                         same samples; this holds {found} and no {MANIFEST}"
                    );
                    return Err(Error::Manifest { path: folder.to_path_buf(), reason });
                }
                let new = Self { work, samples: 0, complete: false, shards: Vec::new() };
                new.write(folder)?;
                return Ok((new, 0));
            }
            Err(error) => return Err(error),
        };
        if manifest.work != work {
            let reason = "the folder holds shards of other samples, or made with other options; \
                          write into another folder, or remove this one"
                .to_string();
            return Err(Error::Manifest { path: folder.join(MANIFEST), reason });
        }
        let known = manifest.shards.len();
        let whole = manifest.shards.iter().take_while(|shard| shard.check(folder).is_ok()).count();
        if whole < known {
            manifest.shards.truncate(whole);
            manifest.complete = false;
        }
        Ok((manifest, known))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Manifest { path: path.clone(), reason: e.to_string() })?;
        write_whole(&path, (text + "\n").as_bytes())
    }
}

impl ShardEntry {
    /// Verifies the shard in `folder` against this entry; the error says what differs.
    pub(super) fn check(&self, folder: &Path) -> Result<(), String> {
        // A file name from a manifest must not lead out of the folder.
        if Path::new(&self.file).components().count() != 1 || self.file.contains(['/', '\\']) {
            return Err(format!("{:?} is no name of a shard", self.file));
        }
        let mut file = File::open(folder.join(&self.file)).map_err(|e| e.to_string())?;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        if length != self.bytes {
            return Err(format!("it has {length} bytes, not the {} of its manifest", self.bytes));
        }
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(|e| e.to_string())?;
        if hexadecimal(&hash.finalize()) != self.sha256 {
            return Err("its bytes are not those of its manifest; write it again".to_string());
        }
        Ok(())
    }
}

/// Fingerprint of the inputs.
pub(super) fn work(samples: &[Sample], options: &ShardOptions) -> String {
    let mut hash = Sha256::new();
    // The number of threads and the skip limit do not affect the bytes.
    let ShardOptions { shard_bytes, size, encoding, video, seed, on_error, .. } = options;
    hash.update(format!("1 {shard_bytes} {size:?} {encoding:?} {video:?} {seed} {on_error:?}"));
    for sample in samples {
        let kind = match &sample.media {
            Media::Image(_) => "picture",
            Media::Frames(_) => "frames",
            Media::Video(_) => "film",
        };
        let lengths: Vec<u64> =
            sample.media.contents().iter().map(crate::ByteSource::len).collect();
        hash.update(format!("\n{kind} {lengths:?} "));
        hash.update(shard_members::record(sample));
    }
    hexadecimal(&hash.finalize())
}
