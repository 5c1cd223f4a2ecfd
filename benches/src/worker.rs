//! A process that a chore times: lines of JSON out, a word a line in. The other end is `xtask/src/worker.rs`.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

/// Any error: it is only printed.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The whole of a worker's `main`, with memory and threads as the program `aurora` has them.
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

/// One line to the chore.
///
/// # Errors
/// A chore that is gone.
pub fn say(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Says `ready`, runs when told to until told to end, and says what each run took and counted, and at last the most memory
/// that there was meanwhile.
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

/// What came before is no part of what is measured; what of it is still there is. Where the system cannot forget it, the
/// peak is that of both, which is only larger.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.ok_or("the system does not say how much memory was used")? * 1024)
}
