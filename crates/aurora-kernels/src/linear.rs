//! The linear map y = x W^T + b.

use candle_core::{Result, Tensor};

use crate::Error;

/// Linear map `x W^T + b` of `x` (.., in) with `weight` (out, in) and `bias` (out).
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if dims.last() != Some(&input) {
        return Err(Error::Shape {
            op: "linear",
            left: "x",
            left_shape: dims,
            right: "weight",
            right_shape: weight.dims().to_vec(),
            rule: "x is (.., in), weight is (out, in)",
        }
        .into());
    }
    let tokens = x.elem_count() / input.max(1);
    let y = x.reshape((tokens, input))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    y.reshape(dims)
}
