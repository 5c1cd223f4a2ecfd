//! What can be wrong with a GPU, its driver or a module, in words that say what to do.

/// Why a GPU cannot do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The program was built without the feature `cuda`.
    #[error(
        "this program was built without CUDA, so it has no device {asked}: use the device cpu, or \
         build it with `cargo build --release --features cuda` on a machine with the CUDA compiler"
    )]
    NotBuilt {
        /// The device that was asked for.
        asked: String,
    },

    /// There is no driver, or it does not start.
    #[error("there is no CUDA driver here: {reason}")]
    NoDriver {
        /// What was looked for, or what the driver said.
        reason: String,
    },

    /// The driver is there and has no such device.
    #[error(
        "there is no CUDA device {ordinal}: {}",
        match count { 0 => "the driver finds none".to_owned(), n => format!("there are {n}, counted from 0") }
    )]
    NoDevice {
        /// Number of the device, from 0.
        ordinal: usize,
        /// Number of devices there are.
        count: usize,
    },

    /// A library that candle needs beside the driver is not found or does not start.
    #[error(
        "the CUDA library {library} is not there or does not start: {reason}; put the folder with \
         it on LD_LIBRARY_PATH (PyTorch has it in nvidia/*/lib)"
    )]
    NoLibrary {
        /// Its name.
        library: String,
        /// What it said.
        reason: String,
    },

    /// The driver cannot load what was compiled by a newer CUDA.
    #[error(
        "the driver is too old for {what}: it knows CUDA {found}, and CUDA {needed} is needed; \
         install a newer driver, or remove the compiled module so that it is compiled here by \
         this machine's NVRTC"
    )]
    DriverTooOld {
        /// The module.
        what: String,
        /// The newest CUDA that the driver knows.
        found: String,
        /// The CUDA that the module was compiled by.
        needed: String,
    },

    /// A GPU that there is no code for.
    #[error(
        "{what}: no code for a GPU of compute capability {}.{}; there is code for {known}",
        capability.0, capability.1
    )]
    UnknownCapability {
        /// The module.
        what: String,
        /// Major and minor number.
        capability: (u32, u32),
        /// What there is code for.
        known: String,
    },

    /// The memory of the device is used up.
    #[error(
        "out of device memory: {asked} bytes were asked for and {free} of {total} are free; use a \
         smaller batch, or a device with more memory"
    )]
    OutOfMemory {
        /// Bytes that were asked for.
        asked: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes of the device.
        total: u64,
    },

    /// A tensor that lives on another device than the operation.
    #[error(
        "{op}: {name} is on {found}, and the operation runs on {expected}; move it with to_device"
    )]
    WrongDevice {
        /// Operation that was called.
        op: &'static str,
        /// Name of the tensor.
        name: &'static str,
        /// Where it is.
        found: String,
        /// Where it should be.
        expected: String,
    },

    /// A module that is neither embedded nor can be compiled here.
    #[error(
        "there is no compiled {module} in this program for compute capability {}.{}, and it \
         cannot be compiled here: {reason}; run `cargo xtask build-kernels` and build again, or \
         install NVRTC (libnvrtc of CUDA 12 or later) and put its folder on LD_LIBRARY_PATH",
        capability.0, capability.1
    )]
    NoModule {
        /// Name of the module.
        module: String,
        /// Major and minor number of the GPU.
        capability: (u32, u32),
        /// Why it cannot be compiled.
        reason: String,
    },

    /// A source that the compiler refuses.
    #[error("NVRTC cannot compile {module} for {architecture}:\n{log}")]
    Compile {
        /// Name of the module.
        module: String,
        /// The architecture it was compiled for.
        architecture: String,
        /// What the compiler said.
        log: String,
    },

    /// A kernel that its module does not have.
    #[error("module {module} has no kernel {symbol}")]
    NoSymbol {
        /// Name of the module.
        module: String,
        /// The symbol that was looked for.
        symbol: String,
    },

    /// More than the device can take at once.
    #[error("{what}: {asked} {unit}, the device takes at most {limit}")]
    TooMuch {
        /// What was launched.
        what: String,
        /// What was asked for.
        asked: u64,
        /// Of what.
        unit: &'static str,
        /// What the device takes.
        limit: u64,
    },

    /// Anything else that the driver reports.
    #[error("{call}: the driver reports error {code} ({name})")]
    Driver {
        /// What was being done.
        call: String,
        /// The driver's number for it.
        code: u32,
        /// The driver's word for it.
        name: String,
    },
}
