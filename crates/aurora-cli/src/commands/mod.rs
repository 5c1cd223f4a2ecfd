//! Commands, one module each: arguments to library calls, results to text.

pub mod data;
pub mod eval;
pub mod export;
pub mod import;
pub mod inspect;
pub mod merge;
pub mod pretrain;
pub mod quickstart;
mod report;
pub mod search;
mod shared;
pub mod train;
