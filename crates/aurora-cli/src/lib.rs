//! The pieces of the program `aurora`.

pub mod page;
