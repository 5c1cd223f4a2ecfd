//! Configuration errors. Every message names the key by its full path.

use std::path::PathBuf;

/// Error in a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause, from the system.
        source: std::io::Error,
    },

    /// The text is not TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// Source of the text.
        origin: String,
        /// The parser's message, with line and column.
        message: String,
    },

    /// An override is not `key=value`.
    #[error("--set {text}: expected section.key=value, for example --set {example}")]
    Override {
        /// Text of the override.
        text: String,
        /// Example of a valid override.
        example: &'static str,
    },

    /// The key does not exist.
    #[error(
        "{origin}: unknown key `{key}`{}; allowed {}: {}",
        suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default(),
        key.rsplit_once('.').map_or("at the top".to_owned(), |(s, _)| format!("in [{s}]")),
        allowed.join(", ")
    )]
    UnknownKey {
        /// Place where it was given.
        origin: String,
        /// Full path of the key.
        key: String,
        /// Keys allowed in its section (or at the top).
        allowed: Vec<String>,
        /// Full path of the nearest key.
        suggestion: Option<String>,
    },

    /// The value has the wrong type.
    #[error("{origin}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// Place where it was given.
        origin: String,
        /// Full path of the key.
        key: String,
        /// Expected type.
        expected: String,
        /// Type found, with the value.
        found: String,
    },

    /// The value has the right type and is not allowed.
    #[error("{origin}: `{key}` is {value}, allowed: {allowed}")]
    BadValue {
        /// Where it was given.
        origin: String,
        /// Place where it was given.
        key: String,
        /// The value.
        value: String,
        /// Allowed values.
        allowed: String,
    },

    /// Values that are valid one by one contradict each other.
    #[error("configuration: {0}")]
    Conflict(String),
}
