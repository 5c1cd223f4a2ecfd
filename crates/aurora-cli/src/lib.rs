#![doc = include_str!("../README.md")]

pub mod args;
pub mod commands;
pub mod embedded_backbone;
pub mod exit_code;
pub mod model;
pub mod output;
pub mod page;
pub mod plots;
pub mod progress;
pub mod random_baseline;
pub mod search;
pub mod thumbnail;

use anyhow::Result;
use args::{Cli, Command};

/// Runs the command of a parsed command line.
///
/// # Errors
/// Whatever stops the command; [`exit_code::of`] says whose fault it is.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Pretrain(args) => commands::pretrain::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Search(args) => commands::search::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Merge(args) => commands::merge::run(args),
        Command::Data(args) => commands::data::run(args),
    }
}
