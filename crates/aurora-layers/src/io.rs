//! JSON and text files: typed reads, atomic writes.

use crate::{Error, Result};
use std::path::Path;

/// Reads a JSON file; the error says that it is not `what` when it does not parse.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        action: "read",
        path: path.into(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| Error::Format {
        path: path.into(),
        reason: format!("not {what}: {error}"),
    })
}

/// Writes a text file atomically: aside first, then renamed into place.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("partial");
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
    written.map_err(|source| Error::File { action: "write", path: path.into(), source })
}
