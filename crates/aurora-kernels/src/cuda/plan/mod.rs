//! From shapes to launches: every check of a size happens here, once, whatever machine the launch
//! is for.

mod cp_apply;
mod cp_factor_gradient;
mod cp_reconstruct;
mod layer_norm;

pub use cp_apply::{Apply, ApplyMemory};
pub use cp_factor_gradient::{FactorGradient, FactorGradientMemory, FactorLayout};
pub use cp_reconstruct::{FactorPair, Reconstruct, ReconstructTable, Slice};
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
