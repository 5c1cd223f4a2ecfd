//! Bench target of attention, forward and backward.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("attention", aurora_benches::cases::attention)
}
