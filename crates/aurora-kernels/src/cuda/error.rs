//! Errors of a GPU, its driver or a module, with their remedies.

/// Error of CUDA: why a GPU cannot do a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The program was built without the feature `cuda`.
    #[error(
        "this program was built without CUDA, so it has no device {asked}: use the device cpu, or \
         build it with `cargo build --release --features cuda` on a machine with the CUDA compiler"
    )]
    NotBuilt {
        /// Requested device.
        asked: String,
    },

    /// The driver is missing or does not start.
    #[error("there is no CUDA driver here: {reason}")]
    NoDriver {
        /// Names that were looked for, or the error of the driver.
        reason: String,
    },

    /// The driver exists and has no such device.
    #[error(
        "there is no CUDA device {ordinal}: {}",
        match count { 0 => "the driver finds none".to_owned(), n => format!("there are {n}, counted from 0") }
    )]
    NoDevice {
        /// Ordinal of the device, from 0.
        ordinal: usize,
        /// Number of devices.
        count: usize,
    },

    /// A library that candle needs besides the driver is not found or does not start.
    #[error(
        "the CUDA library {library} is not there or does not start: {reason}; put the folder with \
         it on LD_LIBRARY_PATH (PyTorch has it in nvidia/*/lib)"
    )]
    NoLibrary {
        /// Name of the library.
        library: String,
        /// Error of the loader.
        reason: String,
    },

    /// The driver cannot load code that a newer CUDA compiled.
    #[error(
        "the driver is too old for {what}: it knows CUDA {found}, and CUDA {needed} is needed; \
         install a newer driver, or remove the compiled module so that it is compiled here by \
         this machine's NVRTC"
    )]
    DriverTooOld {
        /// Name of the module.
        what: String,
        /// Newest CUDA version that the driver knows.
        found: String,
        /// CUDA version that compiled the module.
        needed: String,
    },

    /// A GPU without code for its compute capability.
    #[error(
        "{what}: no code for a GPU of compute capability {}.{}; there is code for {known}",
        capability.0, capability.1
    )]
    UnknownCapability {
        /// Name of the module.
        what: String,
        /// Compute capability, major and minor.
        capability: (u32, u32),
        /// Architectures that there is code for.
        known: String,
    },

    /// Out of device memory.
    #[error(
        "out of device memory: {asked} bytes were asked for and {free} of {total} are free; use a \
         smaller batch, or a device with more memory"
    )]
    OutOfMemory {
        /// Requested bytes.
        asked: u64,
        /// Free bytes.
        free: u64,
        /// Total bytes of the device.
        total: u64,
    },

    /// A tensor on another device than the operation.
    #[error(
        "{op}: {name} is on {found}, and the operation runs on {expected}; move it with to_device"
    )]
    WrongDevice {
        /// Operation that was called.
        op: &'static str,
        /// Name of the tensor.
        name: &'static str,
        /// Device of the tensor.
        found: String,
        /// Device of the operation.
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
        /// Compute capability of the GPU, major and minor.
        capability: (u32, u32),
        /// Reason why it cannot be compiled.
        reason: String,
    },

    /// A source that the compiler rejects.
    #[error("NVRTC cannot compile {module} for {architecture}:\n{log}")]
    Compile {
        /// Name of the module.
        module: String,
        /// Target architecture.
        architecture: String,
        /// Compiler log.
        log: String,
    },

    /// A kernel missing from its module.
    #[error("module {module} has no kernel {symbol}")]
    NoSymbol {
        /// Name of the module.
        module: String,
        /// Symbol that was looked for.
        symbol: String,
    },

    /// A launch past the limits of the device.
    #[error("{what}: {asked} {unit}, the device takes at most {limit}")]
    TooMuch {
        /// Name of the launch.
        what: String,
        /// Requested amount.
        asked: u64,
        /// Unit of the amount.
        unit: &'static str,
        /// Limit of the device.
        limit: u64,
    },

    /// Any other error of the driver.
    #[error("{call}: the driver reports error {code} ({name})")]
    Driver {
        /// Call that failed.
        call: String,
        /// Error number of the driver.
        code: u32,
        /// Error name of the driver.
        name: String,
    },
}
