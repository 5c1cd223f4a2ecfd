//! Integration tests of the chores: tidy, on small workspaces and on this one, the list of checks, the workflow.

#![allow(clippy::unwrap_used, reason = "a test may stop where its own set-up fails")]

mod ci;
mod dependencies;
mod documents;
mod tidy;
mod workflows;
mod workspace;
