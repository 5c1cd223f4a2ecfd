#![doc = include_str!("../README.md")]

pub mod caption;
mod dataset;
pub mod embedded;
mod error;
pub mod folder;
pub mod loader;
mod picture;
mod sample;
pub mod shard;
mod tokens;
pub mod transform;
pub mod video;

pub use caption::Keywords;
pub use dataset::{Dataset, Decode};
pub use error::{Error, Result};
pub use folder::Captions;
pub use loader::{Batch, Batches, Loader, LoaderOptions};
pub use picture::{Crop, Picture};
pub use sample::{Sample, Split};
pub use tokens::{Padding, Special, Tokens};
pub use transform::{Augment, Evaluation, Released, Transform};
