//! `aurora quickstart`: tunes the embedded model on the embedded images.

use anyhow::Result;

use super::train::tuning;
use crate::args::RunArgs;

/// Runs `aurora quickstart`: a tuning run, whose defaults are those of the configuration.
///
/// # Errors
/// Settings or a folder that cannot be used.
pub fn run(args: &RunArgs) -> Result<()> {
    tuning(args, "quickstart")
}
