//! Gradient audit: trainable tensors that a backward pass did not reach.

use candle_core::{Tensor, backprop::GradStore};

/// Names of the tensors without a gradient in `grads`, in the order given.
///
/// An optimizer skips such a tensor silently; a trainer should stop and show these names instead.
pub fn missing_gradients<'a, N: AsRef<str>>(
    grads: &GradStore,
    tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
) -> Vec<String> {
    tensors
        .into_iter()
        .filter(|(_, tensor)| grads.get(tensor).is_none())
        .map(|(name, _)| name.as_ref().to_owned())
        .collect()
}
