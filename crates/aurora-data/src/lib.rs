#![doc = include_str!("../README.md")]

pub mod byte_source;
pub mod caption;
pub mod check;
mod dataset;
mod decode_error;
mod digest;
pub mod embedded;
mod error;
pub mod folder;
pub mod formats;
mod image;
pub mod loader;
mod media_type;
pub mod on_error;
mod parquet;
mod question;
mod sample;
pub mod shard;
pub mod source;
mod tokenizer;
pub mod transform;
pub mod video;
pub mod write;

pub use self::image::{Crop, Image, MAX_PIXELS};
pub use byte_source::ByteSource;
pub use caption::Keywords;
pub use dataset::{Dataset, Decode};
pub use decode_error::{DecodeError, DecodeErrorKind};
pub use digest::fingerprint;
pub use error::{Error, Result, printable, quoting};
pub use folder::Captions;
pub use formats::Format;
pub use loader::{
    Batch, BatchAnswers, Batches, LastBatch, Loader, LoaderOptions, LoaderState, Mode, Shuffle,
    TextField,
};
pub use on_error::{OnError, SkipLog, Skipped};
pub use question::{AnswerSet, Question, QuestionId, WeightedAnswer};
pub use sample::{Media, Sample, Split};
pub use tokenizer::{Padding, SpecialTokens, Tokenizer};
pub use transform::{AffineAugment, EvalTransform, Operation, RandAugmentTransform, Transform};
