//! NVRTC compilation of the embedded sources, with a cache on disk. Every CUDA installation has NVRTC.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::ptr;

use cudarc::nvrtc::sys;
use sha2::{Digest as _, Sha256};

use super::CudaError;
use super::driver::find;
use super::source::{Module, headers};

/// File names of the NVRTC library.
const LIBRARY: &[&str] = if cfg!(windows) {
    &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
} else {
    &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
};

/// Length of the digest that a cached file begins with.
const DIGEST: usize = 32;

/// NVRTC compiler, loaded, with its version.
#[derive(Debug, Clone, Copy)]
pub struct Compiler {
    version: (i32, i32),
}

impl Compiler {
    /// Finds NVRTC, by the loader or `CUDA_HOME`.
    ///
    /// # Errors
    /// The reason why it is not found.
    pub fn find() -> Result<Self, String> {
        look_in_cuda_home();
        find(LIBRARY)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is there; it writes two numbers.
        let status = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
        if status != sys::nvrtcResult::NVRTC_SUCCESS {
            return Err(format!("NVRTC does not say its version ({status:?})"));
        }
        Ok(Self { version: (major, minor) })
    }

    /// NVRTC version, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Architecture name for a compute capability, if this NVRTC knows it. Hopper gets `sm_90a`, for its own
    /// instructions.
    pub fn architecture(&self, capability: (u32, u32)) -> Option<String> {
        let number = capability.0 * 10 + capability.1;
        let mut count = 0;
        // SAFETY: NVRTC writes one number, and then as many as it said.
        let known = unsafe {
            let status = sys::nvrtcGetNumSupportedArchs(&mut count);
            let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
            if status != sys::nvrtcResult::NVRTC_SUCCESS
                || sys::nvrtcGetSupportedArchs(known.as_mut_ptr())
                    != sys::nvrtcResult::NVRTC_SUCCESS
            {
                known.clear();
            }
            known
        };
        let is_known = known.iter().any(|&known| u32::try_from(known) == Ok(number));
        is_known.then(|| if number == 90 { "sm_90a".to_owned() } else { format!("sm_{number}") })
    }

    /// Machine code of a module for an architecture (`sm_80`), from the cache if it is there. The second value is
    /// true if it was.
    ///
    /// # Errors
    /// [`CudaError::Compile`] with the log of the compiler.
    pub fn module(
        &self,
        module: &Module,
        architecture: &str,
        cache: Option<&Path>,
    ) -> Result<(Vec<u8>, bool), CudaError> {
        let options = options(architecture);
        let path = cache.map(|folder| folder.join(self.key(module, &options) + ".cubin"));
        if let Some(kept) = path.as_deref().and_then(read) {
            return Ok((kept, true));
        }
        let code = compile(module, &options).map_err(|log| CudaError::Compile {
            module: module.name(),
            architecture: architecture.to_owned(),
            log,
        })?;
        if let Some(path) = path {
            // Without a cache folder it is compiled again next time.
            let _ = write(&path, &code);
        }
        Ok((code, false))
    }

    /// Cache key of a module: everything that it depends on.
    fn key(&self, module: &Module, options: &[String]) -> String {
        let mut hash = Sha256::new();
        for part in [&format!("{:?}", self.version), module.hash]
            .into_iter()
            .chain(options.iter().map(String::as_str))
        {
            hash.update(part);
            hash.update([0]);
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}", module.name(), &digest[..32])
    }
}

/// Cache folder of compiled modules: `AURORA_CACHE`, else `aurora` in the user's cache folder; None where there is
/// neither.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("AURORA_CACHE").map(PathBuf::from).or_else(|| {
        let user = if cfg!(windows) {
            variable("LOCALAPPDATA").map(PathBuf::from)
        } else {
            variable("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
        };
        user.map(|user| user.join("aurora"))
    })?;
    Some(home.join("kernels"))
}

fn options(architecture: &str) -> Vec<String> {
    vec!["--std=c++17".to_owned(), format!("--gpu-architecture={architecture}")]
}

