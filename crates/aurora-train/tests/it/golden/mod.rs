//! Golden tests against the numbers of the reference PyTorch code, through the types that the program itself uses.
//!
//! The fixtures are in `tests/golden`; `AURORA_GOLDEN=<folder>` selects another set with the same layout.

mod checkpoints;
mod checkpoints_out;
mod precision;
mod retrieval;
mod support;
mod vqa;
