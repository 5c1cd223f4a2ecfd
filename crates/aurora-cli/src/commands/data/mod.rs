//! `aurora data`: one module per subcommand.

mod check;
mod shard;

use anyhow::Result;

use crate::args::{DataArgs, DataCommand};

/// Runs the subcommand of `aurora data`.
///
/// # Errors
/// Those of the subcommand.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        DataCommand::Check(args) => check::run(args),
        DataCommand::Shard(args) => shard::run(args),
    }
}
