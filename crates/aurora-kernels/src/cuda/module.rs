//! Modules loaded on a GPU: once for each context, in the version for its compute capability.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;

use super::CudaError;
use super::compile::{Compiler, cache_folder};
use super::driver::{driver_error, version};
use super::source::{Module, module_of, modules};

/// Dynamic shared memory of a kernel without opting in.
const SHARED_UNASKED: u32 = 48 * 1024;

/// Modules of one context.
#[derive(Debug)]
pub struct Modules {
    context: Arc<CudaContext>,
    capability: (u32, u32),
    /// Opt-in limit of dynamic shared memory per block.
    shared_limit: u32,
    loaded: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// Loaded kernel.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) function: CudaFunction,
    /// Dynamic shared memory that was opted into.
    shared: u32,
}

impl Modules {
    /// Modules of a context: the same ones at every call.
    ///
    /// # Errors
    /// Errors of the driver when it is asked for the compute capability.
    pub fn of(context: &Arc<CudaContext>) -> Result<Arc<Self>, CudaError> {
        static ALL: Mutex<Vec<Arc<Modules>>> = Mutex::new(Vec::new());
        let mut all = lock(&ALL);
        if let Some(found) = all.iter().find(|one| one.context.cu_ctx() == context.cu_ctx()) {
            return Ok(found.clone());
        }
        let what = |error| driver_error("asking for the compute capability", error);
        let (major, minor) = context.compute_capability().map_err(what)?;
        let limit = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let modules = Arc::new(Self {
            context: context.clone(),
            capability: (major.unsigned_abs(), minor.unsigned_abs()),
            shared_limit: context.attribute(limit).map_err(what)?.unsigned_abs(),
            loaded: Mutex::default(),
            functions: Mutex::default(),
        });
        all.push(modules.clone());
        Ok(modules)
    }

    /// Compute capability of the context, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Kernel with this symbol, its module loaded at the first call, and allowed `shared` bytes of dynamic shared
    /// memory.
    pub(super) fn function(
        &self,
        symbol: &'static str,
        shared: u32,
    ) -> Result<Function, CudaError> {
        if shared > self.shared_limit {
            return Err(CudaError::TooMuch {
                what: symbol.to_owned(),
                asked: u64::from(shared),
                unit: "bytes of shared memory for a block",
                limit: u64::from(self.shared_limit),
            });
        }
        let mut functions = lock(&self.functions);
        let mut function = match functions.get(symbol) {
            Some(found) if found.shared >= shared => return Ok(found.clone()),
            Some(found) => found.clone(),
            None => Function { function: self.find(symbol)?, shared: SHARED_UNASKED },
        };
        if shared > function.shared {
            let attribute =
                CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.context.bind_to_thread().map_err(|error| driver_error(symbol, error))?;
            let asked = function.function.set_attribute(attribute, shared as i32);
            asked.map_err(|error| {
                driver_error(format!("asking for shared memory of {symbol}"), error)
            })?;
            function.shared = shared;
        }
        functions.insert(symbol, function.clone());
        Ok(function)
    }

    /// Kernel by its symbol: the version for Hopper where there is one and this GPU is one.
    fn find(&self, symbol: &'static str) -> Result<CudaFunction, CudaError> {
        let hopper = format!("{symbol}_sm90");
        let (name, module) = match module_of(&hopper) {
            Ok(module) if self.capability == (9, 0) => (hopper, module),
            _ => (symbol.to_owned(), module_of(symbol)?),
        };
        let loaded = self.load(module)?;
        loaded.load_function(&name).map_err(|DriverError(code)| match code {
            CUresult::CUDA_ERROR_NOT_FOUND => {
                CudaError::NoSymbol { module: module.name(), symbol: name.clone() }
            }
            _ => {
                driver_error(format!("looking for {name} in {}", module.name()), DriverError(code))
            }
        })
    }

    fn load(&self, module: &'static Module) -> Result<Arc<CudaModule>, CudaError> {
        let mut loaded = lock(&self.loaded);
        if let Some(found) = loaded.get(module.path) {
            return Ok(found.clone());
        }
        let code = code_for(module, self.capability, version()?)?;
        let image = Ptx::from_binary(code.bytes);
        let found = self
            .context
            .load_module(image)
            .map_err(|error| self.refused(module, error, code.cuda))?;
        loaded.insert(module.path, found.clone());
        Ok(found)
    }

    /// Error for a module that the driver rejects.
    fn refused(&self, module: &Module, error: DriverError, needed: (u32, u32)) -> CudaError {
        let what = format!("the module {}", module.name());
        match error.0 {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => CudaError::DriverTooOld {
                what,
                found: version().map_or_else(|_| "an older version".to_owned(), dotted),
                needed: dotted(needed),
            },
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => CudaError::UnknownCapability {
                what,
                capability: self.capability,
                known: known(module),
            },
            _ => driver_error(format!("loading {what}"), error),
        }
    }
}

