//! Bench target of the soft-target cross-entropy over a long queue.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("loss", aurora_benches::cases::loss)
}
