//! Tests of the built binary: exit codes, output and files.

#![allow(clippy::unwrap_used, reason = "a test may stop where its own set-up fails")]

mod bad_input;
mod check;
mod checkpoints;
mod commands;
mod data;
mod fixture;
mod inspect;
mod resume;
mod snapshots;
mod tasks;
mod transfer;
