//! Errors of models, adapters and checkpoints; messages name the tensor and the way out.

use std::path::PathBuf;

/// Error of this crate. It names the value given, the value found, and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// Attempted action: "read", "write", "create".
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// File whose content is not what its name promises.
    #[error("{path}: {reason}")]
    Format {
        /// File.
        path: PathBuf,
        /// Fault, and what was expected.
        reason: String,
    },
    /// Tensors are missing, unexpected or of another shape; every offender is listed.
    #[error("{what} does not fit: {report}")]
    Mismatch {
        /// Object being loaded.
        what: String,
        /// Lists of missing, unexpected and misshapen tensors.
        report: String,
    },
    /// Model or adapter configuration that contradicts itself.
    #[error("{field} = {value}: {reason}")]
    Config {
        /// Field, as written in the configuration.
        field: String,
        /// Value of the field.
        value: String,
        /// Reason, and the values that are allowed.
        reason: String,
    },
    /// Adapter made for other base weights.
    #[error(
        "the adapter in {path} was made for a backbone with fingerprint {expected}, but this backbone has {found}; \
         load it on the backbone, and for the image size, that it was trained with"
    )]
    OtherBackbone {
        /// Adapter folder.
        path: PathBuf,
        /// Fingerprint in the adapter's configuration.
        expected: String,
        /// Fingerprint of the backbone at hand.
        found: String,
    },
    /// Error of a tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(field: &str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), value: value.to_string(), reason: reason.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
