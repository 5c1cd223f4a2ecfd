//! The pieces of the program `aurora`.

pub mod args;
pub mod output;
pub mod page;
pub mod progress;
