//! Binary `aurora`; its code is in the library beside it.

use std::process::ExitCode;

use aurora_cli::{args::Cli, exit_code, output};
use clap::Parser;

fn main() -> ExitCode {
    // A step frees and allocates the same large buffers again and again.
    aurora_kernels::allocator::retain_freed_memory();
    aurora_kernels::rayon_pool::include_main_thread();
    match aurora_cli::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(exit_code::of(&error))
        }
    }
}
