//! What can be wrong with a configuration. Every message names the key by its full path.

use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The text is not TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// Where the text comes from.
        origin: String,
        /// The parser's message, with line and column.
        message: String,
    },

    /// An override that is not `key=value`.
    #[error("--set {text}: expected section.key=value, for example --set {example}")]
    Override {
        /// What was given.
        text: String,
        /// What would do.
        example: &'static str,
    },

    /// A key that does not exist.
    #[error(
        "{origin}: unknown key `{key}`{}; allowed {}: {}",
        suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default(),
        key.rsplit_once('.').map_or("at the top".to_owned(), |(s, _)| format!("in [{s}]")),
        allowed.join(", ")
    )]
    UnknownKey {
        /// Where it was given.
        origin: String,
        /// Full path of the key.
        key: String,
        /// What its section (or the top) may hold.
        allowed: Vec<String>,
        /// Full path of the key that is nearest.
        suggestion: Option<String>,
    },

    /// A value of the wrong type.
    #[error("{origin}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// Where it was given.
        origin: String,
        /// Full path of the key.
        key: String,
        /// What it should be.
        expected: String,
        /// What was found, with its value.
        found: String,
    },

    /// A value of the right type that is not allowed.
    #[error("{origin}: `{key}` is {value}, allowed: {allowed}")]
    BadValue {
        /// Where it was given.
        origin: String,
        /// Full path of the key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },

    /// Values that are right one by one and do not go together.
    #[error("configuration: {0}")]
    Conflict(String),
}