/// Loads NVRTC from the folders below `CUDA_HOME` and `CUDA_PATH`, which the system's loader does
/// not look into. Once loaded, it is found by its name.
fn look_in_cuda_home() {
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os) {
        for folder in ["lib64", "lib", "bin"].map(|folder| Path::new(&home).join(folder)) {
            for name in LIBRARY {
                if load(&folder.join(name)) {
                    load_builtins(&folder);
                    return;
                }
            }
        }
    }
}

/// Loads NVRTC's library of builtins, which NVRTC looks for by name alone, not beside itself.
fn load_builtins(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
            load(&entry.path());
        }
    }
}

/// Loads the library at a path, if there is one.
fn load(path: &Path) -> bool {
    path.is_file() && path.to_str().is_some_and(|path| find(&[path]).is_ok())
}

/// NVRTC program, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was made by NVRTC and is destroyed once.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// Compiles a module to machine code; the error is the compiler's log.
fn compile(module: &Module, options: &[String]) -> Result<Vec<u8>, String> {
    let c = |text: &str| CString::new(text).map_err(|_| format!("a zero byte in {text:?}"));
    let (text, name) = (c(module.text)?, c(module.path)?);
    let mut names = Vec::new();
    let mut texts = Vec::new();
    for (name, text) in headers() {
        names.push(c(name)?);
        texts.push(c(text)?);
    }
    let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let (name_pointers, text_pointers) = (pointers(&names), pointers(&texts));
    let options = options.iter().map(|option| c(option)).collect::<Result<Vec<_>, _>>()?;
    let option_pointers = pointers(&options);

    let mut program = Program(ptr::null_mut());
    // SAFETY: every pointer is to a C string that outlives the program, and the lengths are theirs.
    let status = unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            text.as_ptr(),
            name.as_ptr(),
            texts.len() as i32,
            text_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    };
    succeeded(status)?;
    // SAFETY: as above.
    let status = unsafe {
        sys::nvrtcCompileProgram(program.0, option_pointers.len() as i32, option_pointers.as_ptr())
    };
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(log(&program).unwrap_or_else(|| format!("{status:?}")));
    }
    // SAFETY: NVRTC says how much it writes, and writes that.
    unsafe {
        let mut bytes = 0;
        succeeded(sys::nvrtcGetCUBINSize(program.0, &mut bytes))?;
        let mut code = vec![0u8; bytes];
        succeeded(sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast::<c_char>()))?;
        Ok(code)
    }
}

/// Compiler log of a program.
fn log(program: &Program) -> Option<String> {
    // SAFETY: NVRTC says how much it writes, the final zero included, and writes that.
    unsafe {
        let mut bytes = 0;
        succeeded(sys::nvrtcGetProgramLogSize(program.0, &mut bytes)).ok()?;
        let mut text = vec![0u8; bytes.max(1)];
        succeeded(sys::nvrtcGetProgramLog(program.0, text.as_mut_ptr().cast::<c_char>())).ok()?;
        let text = CStr::from_bytes_until_nul(&text).ok()?;
        Some(text.to_string_lossy().trim_end().to_owned())
    }
}

fn succeeded(status: sys::nvrtcResult) -> Result<(), String> {
    match status {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Contents of a cached file, if it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    if bytes.len() <= DIGEST {
        return None;
    }
    let code = bytes.split_off(DIGEST);
    (Sha256::digest(&code)[..] == bytes[..]).then_some(code)
}

/// Writes a cached file: its digest and its contents, to a temporary name and renamed.
fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::File::create(&aside)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    drop(file);
    fs::rename(&aside, path).inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(hash: &'static str) -> Module {
        Module { path: "norm/k.cu", text: "", hash, fatbin: None }
    }

    #[test]
    fn the_key_depends_on_source_options_and_compiler() {
        let (old, new) = (Compiler { version: (12, 4) }, Compiler { version: (13, 0) });
        let (one, other) = (module("0"), module("1"));
        let (first, second) = (options("sm_80"), options("sm_90a"));
        let keys = [
            old.key(&one, &first),
            new.key(&one, &first),
            old.key(&other, &first),
            old.key(&one, &second),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
        assert_eq!(keys[0], old.key(&one, &first));
    }
}
