//! The operations on the CPU against f64 and finite differences, and the CUDA kernels on the emulator.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod as_one_node;
mod common;
mod contract;
mod epilogue;
mod gradients;
mod kernels;
mod no_copy;
mod nvrtc;
mod precision;
mod recompute;
mod streams;
mod values;
