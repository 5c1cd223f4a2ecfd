//! Whole runs: open the data, evaluate, train, keep the best state, write the run folder.
//!
//! Everything here is composed of the other modules; a program that needs another run can do the same.

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
