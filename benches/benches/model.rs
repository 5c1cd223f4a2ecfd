//! Parts of whole passes: recomputed blocks, texts without padding.

use std::process::ExitCode;

fn main() -> ExitCode {
    aurora_benches::target("model", aurora_benches::cases::model)
}
