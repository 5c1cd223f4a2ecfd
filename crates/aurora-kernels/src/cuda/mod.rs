//! Hand-written CUDA kernels: what they take, how they are launched, and where they run.
//!
//! The sources are in `kernels/` at the top of the workspace. This half of the crate always
//! compiles: a plain build needs no CUDA. A plan (`plan`) turns shapes into a [`Launch`]; a
//! [`Machine`] runs it, be it a GPU or, in tests, the emulator on the CPU.

mod launch;
pub mod params;
pub mod plan;
pub mod symbols;

pub use launch::{DevicePointer, Element, Launch, Machine, Memory, Params};
