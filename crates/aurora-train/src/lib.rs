#![doc = include_str!("../README.md")]

pub mod accuracy;
pub mod config;
pub mod distill;
pub mod ema;
pub mod error;
pub mod evaluation;
pub mod itc;
pub mod itm;
pub mod metrics;
pub mod optimizer;
pub mod pipeline;
pub mod progress;
pub mod queue;
pub mod recall;
pub mod rerank;
pub mod retrieval;
pub mod run;
pub mod schedule;
pub mod trainer;
pub mod vqa;

pub use error::{Error, Result};
