//! What can go wrong when a model or an adapter is put together, in words that name the tensor and the way out.

use std::path::PathBuf;

/// Errors of this crate. Each names what was asked for, what was found, and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was attempted: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is there but its content is not what its name promises.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// Tensors are missing, unexpected or of another shape; every offender is listed.
    #[error("{what} does not fit: {report}")]
    Mismatch {
        /// What was being loaded.
        what: String,
        /// The lists of missing, unexpected and misshapen tensors.
        report: String,
    },
    /// A model or adapter description contradicts itself.
    #[error("{field} = {value}: {reason}")]
    Config {
        /// The field, as it is written in the configuration.
        field: String,
        /// Its value.
        value: String,
        /// Why it cannot be, and what can.
        reason: String,
    },
    /// An adapter was made for other base weights.
    #[error(
        "the adapter in {path} was made for a backbone with fingerprint {expected}, but this backbone has {found}; \
         load it on the backbone, and for the image size, that it was trained with"
    )]
    OtherBackbone {
        /// The adapter folder.
        path: PathBuf,
        /// The fingerprint in the adapter's configuration.
        expected: String,
        /// The fingerprint of the backbone at hand.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
