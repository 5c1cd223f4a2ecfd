//! Integration tests of the crate, one module per subject; fixtures are in the folders beside this
//! one.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod archives;
mod bombs;
mod check;
mod common;
mod formats;
mod images;
mod loader;
mod loading;
mod packs;
#[cfg(feature = "parquet")]
mod parquet;
mod shards;
mod tables;
mod tokens;
mod transforms;
mod videos;
mod writing;
