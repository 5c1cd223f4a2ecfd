//! Embedded sources of the kernels, with the fatbins that existed when this crate was built.

use super::CudaError;
use super::symbols::SOURCES;

/// Embedded source, with the fatbin compiled from it.
#[derive(Debug)]
pub struct Module {
    /// Path in `kernels/`.
    pub path: &'static str,
    /// Text of the source.
    pub text: &'static str,
    /// SHA-256 of the headers and the text.
    pub hash: &'static str,
    /// Fatbin compiled from it before this crate was.
    pub fatbin: Option<Fatbin>,
}

/// Fatbin: machine code for several architectures.
#[derive(Debug)]
pub struct Fatbin {
    /// Bytes, as the driver takes them.
    pub bytes: &'static [u8],
    /// nvcc version, as in `13.0.88`.
    pub compiler: &'static str,
    /// Architectures, as in `sm_90a`, or `compute_80` for PTX.
    pub architectures: &'static [&'static str],
}

mod embedded {
    #[allow(unused_imports, reason = "there may be no fatbin")]
    use super::{Fatbin, Module};
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Headers by the names that sources include them by.
pub fn headers() -> &'static [(&'static str, &'static str)] {
    embedded::HEADERS
}

/// All modules.
pub fn modules() -> &'static [Module] {
    embedded::MODULES
}

/// Module that has a kernel.
///
/// # Errors
/// [`CudaError::NoSymbol`] for a symbol that no source exports.
pub fn module_of(symbol: &str) -> Result<&'static Module, CudaError> {
    let exports = |path: &str| {
        let source = SOURCES.iter().find(|source| source.path == path);
        source.is_some_and(|source| source.kernels.iter().any(|kernel| kernel.symbol == symbol))
    };
    modules().iter().find(|module| exports(module.path)).ok_or_else(|| CudaError::NoSymbol {
        module: "in kernels/".to_owned(),
        symbol: symbol.to_owned(),
    })
}

impl Module {
    /// Name of the module: the path without its extension, `/` as `_`.
    pub fn name(&self) -> String {
        self.path.trim_end_matches(".cu").replace('/', "_")
    }

    /// True if it is written for Hopper and nothing else.
    pub fn for_hopper(&self) -> bool {
        self.path.ends_with("_sm90.cu")
    }
}

impl Fatbin {
    /// True if a GPU of this compute capability can run it.
    pub fn fits(&self, capability: (u32, u32)) -> bool {
        self.architectures.iter().any(|architecture| fits(architecture, capability))
    }

    /// CUDA version that compiled it, major and minor.
    pub fn cuda(&self) -> (u32, u32) {
        let mut numbers = self.compiler.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// True if code for `architecture` runs on a GPU of this compute capability: machine code within its major version
/// from its minor version on, code with a letter on that GPU alone, PTX on everything later.
fn fits(architecture: &str, (major, minor): (u32, u32)) -> bool {
    let Some((kind, number)) = architecture.split_once('_') else { return false };
    let digits = number.trim_end_matches(char::is_alphabetic);
    let Ok(number_of) = digits.parse::<u32>() else { return false };
    let (own_major, own_minor) = (number_of / 10, number_of % 10);
    match (kind, digits == number) {
        ("sm", true) => major == own_major && minor >= own_minor,
        ("sm", false) => (major, minor) == (own_major, own_minor),
        ("compute", true) => (major, minor) >= (own_major, own_minor),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_embedded_and_every_symbol_is_found() {
        assert_eq!(modules().len(), SOURCES.len());
        for source in SOURCES {
            for kernel in source.kernels {
                assert_eq!(module_of(kernel.symbol).unwrap().path, source.path);
            }
        }
        assert!(headers().iter().any(|(name, _)| *name == "launch_params.h"));
        let message = module_of("no_such_kernel_f32").unwrap_err().to_string();
        assert!(message.contains("no_such_kernel_f32"), "{message}");
    }

    #[test]
    fn code_fits_what_it_can_run_on() {
        for (architecture, capability, expected) in [
            ("sm_80", (8, 0), true),
            ("sm_80", (8, 9), true),
            ("sm_86", (8, 0), false),
            ("sm_80", (9, 0), false),
            ("sm_90a", (9, 0), true),
            ("sm_90a", (9, 1), false),
            ("sm_100a", (10, 0), true),
            ("sm_90", (10, 0), false),
            ("compute_80", (12, 0), true),
            ("compute_80", (7, 5), false),
            ("nonsense", (8, 0), false),
            ("sm_", (8, 0), false),
        ] {
            assert_eq!(fits(architecture, capability), expected, "{architecture} {capability:?}");
        }
    }

    #[test]
    fn the_version_of_a_compiler_is_read() {
        let fatbin = Fatbin { bytes: &[], compiler: "13.0.88", architectures: &["sm_80"] };
        assert_eq!(fatbin.cuda(), (13, 0));
        assert!(fatbin.fits((8, 6)) && !fatbin.fits((9, 0)));
    }
}
