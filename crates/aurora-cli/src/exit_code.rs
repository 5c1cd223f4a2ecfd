//! Exit codes by the cause of an error: a script can tell bad input from a bug.

use aurora_data::Error as DataError;
use aurora_kernels::Error as KernelsError;
use aurora_layers::Error as LayersError;
use aurora_train::Error as TrainError;

/// Unusable input; the message says what to change. Also clap's code for usage errors.
pub const BAD_INPUT: u8 = 2;

/// Internal error, which no input should be able to cause.
pub const INTERNAL: u8 = 1;

/// Error for input that this program itself refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadInput(pub String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Error about the user's input.
pub fn bad_input(message: impl Into<String>) -> anyhow::Error {
    BadInput(message.into()).into()
}

/// Exit code of an error: [`BAD_INPUT`] if one of its causes is about the input.
pub fn of(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_about_input) { BAD_INPUT } else { INTERNAL }
}

fn is_about_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<BadInput>()
        || cause.is::<aurora_train::config::ConfigError>()
        || cause.downcast_ref().is_some_and(of_kernels)
        || is_out_of_device_memory(&cause.to_string())
        || cause.downcast_ref().is_some_and(of_data)
        || cause.downcast_ref().is_some_and(of_layers)
        || cause.downcast_ref().is_some_and(of_train)
}

/// True if a message reports exhausted GPU memory: ours, or candle's, which passes on the driver's name for it.
pub fn is_out_of_device_memory(message: &str) -> bool {
    message.contains("CUDA_ERROR_OUT_OF_MEMORY") || message.contains("out of device memory")
}

/// True for a missing GPU: the message says what to ask for instead.
fn of_kernels(error: &KernelsError) -> bool {
    matches!(error, KernelsError::Gpu(_))
}

fn of_data(error: &DataError) -> bool {
    !matches!(error, DataError::Tensor(_) | DataError::OutOfRange { .. } | DataError::Worker { .. })
}

fn of_layers(error: &LayersError) -> bool {
    !matches!(error, LayersError::Tensor(_))
}

fn of_train(error: &TrainError) -> bool {
    match error {
        // Transparent variants: the chain of causes skips the wrapped error.
        TrainError::Data(error) => of_data(error),
        TrainError::Model(error) => of_layers(error),
        TrainError::Config(_)
        | TrainError::Io { .. }
        | TrainError::RunExists { .. }
        | TrainError::NoRun { .. }
        | TrainError::RunFinished { .. }
        | TrainError::NoCheckpoint { .. }
        | TrainError::Checkpoint { .. }
        | TrainError::OtherConfig { .. }
        | TrainError::Metrics { .. }
        | TrainError::NoTokenizer { .. }
        | TrainError::VocabSizeMismatch { .. }
        | TrainError::ModelTaskMismatch { .. }
        | TrainError::NothingToTrain { .. }
        | TrainError::UnlabeledValidation { .. }
        | TrainError::NoNegative { .. }
        | TrainError::NoGroundTruth { .. }
        | TrainError::State { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        let error = Err::<(), anyhow::Error>(error.into()).context("while doing something");
        of(&error.unwrap_err())
    }

    #[test]
    fn input_and_bugs_are_told_apart() {
        let path = std::path::PathBuf::from("x");
        let exists = TrainError::RunExists { path: path.clone(), found: "config.toml" };
        assert_eq!(code(exists), BAD_INPUT);
        assert_eq!(code(LayersError::Format { path, reason: String::new() }), BAD_INPUT);
        let empty = DataError::EmptyFolder { path: "x".into() };
        assert_eq!(code(TrainError::Data(empty)), BAD_INPUT);
        assert_eq!(code(bad_input("no")), BAD_INPUT);
        let none = aurora_kernels::cuda::CudaError::NoDevice { ordinal: 3, count: 1 };
        assert_eq!(code(aurora_kernels::Error::from(none)), BAD_INPUT);
        let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert_eq!(code(candle_core::Error::Msg(full.to_owned())), BAD_INPUT);
        assert_eq!(code(candle_core::Error::Msg("shape".to_owned())), INTERNAL);
        assert_eq!(code(LayersError::Tensor(candle_core::Error::Msg("s".to_owned()))), INTERNAL);
        assert_eq!(code(std::io::Error::other("odd")), INTERNAL);
    }
}
