//! The program as a user meets it: the built binary, its exit codes, what it prints and writes.

mod bad_input;
mod commands;
mod fixture;
