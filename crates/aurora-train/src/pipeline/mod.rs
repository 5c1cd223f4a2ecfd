//! Whole runs: open the data, measure, train, keep the best, write the run folder.
//!
//! Everything here is put together from the other modules; a program that wants another run can do the same.

mod data_module;
mod eval;
mod model;
mod pretraining;
mod sources;
mod tuning;

pub use data_module::DataModule;
pub use eval::retrieval::{
    EncodedGallery, RetrievalEval, concepts, encode_gallery, evaluate_retrieval,
};
pub use eval::vqa::{Prediction, VqaEval, answer_candidates, evaluate_vqa};
pub use eval::{EvalResult, Evaluator};
pub use model::{Model, TOKENIZER_FILES, tokenizer_beside};
pub use pretraining::{Pretrained, pretrain};
pub use sources::{DataSplits, open};
pub use tuning::{Inputs, TrainingCheckpoint, TuningResult, adapter_card, resume, tune};
