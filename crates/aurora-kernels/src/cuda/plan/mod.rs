//! From shapes to launches: every check of a size happens here, once, whatever machine the launch
//! is for.

mod attention;
mod layer_norm;

pub use attention::{
    Attention, AttentionBackwardMemory, AttentionForwardMemory, HeadRows, ScoreMemory,
    queries_by_key,
};
pub use layer_norm::{LayerNorm, LayerNormForwardMemory};

use crate::Error;

/// A size as the kernels count it along a row: a C int.
pub(crate) fn int(op: &'static str, name: &'static str, size: usize) -> Result<i32, Error> {
    i32::try_from(size).map_err(|_| Error::Argument {
        op,
        name,
        shape: vec![size],
        expected: format!("at most {} elements along one dimension", i32::MAX),
    })
}
