//! Integration tests: whole runs, and the steps they are made of, a module a subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;
mod configurations;
mod golden;
mod pretraining;
mod recipes;
mod resume;
mod resume_refused;
mod runs;
mod tasks;
mod tuning;
