//! Device selection: the CPU or a GPU.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::Error;
use crate::cuda::CudaError;

/// Device choice by name: `auto`, `cpu`, `cuda` (the first GPU) or `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU where this program and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its ordinal, from 0.
    Cuda(usize),
}

/// Opened device, with a note on how it was chosen.
#[derive(Debug, Clone)]
pub struct OpenedDevice {
    /// Device for tensors.
    pub device: Device,
    /// One sentence for the user, if something unexpected was found.
    pub note: Option<String>,
}

impl DeviceChoice {
    /// Allowed names, for messages.
    pub const ALLOWED: &'static str = "auto, cpu, cuda or cuda:N (N counts from 0)";

    /// Opens the device. `auto` never fails: without a usable GPU it opens the CPU, and the note gives the reason if
    /// this program could have used one.
    ///
    /// # Errors
    /// A GPU asked for by name that is missing, or whose libraries are.
    pub fn open(self) -> Result<OpenedDevice, Error> {
        let quiet = |device| OpenedDevice { device, note: None };
        match self {
            Self::Cpu => Ok(quiet(Device::Cpu)),
            Self::Cuda(ordinal) => Ok(quiet(gpu(ordinal)?)),
            // Without the feature a GPU is not expected: no note.
            Self::Auto if !cfg!(feature = "cuda") => Ok(quiet(Device::Cpu)),
            Self::Auto => Ok(match gpu(0) {
                Ok(device) => quiet(device),
                Err(error) => OpenedDevice {
                    device: Device::Cpu,
                    note: Some(format!("computing on the CPU: {error}")),
                },
            }),
        }
    }
}

/// GPU by ordinal.
#[cfg(feature = "cuda")]
fn gpu(ordinal: usize) -> Result<Device, CudaError> {
    // candle panics where there is no driver, so that is looked for first.
    crate::cuda::driver::require(ordinal)?;
    crate::cuda::driver::libraries()?;
    Device::new_cuda(ordinal).map_err(|error| CudaError::NoLibrary {
        library: "cuBLAS or cuRAND".to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(not(feature = "cuda"))]
fn gpu(ordinal: usize) -> Result<Device, CudaError> {
    Err(CudaError::NotBuilt { asked: DeviceChoice::Cuda(ordinal).to_string() })
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("{name:?} is no device; allowed: {}", Self::ALLOWED);
        match name.split_once(':') {
            None if name == "auto" => Ok(Self::Auto),
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            // `parse` alone would take a sign.
            Some(("cuda", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (name, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
        ] {
            assert_eq!(name.parse(), Ok(choice));
            assert_eq!(choice.to_string(), name);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in [
            "",
            "gpu",
            "CUDA",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:x",
            "cpu:0",
            "cuda:99999999999999999999",
        ] {
            let message = name.parse::<DeviceChoice>().unwrap_err();
            assert!(message.contains("allowed: auto, cpu, cuda or cuda:N"), "{message}");
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        for choice in [DeviceChoice::Cpu, DeviceChoice::Auto] {
            let opened = choice.open().unwrap();
            assert!(opened.device.is_cpu() || cfg!(feature = "cuda"));
        }
        assert_eq!(DeviceChoice::Cpu.open().unwrap().note, None);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_needs_the_feature_and_the_message_says_so() {
        let message = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        for part in ["cuda:1", "--features cuda", "built without CUDA"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
