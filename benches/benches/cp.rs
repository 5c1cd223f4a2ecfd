//! Bench target of the CP delta: reconstruction of every slice of a model, application beside the linear layer, and
//! the gradients of its factors.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("cp", aurora_benches::cases::cp)
}
