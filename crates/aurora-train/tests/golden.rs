//! Held to the numbers of the released PyTorch code, through the types the program itself uses.
//!
//! The fixtures stand in `tests/golden`; `AURORA_GOLDEN=<folder>` puts another set with the same layout in.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

#[path = "golden_cases/retrieval_image.rs"]
mod retrieval_image;

#[path = "golden_cases/checkpoints.rs"]
mod checkpoints;
