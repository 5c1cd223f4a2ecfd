//! `aurora data check`: arguments.

use std::path::PathBuf;

use clap::Args;

use super::data::AnnotationArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  aurora data check my-images
  aurora data check train.json val.json test.json --image-root coco --out checks/coco
  aurora data check shards/000.tar shards/001.tar --tokenizer models/blip/vocab.txt

Exit code 0 where a training could use everything, 1 where something would end it unless
data.on_error is skip, 2 where nothing could be looked at.";

/// Arguments of `aurora data check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Folders, tar shards and files of annotations (.json, .jsonl, .csv, .tsv)
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Annotations.
    #[command(flatten)]
    pub annotations: AnnotationArgs,

    /// vocab.txt or tokenizer.json of the model to be tuned
    ///
    /// Without it, the embedded model's.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,

    /// Maximum text length in tokens that the model takes whole
    #[arg(long, value_name = "N", default_value_t = 35, value_parser = clap::value_parser!(u32).range(3..))]
    pub max_tokens: u32,

    /// Output folder for check.json and check.html; a later check replaces them
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
