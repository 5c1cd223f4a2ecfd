//! The CP delta: every slice of a model formed, applied beside the linear layer, and its factors' gradients.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("cp", aurora_benches::cases::cp)
}
