//! One file per command; each turns arguments into calls of the libraries and results into words.

pub mod inspect;
mod shared;
