//! Models, adapters and checkpoints, one module per subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod bad_checkpoint;
mod bad_pickle;
mod checkpoint;
mod common;
mod decoding;
mod gradient_checkpoint;
mod gradient_checkpoint_memory;
mod memory;
mod merge;
mod passes;
mod small;
mod step_zero;
