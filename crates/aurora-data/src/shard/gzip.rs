//! Gzipped shards, decompressed into memory as a whole.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// Magic bytes of gzip.
pub(super) const START: [u8; 2] = [0x1f, 0x8b];

/// Decompression limits: absolute, and as a multiple of the compressed size. Images are already
/// compressed, so a gzipped shard grows only by its texts and padding; a larger expansion is a
/// decompression bomb.
const UNPACKED: (u64, u64) = (64 << 20, 32);

/// Decompressed tar.
///
/// # Errors
/// A stream that is damaged or truncated, or exceeds the limits.
pub(super) fn unpacked(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let most = UNPACKED.0 + UNPACKED.1 * bytes.len() as u64;
    let mut tar = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut tar);
    read.map_err(|e| Error::Truncated {
        shard: name.to_string(),
        place: format!("after {} unpacked bytes", tar.len()),
        reason: format!("the compressed stream is damaged or cut ({e})"),
    })?;
    if tar.len() as u64 > most {
        let reason = format!(
            "its {} bytes unpack to more than {most}, which no images do; unpack it with gunzip if it is right",
            bytes.len()
        );
        return Err(Error::NotTar { shard: name.to_string(), reason });
    }
    Ok(tar)
}
