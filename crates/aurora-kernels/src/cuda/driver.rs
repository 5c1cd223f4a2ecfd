//! CUDA driver: presence, devices and their properties.
//!
//! Nothing here needs CUDA to build or to start: the driver is looked for when it is asked for.

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DriverError, result};

use super::CudaError;

/// File names of the driver's library.
const DRIVER: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// Libraries that candle's device needs besides the driver.
#[cfg(all(feature = "cuda", not(windows)))]
const BESIDE: [&[&str]; 3] = [
    &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
    &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    &["libcurand.so.10", "libcurand.so"],
];

/// Properties of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Ordinal, from 0.
    pub ordinal: usize,
    /// Name, as the vendor gives it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
    /// Newest CUDA version that its driver knows, major and minor.
    pub driver: (u32, u32),
}

/// GPUs of this machine.
///
/// # Errors
/// [`CudaError::NoDriver`] without a driver that starts.
pub fn gpus() -> Result<Vec<GpuInfo>, CudaError> {
    (0..count()?).map(describe).collect()
}

/// Checks that the GPU with this ordinal exists.
///
/// # Errors
/// [`CudaError::NoDriver`], [`CudaError::NoDevice`].
pub fn require(ordinal: usize) -> Result<(), CudaError> {
    match count()? {
        count if ordinal < count => Ok(()),
        count => Err(CudaError::NoDevice { ordinal, count }),
    }
}

/// Number of GPUs; zero is an error too, for it has a reason.
fn count() -> Result<usize, CudaError> {
    find(DRIVER).map_err(|reason| CudaError::NoDriver { reason })?;
    result::init().map_err(|DriverError(code)| CudaError::NoDriver { reason: in_words(code) })?;
    let count =
        result::device::get_count().map_err(|error| driver_error("counting devices", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn describe(ordinal: usize) -> Result<GpuInfo, CudaError> {
    let what = |error| driver_error("describing a device", error);
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).map_err(what)?;
    let attribute = |attribute| {
        // SAFETY: the device comes from the driver.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(i32::unsigned_abs).map_err(what)
    };
    use cudarc::driver::sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    Ok(GpuInfo {
        ordinal,
        name: result::device::get_name(device).map_err(what)?,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(what)? as u64,
        driver: version()?,
    })
}

/// Newest CUDA version that the driver knows, major and minor.
///
/// # Errors
/// Errors of the driver. To be called with a driver present.
pub(super) fn version() -> Result<(u32, u32), CudaError> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    let status = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) };
    status.result().map_err(|error| driver_error("asking for the driver's version", error))?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// Checks that the libraries besides the driver can be loaded; candle's device would otherwise fail on them without
/// naming one.
///
/// # Errors
/// [`CudaError::NoLibrary`] with the first missing one.
#[cfg(feature = "cuda")]
pub(crate) fn libraries() -> Result<(), CudaError> {
    #[cfg(not(windows))]
    for names in BESIDE {
        find(names)
            .map_err(|reason| CudaError::NoLibrary { library: names[0].to_owned(), reason })?;
    }
    Ok(())
}

/// Loads the first of these libraries that exists; the error gives the reasons why none does.
pub(super) fn find(names: &[&str]) -> Result<(), String> {
    let mut reasons = Vec::new();
    for name in names {
        // SAFETY: these are system libraries; what they run when they are loaded is what every
        // program that uses them relies on.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => {
                // It stays loaded: whoever looks for it next finds this one.
                std::mem::forget(library);
                return Ok(());
            }
            // The loader's own words are the source of the error.
            Err(error) => reasons.push(match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => error.to_string(),
            }),
        }
    }
    // All names fail for the same reason, unless one of them is there and broken.
    let missing = |reason: &String| reason.contains("No such file") || reason.contains("not found");
    match reasons.iter().find(|reason| !missing(reason)) {
        Some(reason) => Err(reason.clone()),
        None => Err(format!("{} is not installed or not found", names[0])),
    }
}

/// Reason in words why the driver does not start.
fn in_words(code: CUresult) -> String {
    match code {
        CUresult::CUDA_ERROR_NO_DEVICE => "the driver is installed, but finds no GPU".to_owned(),
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "what was found is a stub for linking, not the driver's library".to_owned()
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver in the kernel and its library are of different versions; restart the \
             machine after an update"
                .to_owned()
        }
        CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the library is for forward compatibility, which this GPU does not have".to_owned()
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => "the GPU is taken by another program".to_owned(),
        other => format!("the driver does not start ({other:?})"),
    }
}

/// [`CudaError`] for an error that the driver reported during `call`.
pub(super) fn driver_error(call: impl Into<String>, DriverError(code): DriverError) -> CudaError {
    CudaError::Driver { call: call.into(), code: code as u32, name: format!("{code:?}") }
}

/// [`driver_error`] of a request for `bytes`: running out of memory says how much there is.
pub(super) fn memory_error(
    call: impl Into<String>,
    error: DriverError,
    bytes: u64,
    context: &Arc<CudaContext>,
) -> CudaError {
    if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return driver_error(call, error);
    }
    let (free, total) = context.mem_get_info().unwrap_or((0, 0));
    CudaError::OutOfMemory { asked: bytes, free: free as u64, total: total as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let reason = find(&["libaurora_no_such_library.so.1"]).unwrap_err();
        assert!(reason.starts_with("libaurora_no_such_library.so.1 is not installed"), "{reason}");
    }

    #[test]
    fn a_file_that_is_no_library_is_another_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnothing.so");
        std::fs::write(&path, "no library").unwrap();
        let reason = find(&[path.to_str().unwrap()]).unwrap_err();
        assert!(!reason.contains("is not installed"), "{reason}");
    }

    #[test]
    fn without_a_driver_it_is_said_plainly() {
        // On a machine with a GPU there is something else to see.
        match gpus() {
            Ok(gpus) => assert!(gpus.iter().all(|gpu| gpu.capability.0 > 0)),
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with("there is no CUDA driver here: "), "{message}");
            }
        }
    }

    #[test]
    fn codes_become_words() {
        assert!(in_words(CUresult::CUDA_ERROR_NO_DEVICE).contains("finds no GPU"));
        assert!(in_words(CUresult::CUDA_ERROR_STUB_LIBRARY).contains("stub"));
        assert!(in_words(CUresult::CUDA_ERROR_UNKNOWN).contains("CUDA_ERROR_UNKNOWN"));
        let message =
            driver_error("launching x", DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert_eq!(
            message.to_string(),
            "launching x: the driver reports error 700 (CUDA_ERROR_ILLEGAL_ADDRESS)"
        );
    }
}