/// Machine code for a GPU, with the CUDA version that made it.
#[derive(Debug)]
struct Code {
    bytes: Vec<u8>,
    cuda: (u32, u32),
}

/// Code for this compute capability: the embedded fatbin, else compiled by NVRTC.
fn code_for(
    module: &Module,
    capability: (u32, u32),
    driver: (u32, u32),
) -> Result<Code, CudaError> {
    let fitting = module.fatbin.as_ref().filter(|fatbin| fatbin.fits(capability));
    if let Some(fatbin) = fitting
        // A driver takes machine code of any CUDA of its own major version.
        && fatbin.cuda().0 <= driver.0
    {
        return Ok(Code { bytes: fatbin.bytes.to_vec(), cuda: fatbin.cuda() });
    }
    if capability < (8, 0) {
        return Err(CudaError::UnknownCapability {
            what: format!("the module {}", module.name()),
            capability,
            known: "8.0 and later".to_owned(),
        });
    }
    let too_old = |needed: (u32, u32)| CudaError::DriverTooOld {
        what: format!("the module {}", module.name()),
        found: dotted(driver),
        needed: dotted(needed),
    };
    let compiler = Compiler::find().map_err(|reason| match fitting {
        Some(fatbin) => too_old(fatbin.cuda()),
        None => CudaError::NoModule { module: module.name(), capability, reason },
    })?;
    let cuda = (compiler.version().0.unsigned_abs(), compiler.version().1.unsigned_abs());
    if cuda.0 > driver.0 {
        return Err(too_old(cuda));
    }
    let architecture =
        compiler.architecture(capability).ok_or_else(|| CudaError::UnknownCapability {
            what: format!("the module {} (NVRTC {})", module.name(), dotted(cuda)),
            capability,
            known: known(module),
        })?;
    let (bytes, _) = compiler.module(module, &architecture, cache_folder().as_deref())?;
    Ok(Code { bytes, cuda })
}

/// Architectures of a module's fatbin.
fn known(module: &Module) -> String {
    match &module.fatbin {
        Some(fatbin) => fatbin.architectures.join(", "),
        None => "nothing that was compiled before".to_owned(),
    }
}

fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind it is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles or finds every module for a GPU without loading any, which a first step would otherwise wait for. Returns
/// the names of the modules, with true for each that was embedded.
///
/// # Errors
/// As a launch: no compiler, an unknown compute capability, a driver that is too old.
pub fn prepare(
    capability: (u32, u32),
    driver: (u32, u32),
) -> Result<Vec<(String, bool)>, CudaError> {
    let wanted = modules().iter().filter(|module| !module.for_hopper() || capability == (9, 0));
    wanted
        .map(|module| {
            code_for(module, capability, driver)?;
            let embedded = module.fatbin.as_ref().is_some_and(|fatbin| fatbin.fits(capability));
            Ok((module.name(), embedded))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::source::Fatbin;

    fn module(compiler: &'static str) -> Module {
        let fatbin = Fatbin { bytes: &[1, 2, 3], compiler, architectures: &["sm_80", "sm_90a"] };
        Module { path: "norm/k.cu", text: "", hash: "0", fatbin: Some(fatbin) }
    }

    #[test]
    fn what_is_embedded_is_taken_where_it_runs() {
        for capability in [(8, 0), (8, 9), (9, 0)] {
            let code = code_for(&module("13.0.88"), capability, (13, 1)).unwrap();
            assert_eq!((code.bytes.as_slice(), code.cuda), (&[1, 2, 3][..], (13, 0)));
        }
        assert!(code_for(&module("12.4.1"), (8, 0), (13, 0)).is_ok());
    }

    #[test]
    fn a_gpu_that_is_too_old_and_a_driver_that_is_too_old_are_named() {
        let message = code_for(&module("13.0.88"), (7, 5), (13, 0)).unwrap_err().to_string();
        assert!(message.contains("7.5") && message.contains("8.0 and later"), "{message}");
        // With or without NVRTC, which here is either absent or newer than the driver.
        let message = code_for(&module("13.0.88"), (8, 0), (11, 8)).unwrap_err().to_string();
        for part in ["norm_k", "too old", "11.8", "is needed"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_gpu_of_the_future_is_named() {
        let message = code_for(&module("13.0.88"), (99, 0), (13, 0)).unwrap_err().to_string();
        assert!(message.contains("99.0"), "{message}");
        // Which of the two it is depends on whether this machine has NVRTC.
        assert!(
            message.contains("sm_80, sm_90a") || message.contains("install NVRTC"),
            "{message}"
        );
    }
}
