//! Tests of the command line: a valid declaration, and help examples that parse.

use super::*;
use clap::CommandFactory;

#[test]
fn the_declaration_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = format!("aurora {}", command.get_name());
        assert!(help.contains(&example), "{}", command.get_name());
    }
}

/// The examples in the help are command lines that parse.
#[test]
fn the_examples_parse() {
    let program = Cli::command();
    let groups = program.get_subcommands().flat_map(clap::Command::get_subcommands);
    for command in program.get_subcommands().chain(groups) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  aurora ")) {
            let words = words_of(&format!("aurora {line}"));
            assert!(Cli::try_parse_from(&words).is_ok(), "{line}");
        }
    }
}

/// Shell word splitting, for double quotes only.
fn words_of(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(index, piece)| match index % 2 {
            0 => piece.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![piece.to_owned()],
        })
        .collect()
}
