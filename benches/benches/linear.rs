//! Bench target of linear layers, frozen and with a delta merged into their weight.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("linear", aurora_benches::cases::linear)
}
