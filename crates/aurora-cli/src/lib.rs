//! The pieces of the program `aurora`.

pub mod args;
pub mod commands;
pub mod curves;
pub mod failure;
pub mod nano;
pub mod output;
pub mod page;
pub mod progress;
pub mod thumbnail;

use anyhow::Result;
use args::{Cli, Command};

/// Does what the command line asks for.
///
/// # Errors
/// Whatever stops the command; [`failure::exit_code`] says whose fault it is.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Inspect(args) => commands::inspect::run(args),
        _ => Err(anyhow::anyhow!("not there yet")),
    }
}
