//! Writer of one shard: a tar whose bytes depend on its members alone.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::ShardEntry;
use super::shard_members::ShardMembers;
use crate::digest::hexadecimal;
use crate::{Error, Result};

/// Size of a tar block in bytes.
const BLOCK: u64 = 512;

/// Shard in progress.
pub(super) struct ShardWriter {
    name: String,
    folder: PathBuf,
    tar: tar::Builder<Hashed>,
    bytes: u64,
    samples: u64,
}

/// File with a running SHA-256.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.file.write(data)?;
        self.hash.update(data.get(..count).unwrap_or(data));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// File name of shard `number`.
fn name(number: usize) -> String {
    format!("shard-{number:06}.tar")
}

/// Temporary path of an unfinished shard. The dot keeps it from being taken for a shard.
fn aside(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.part"))
}

/// Length of a sample in a shard, in bytes.
pub(super) fn length(members: &ShardMembers) -> u64 {
    members.files.iter().map(|(_, data)| BLOCK + (data.len() as u64).next_multiple_of(BLOCK)).sum()
}

/// Removes the leftovers of an interrupted run: temporary files, and shards beyond those of the
/// manifest.
pub(super) fn remove_leftovers(folder: &Path, shards: usize) -> Result<()> {
    for number in shards.. {
        let stale = [folder.join(name(number)), aside(folder, &name(number))];
        let there: Vec<_> = stale.iter().filter(|path| path.exists()).collect();
        for path in &there {
            fs::remove_file(path)
                .map_err(|source| Error::Write { path: path.to_path_buf(), source })?;
        }
        if there.is_empty() {
            break;
        }
    }
    Ok(())
}

impl ShardWriter {
    pub(super) fn create(folder: &Path, number: usize) -> Result<Self> {
        let name = name(number);
        let path = aside(folder, &name);
        let file = File::create(&path).map_err(|source| Error::Write { path, source })?;
        let hashed = Hashed { file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new() };
        let tar = tar::Builder::new(hashed);
        // Two empty blocks end an archive.
        Ok(Self { name, folder: folder.to_path_buf(), tar, bytes: 2 * BLOCK, samples: 0 })
    }

    /// Length of the shard in bytes if it were closed now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: aside(&self.folder, &self.name), source }
    }

    /// Appends a sample. Its key is a number, so no untrusted name becomes part of a path.
    pub(super) fn append(&mut self, key: &str, members: &ShardMembers) -> Result<()> {
        for (extension, data) in &members.files {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let done = self.tar.append_data(&mut header, format!("{key}.{extension}"), &data[..]);
            done.map_err(|source| self.failed(source))?;
        }
        self.bytes += length(members);
        self.samples += 1;
        Ok(())
    }

    /// Closes the archive and renames it.
    pub(super) fn finish(self) -> Result<ShardEntry> {
        let (path, name) = (aside(&self.folder, &self.name), self.folder.join(&self.name));
        let (bytes, samples) = (self.bytes, self.samples);
        let finish = || -> io::Result<String> {
            let Hashed { file, hash } = self.tar.into_inner()?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&path, &name)?;
            Ok(hexadecimal(&hash.finalize()))
        };
        let sha256 = finish().map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(ShardEntry { file: self.name, sha256, bytes, samples, next: 0, skipped: Vec::new() })
    }
}
