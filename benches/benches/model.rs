//! Bench target of parts of whole passes: blocks with gradient checkpointing, texts without padding.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("model", aurora_benches::cases::model)
}
