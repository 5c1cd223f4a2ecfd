//! Bench target of memory-bound operations: layer normalization and the activation.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("norm", aurora_benches::cases::norm)
}
