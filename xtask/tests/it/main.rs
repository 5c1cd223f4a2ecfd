//! The chores on small trees of their own.

#![allow(clippy::unwrap_used, reason = "a test may stop where its own set-up fails")]

mod ci;
mod dependencies;
mod tidy;
mod workflows;
mod workspace;
