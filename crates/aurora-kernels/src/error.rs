//! Errors of operations: arguments that they cannot take.

/// Error for an argument that an operation cannot take.
///
/// The operations return [`candle_core::Result`], so that `?` works among candle's own functions;
/// this type travels inside [`candle_core::Error::Wrapped`] and is what its message shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two arguments whose shapes do not fit together.
    #[error(
        "{op}: {left} of shape {left_shape:?} does not fit {right} of shape {right_shape:?}: {rule}"
    )]
    Shape {
        /// Operation that was called.
        op: &'static str,
        /// Name of the first argument.
        left: &'static str,
        /// Its shape.
        left_shape: Vec<usize>,
        /// Name of the second argument.
        right: &'static str,
        /// Its shape.
        right_shape: Vec<usize>,
        /// Rule that the shapes have to satisfy.
        rule: &'static str,
    },
    /// An argument with the wrong number of dimensions or an impossible size.
    #[error("{op}: {name} has shape {shape:?}, expected {expected}")]
    Argument {
        /// Operation that was called.
        op: &'static str,
        /// Name of the argument.
        name: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Accepted shapes.
        expected: String,
    },
    /// An element type that the operation has no code for, or two that differ.
    #[error("{op}: {name} is {dtype}, expected {expected}")]
    DType {
        /// Operation that was called.
        op: &'static str,
        /// Name of the argument.
        name: &'static str,
        /// Its element type.
        dtype: &'static str,
        /// Accepted element types.
        expected: &'static str,
    },
    /// An index out of range.
    #[error("{op}: {name}[{position}] is {value}, but there are only {limit}")]
    Index {
        /// Operation that was called.
        op: &'static str,
        /// Name of the list of indices.
        name: &'static str,
        /// Position in the list.
        position: usize,
        /// Index found there.
        value: usize,
        /// Number of indexable items.
        limit: usize,
    },
    /// An error of a GPU, its driver or a module.
    #[error(transparent)]
    Gpu(#[from] crate::cuda::CudaError),
}

impl From<crate::cuda::CudaError> for candle_core::Error {
    fn from(error: crate::cuda::CudaError) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        candle_core::Error::wrap(error)
    }
}
