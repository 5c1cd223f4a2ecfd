//! One file per command; each turns arguments into calls of the libraries and results into words.

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
