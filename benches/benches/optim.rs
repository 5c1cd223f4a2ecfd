//! Bench target of AdamW and the moving average over every tensor of an adapter.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("optim", aurora_benches::cases::optim)
}
