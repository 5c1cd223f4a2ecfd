//! The program as a user meets it: the built binary, its exit codes, what it prints and writes.

#![allow(clippy::unwrap_used, reason = "a test may stop where its own set-up fails")]

mod bad_input;
mod check;
mod checkpoints;
mod commands;
mod data;
mod fixture;
mod inspect;
mod resume;
mod tasks;
mod transfer;
