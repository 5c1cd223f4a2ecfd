//! Launch plans: from shapes to launches. Every check of a size happens here, once, for every executor.

mod adamw;
mod attention;
mod bias;
mod column_sum;
mod cp_apply;
mod cp_factor_gradient;
mod cp_reconstruct;
mod gated_query;
mod gelu;
mod layer_norm;
mod moving_average;
mod multi_tensor;
mod soft_cross_entropy;

pub use adamw::{AdamWBuffers, AdamWConstants, AdamWPlan};
pub use attention::{
    AttentionBackwardBuffers, AttentionForwardBuffers, AttentionPlan, HeadRows, ScoreBuffers,
    queries_by_key,
};
pub use bias::{BiasPlan, ColumnSumBuffers};
pub use cp_apply::{ApplyBuffers, CpApplyPlan};
pub use cp_factor_gradient::{CpFactorGradientPlan, FactorGradientBuffers, FactorLayout};
pub use cp_reconstruct::{CpReconstructPlan, CpReconstructTable, FactorPair, Slice};
pub use gated_query::{
    GatedQueryBackwardBuffers, GatedQueryForwardBuffers, GatedQueryInputs, GatedQueryPlan,
};
pub use gelu::{GeluBackwardBuffers, GeluPlan};
pub use layer_norm::{LayerNormBackwardBuffers, LayerNormForwardBuffers, LayerNormPlan};
pub use moving_average::{AveragedBuffers, MovingAveragePlan};
pub use soft_cross_entropy::{
    CrossEntropyTargets, SoftCrossEntropyBackwardBuffers, SoftCrossEntropyForwardBuffers,
    SoftCrossEntropyPlan,
};

use crate::Error;

/// Size as the kernels count it along a row: a C int.
pub(crate) fn int(op: &'static str, name: &'static str, size: usize) -> Result<i32, Error> {
    i32::try_from(size).map_err(|_| Error::Argument {
        op,
        name,
        shape: vec![size],
        expected: format!("at most {} elements along one dimension", i32::MAX),
    })
}

/// Number of elements of a shape, as far as a 64-bit index goes.
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
