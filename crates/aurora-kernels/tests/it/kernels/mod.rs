//! CUDA kernels, run on the CPU by the emulator and compared with plain f64.
//!
//! `AURORA_MACHINE=gpu` runs the same tests on a GPU. Where no C++ compiler is found the tests say so and pass,
//! unless `AURORA_EMULATOR=required`; with `AURORA_EMULATOR=off` they pass everywhere. `AURORA_KERNELS=DIR` takes the
//! sources from another folder, as `cargo xtask mutate` does with its planted bugs.

#![allow(clippy::print_stderr, reason = "the tests say what they skip")]

mod attention;
mod bias;
mod build;
mod cp_apply;
mod cp_factor_gradient;
mod cp_far;
mod cp_reconstruct;
mod cross_entropy;
mod differences;
mod emulator;
mod far;
mod faults;
mod gated_query;
mod gelu;
mod layer_norm;
mod optim;
mod support;
