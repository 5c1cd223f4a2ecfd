//! From shapes to launches: every check of a size happens here, once, whatever machine the launch
//! is for.

mod adamw;
mod bias;
mod cp_apply;
mod cp_factor_gradient;
mod cp_reconstruct;
mod gated_query;
mod gelu;
mod layer_norm;
mod moving_average;
mod parts;
mod soft_cross_entropy;
mod tensors;

pub use adamw::{AdamWConstants, AdamWMemory, AdamWPlan};
pub use bias::{Bias, ColumnSumMemory};
pub use cp_apply::{Apply, ApplyMemory};
pub use cp_factor_gradient::{FactorGradient, FactorGradientMemory, FactorLayout};
pub use cp_reconstruct::{FactorPair, Reconstruct, ReconstructTable, Slice};
pub use gated_query::{
    GatedQuery, GatedQueryBackwardMemory, GatedQueryForwardMemory, GatedQueryInputs,
};
pub use gelu::{Gelu, GeluBackwardMemory};
pub use layer_norm::{LayerNorm, LayerNormBackwardMemory, LayerNormForwardMemory};
pub use moving_average::{AveragedMemory, MovingAveragePlan};
pub use soft_cross_entropy::{
    CrossEntropyTargets, SoftCrossEntropy, SoftCrossEntropyBackwardMemory,
    SoftCrossEntropyForwardMemory,
};

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

/// The number of elements of a shape, as far as a 64-bit index goes.
pub(crate) fn product(
    op: &'static str,
    name: &'static str,
    shape: &[usize],
) -> Result<usize, Error> {
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    count.filter(|&count| i64::try_from(count).is_ok()).ok_or_else(|| Error::Argument {
        op,
        name,
        shape: shape.to_vec(),
        expected: "at most 2^63 - 1 elements".to_owned(),
    })
}

/// Refuses a size that is smaller than another one needs it to be.
pub(crate) fn at_least(
    op: &'static str,
    name: &'static str,
    size: usize,
    least: usize,
) -> Result<(), Error> {
    if size >= least {
        return Ok(());
    }
    Err(Error::Argument { op, name, shape: vec![size], expected: format!("at least {least}") })
}
