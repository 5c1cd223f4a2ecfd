//! CUDA backend: parameters, launch plans and executors of the hand-written kernels.
//!
//! The sources are in `kernels/` at the top of the workspace. This half of the crate always compiles: a plain build
//! needs no CUDA, and the driver is looked for when one is asked for. A plan (`plan`) turns shapes into a [`Launch`];
//! an [`Executor`] runs it, be it a GPU or, in tests, the emulator on the CPU.

#[cfg(feature = "cuda")]
pub(crate) mod bridge;
pub mod compile;
pub mod driver;
mod error;
mod gpu;
mod launch;
pub mod module;
pub mod params;
pub mod plan;
pub mod source;
pub mod symbols;

#[cfg(feature = "cuda")]
pub use bridge::{AdamWState, moving_average};
pub use error::CudaError;
pub use gpu::Gpu;
pub use launch::{DeviceBuffer, DevicePointer, Element, Executor, Launch, Params};
