//! Whole runs: open the data, measure, train, keep the best, write the run folder.
//!
//! Everything here is put together from the other modules; a program that wants another run can do the same.

mod measure;
mod model;
mod pretraining;
mod sources;
mod tuning;

pub use measure::{Evaluation, gallery, measure};
pub use model::{Model, VOCABULARIES, vocabulary_beside};
pub use pretraining::{Pretrained, pretrain};
pub use sources::{Pictures, open};
pub use tuning::{Inputs, Outcome, adapter_card, tune};
