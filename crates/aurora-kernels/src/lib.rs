#![doc = include_str!("../README.md")]

mod activation;
mod attention;
pub mod audit;
pub mod cuda;
pub mod device;
mod element;
mod error;
pub mod isa;
mod likelihood;
mod linear;
mod loss;
mod low_rank;
pub mod memory;
mod norm;
mod patches;
mod precision;
mod product;
pub mod random;
mod recompute;
pub mod reference;
mod register;
mod small;
mod view;
mod wide;

pub use activation::gelu;
pub use attention::{AttentionOptions, attention, self_attention};
pub use error::Error;
pub use likelihood::negative_log_likelihood;
pub use linear::{linear, linear_in};
pub use loss::{cross_entropy, soft_cross_entropy};
pub use low_rank::{LowRank, Mode, adapted_linear, adapted_linear_in};
pub use norm::layer_norm;
pub use patches::unfold_patches;
pub use precision::Precision;
pub use recompute::recompute;
