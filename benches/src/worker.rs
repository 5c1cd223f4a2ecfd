//! Worker process that a chore times: JSON lines out, a word a line in. The other end is `xtask/src/worker.rs`.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

/// Result with any error: it is only printed.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Whole `main` of a worker, with memory and threads as the program `aurora` has them.
pub fn program(run: impl FnOnce() -> Result<()>) -> ExitCode {
    aurora_kernels::allocator::retain_freed_memory();
    aurora_kernels::rayon_pool::include_main_thread();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it, the exit code says enough.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes one line to the chore.
///
/// # Errors
/// A chore that is gone.
pub fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Serves a chore: says `ready`, runs when told to until told to end, reports the time and the count of each run, and
/// at last the peak memory since it was ready.
///
/// # Errors
/// Those of `run`, and a chore that is gone.
pub fn serve(mut ready: Value, mut run: impl FnMut() -> Result<Value>) -> Result<()> {
    forget_peak();
    ready["ready"] = true.into();
    say(&ready)?;
    for line in io::stdin().lock().lines() {
        if line?.trim() != "run" {
            break;
        }
        let start = Instant::now();
        let count = run()?;
        say(&json!({"seconds": start.elapsed().as_secs_f64(), "count": count}))?;
    }
    say(&json!({"peak_bytes": peak_bytes()?}))
}

/// Resets the peak memory, so that earlier allocations count only where they are still held. Where the system cannot
/// reset it, the peak is that of both, which is only larger.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.ok_or("the system does not say how much memory was used")? * 1024)
}
