//! Baseline: the bare backbone's evaluation on the test split, saved so that a resumed run need not repeat it.

use std::path::Path;

use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{Tensors, tensors};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::training_checkpoint::{damaged, read_json, write_json};
use crate::accuracy::AccuracyReport;
use crate::error::Result;
use crate::pipeline::{EvalResult, Prediction, RetrievalEval, VqaEval};
use crate::recall::RetrievalReport;

const METRICS: &str = "measurement.json";
const SCORES: &str = "scores.safetensors";

/// Name of the scores in their file.
const T2I: &str = "t2i";

/// Evaluation without its scores, which are tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Kept {
    Retrieval {
        report: RetrievalReport,
        by_similarity: RetrievalReport,
        similarity_weight: f64,
        images: Vec<usize>,
        texts: Vec<(usize, String)>,
    },
    Vqa {
        report: AccuracyReport,
        predictions: Vec<Prediction>,
    },
}

/// Writes an evaluation into a folder.
pub(super) fn write(folder: &Path, measured: &EvalResult) -> Result<()> {
    let kept = match measured.clone() {
        EvalResult::Retrieval(RetrievalEval {
            report,
            by_similarity,
            similarity_weight,
            t2i,
            images,
            texts,
        }) => {
            let scores = Tensors::from([(T2I.to_owned(), t2i)]);
            tensors::write(&scores, &folder.join(SCORES))?;
            Kept::Retrieval { report, by_similarity, similarity_weight, images, texts }
        }
        EvalResult::Vqa(VqaEval { report, predictions }) => Kept::Vqa { report, predictions },
    };
    write_json(folder, METRICS, &kept)
}

/// Reads an evaluation from a folder.
pub(super) fn read(folder: &Path) -> Result<EvalResult> {
    Ok(match read_json(folder, METRICS)? {
        Kept::Vqa { report, predictions } => EvalResult::Vqa(VqaEval { report, predictions }),
        Kept::Retrieval { report, by_similarity, similarity_weight, images, texts } => {
            let t2i = scores(folder, (texts.len(), images.len()))?;
            EvalResult::Retrieval(RetrievalEval {
                report,
                by_similarity,
                similarity_weight,
                t2i,
                images,
                texts,
            })
        }
    })
}

/// Scores (texts, images).
fn scores(folder: &Path, shape: (usize, usize)) -> Result<Tensor> {
    let path = folder.join(SCORES);
    let read = read_tensors(&path, DType::F32, &Device::Cpu);
    let mut read = read.map_err(|error| damaged(folder, &error.to_string()))?;
    let wanted = [(T2I.to_owned(), shape.into())];
    tensors::check(SCORES, &read, &wanted).map_err(|error| damaged(folder, &error.to_string()))?;
    read.remove(T2I).ok_or_else(|| damaged(folder, "it has no scores"))
}
