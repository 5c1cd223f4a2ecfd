//! Held to the numbers of the released PyTorch code, through the types the program itself uses.
//!
//! The fixtures stand in `tests/golden`; `AURORA_GOLDEN=<folder>` puts another set with the same layout in.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

#[path = "golden_cases/retrieval.rs"]
mod retrieval;

#[path = "golden_cases/precision.rs"]
mod precision;

#[path = "golden_cases/vqa.rs"]
mod vqa;

#[path = "golden_cases/checkpoints.rs"]
mod checkpoints;

#[path = "golden_cases/checkpoints_out.rs"]
mod checkpoints_out;
