//! Errors of decoding images and videos.

/// Error of decoding an image or a video. Its text is the reason alone, in one line; the caller
/// that knows the file prefixes its name (see [`crate::Error::Decode`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    kind: DecodeErrorKind,
    message: String,
}

/// Category of a [`DecodeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// No bytes.
    Empty,
    /// Unknown magic bytes.
    UnknownFormat,
    /// A video that needs a decoder missing from this build.
    Unsupported,
    /// More pixels than the decoder's limit, by the header.
    TooLarge,
    /// Truncated, damaged, or an unsupported variant of the format.
    Invalid,
    /// Requested frames that do not exist, or are not in order.
    FrameOutOfRange,
    /// The sink refused a frame.
    Sink,
}

impl DecodeError {
    /// Error of a kind, with its reason.
    pub fn new(kind: DecodeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Category of the error.
    pub fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    /// Error of the same kind with its message replaced by `change`.
    pub(crate) fn map_message(self, change: impl FnOnce(String) -> String) -> Self {
        Self { message: change(self.message), ..self }
    }
}

/// Decoder message, as [`DecodeErrorKind::Invalid`].
impl From<String> for DecodeError {
    fn from(message: String) -> Self {
        Self::new(DecodeErrorKind::Invalid, message)
    }
}

impl From<&str> for DecodeError {
    fn from(message: &str) -> Self {
        message.to_string().into()
    }
}

impl From<DecodeError> for String {
    fn from(error: DecodeError) -> Self {
        error.message
    }
}
