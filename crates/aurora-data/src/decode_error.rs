//! Why bytes are no image or video that can be decoded.

/// What is wrong with the bytes of an image or a video. Its text is the reason alone, in one line: who knows the file
/// puts its name before it (see [`crate::Error::Decode`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    kind: DecodeErrorKind,
    message: String,
}

/// What a [`DecodeError`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// There are no bytes.
    Empty,
    /// The first bytes are of no format that is known.
    UnknownFormat,
    /// A video that needs a decoder which this build does not have.
    Unsupported,
    /// More pixels than are decoded, by the header.
    TooLarge,
    /// Cut off, damaged, or of a variant of its format that is not decoded.
    Invalid,
    /// Frames that the video does not have, or not in their order.
    FrameOutOfRange,
    /// What took the frames refused one.
    Sink,
}

impl DecodeError {
    /// An error of a kind, with its reason.
    pub fn new(kind: DecodeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What it is about.
    pub fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    /// The reason in other words, of the same kind.
    pub(crate) fn map_message(self, change: impl FnOnce(String) -> String) -> Self {
        Self { message: change(self.message), ..self }
    }
}

/// A decoder's words: [`DecodeErrorKind::Invalid`].
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
