//! The gradient audit: which trainable tensors a backward pass did not reach.

use candle_core::{Tensor, backprop::GradStore};

/// Names of the tensors that have no gradient in `grads`, in the order given.
///
/// An optimizer that skips such a tensor trains on without a word; a trainer should stop and
/// show these names instead.
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
