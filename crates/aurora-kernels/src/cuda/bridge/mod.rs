//! Bridge from candle's tensors on a GPU to pointers and launches, and back.
//!
//! Thin: shapes and checks are the plans', memory and GEMMs are candle's. Everything runs on the stream of candle's
//! device, in order with candle's own operations. Results are f32, f16 or bf16 as the inputs are; state kept for a
//! backward pass is f32.

mod attention;
mod bias;
mod gelu;
mod layer_norm;
mod loss;
mod low_rank;
mod matmul;
mod memory;
mod moving_average;
mod optimizer;

pub(crate) use attention::{
    AttentionState, Inputs as AttentionInputs, Options as AttentionOptions,
    backward as attention_backward, forward as attention_forward,
};
pub(crate) use gelu::{backward as gelu_backward, forward as gelu_forward};
pub(crate) use layer_norm::{
    LayerNormState, backward as layer_norm_backward, forward as layer_norm_forward,
};
pub(crate) use loss::{
    LossState, Rows as LossRows, backward as loss_backward, forward as loss_forward,
};
pub(crate) use low_rank::{
    backward as adapted_backward, forward as adapted_forward, merged_weight,
};
pub(crate) use matmul::{linear_backward, linear_forward};
pub use moving_average::moving_average;
pub use optimizer::AdamWState;

use std::sync::OnceLock;

/// State that the forward pass of an operation kept for its backward pass.
pub(crate) fn kept<'a, T>(op: &'static str, state: &'a OnceLock<T>) -> candle_core::Result<&'a T> {
    state.get().ok_or(candle_core::Error::BackwardNotSupported { op })
}
