//! `aurora quickstart`: a tuning of the embedded model on the embedded images.

use anyhow::Result;

use super::train::tuning;
use crate::args::RunArgs;

/// Runs the command. The defaults of a configuration are the quickstart's, so that there is
/// nothing to add.
///
/// # Errors
/// Settings or a folder that cannot be used.
pub fn run(args: &RunArgs) -> Result<()> {
    tuning(args, "quickstart")
}
