//! Held to the numbers of the reference PyTorch code, through the types the program itself uses.
//!
//! The fixtures stand in `tests/golden`; `AURORA_GOLDEN=<folder>` puts another set with the same layout in.

mod checkpoints;
mod checkpoints_out;
mod precision;
mod retrieval;
mod support;
mod vqa;
