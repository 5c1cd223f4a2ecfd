//! Whole runs: open the data, measure, train, keep the best, write the run folder.
//!
//! Everything here is put together from the other modules; a program that wants another run can do the same.

mod answers;
mod feed;
mod measure;
mod measurement;
mod model;
mod pretraining;
mod sources;
mod tuning;

pub use answers::{Prediction, VqaEval, answer, candidates};
pub use feed::Feed;
pub use measure::{Encoded, Evaluation, concepts, encode, measure};
pub use measurement::{Measurement, Measurer};
pub use model::{Model, TOKENIZER_FILES, tokenizer_beside};
pub use pretraining::{Pretrained, pretrain};
pub use sources::{Pictures, open};
pub use tuning::{Inputs, Outcome, Saved, adapter_card, resume, tune};
