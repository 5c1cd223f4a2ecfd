//! `aurora data`: a file for each of its commands.

mod check;
mod shard;

use anyhow::Result;

use crate::args::{DataArgs, DataCommand};

/// Runs the command.
///
/// # Errors
/// Those of the command that was asked for.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        DataCommand::Check(args) => check::run(args),
        DataCommand::Shard(args) => shard::run(args),
    }
}
