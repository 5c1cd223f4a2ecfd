//! VQA evaluation of a model on a dataset.

use aurora_data::formats::vqa::answer_list;
use aurora_data::{Dataset, Padding, QuestionId};
use aurora_layers::{Blip, BoundModel};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

use crate::accuracy::{AccuracyReport, kind, normalize_answer, score};
use crate::config::DataSection;
use crate::error::Result;
use crate::pipeline::data_module::{DataModule, ValidBatch};
use crate::progress::Progress;
use crate::vqa::{Texts, encode_questions, rank_answers};

/// Value of `data.answer_list` for the answers of the training questions.
const OF_TRAINING: &str = "train";

/// Predicted answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Dataset index of the question.
    pub index: usize,
    /// Chosen candidate.
    pub answer: String,
    /// VQA score, 0 to 1; `None` where no right answer is known.
    pub score: Option<f64>,
}

/// Result of a VQA evaluation.
#[derive(Debug, Clone)]
pub struct VqaEval {
    /// Accuracy and its parts.
    pub report: AccuracyReport,
    /// Predictions in the order of the dataset.
    pub predictions: Vec<Prediction>,
}

/// Entry of `answers.json`, in the format of VQA submissions.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    question_id: QuestionId,
    answer: &'a str,
}

impl VqaEval {
    /// Predictions as JSON, in the format of VQA submissions. A question without a name gets its number.
    ///
    /// # Errors
    /// An index past the end of the dataset.
    pub fn to_json(&self, dataset: &Dataset) -> Result<String> {
        let entry = |given: &Prediction| -> Result<String> {
            let id = dataset.sample(given.index)?.question.as_ref().and_then(|q| q.id.clone());
            let question_id = id.unwrap_or(QuestionId::Number(given.index as u64));
            let entry = Entry { question_id, answer: &given.answer };
            serde_json::to_string(&entry)
                .map_err(|e| crate::error::Error::io("write", "answers.json", e.into()))
        };
        let lines: Vec<String> = self.predictions.iter().map(entry).collect::<Result<_>>()?;
        Ok(format!("[\n{}\n]\n", lines.join(",\n")))
    }
}

/// Answer candidates, each once: the list of a file, or the answers of `train`.
///
/// # Errors
/// A file that is no list of answers; training data without an answer.
pub fn answer_candidates(
    section: &DataSection,
    train: impl FnOnce() -> Result<Dataset>,
) -> Result<Vec<String>> {
    let all: Vec<String> = match section.answer_list.as_str() {
        OF_TRAINING => {
            let train = train()?;
            let questions = train.samples().filter_map(|sample| sample.question.as_ref());
            let answers = questions.flat_map(|question| &question.answers);
            // Sorted, so that the order of the data has no effect.
            let answers: BTreeSet<String> =
                answers.map(|(answer, _)| normalize_answer(answer)).collect();
            answers.into_iter().collect()
        }
        path => answer_list(Path::new(path))?,
    };
    let mut known = BTreeSet::new();
    let all: Vec<String> =
        all.into_iter().filter(|answer| known.insert(normalize_answer(answer))).collect();
    if all.is_empty() {
        let what = "the list of answers".to_owned();
        let reason = "no question of data.train has an answer; with task vqa every question \
                      there has one"
            .to_owned();
        return Err(aurora_data::Error::Empty { what, reason }.into());
    }
    Ok(all)
}

/// Answers the questions of a dataset from `candidates`: the `k` whose first token is likeliest are compared in full.
///
/// # Errors
/// An image that does not decode and may not be skipped, a sample without a question, shapes that do not fit the
/// model.
pub fn evaluate_vqa(
    (blip, bound): (&Blip, &BoundModel),
    dataset: &Dataset,
    data_module: &DataModule,
    candidates: &[String],
    k: usize,
    progress: &mut dyn Progress,
) -> Result<VqaEval> {
    let device = blip.device();
    let (ids, mask) =
        data_module.tokens.encode_batch(candidates, data_module.max_tokens, Padding::Longest)?;
    let (ids, mask): (Tensor, Tensor) = (ids.to_device(device)?, mask.to_device(device)?);
    let texts = Texts { token_ids: &ids, mask: &mask };
    let known: BTreeSet<String> =
        candidates.iter().map(|answer| normalize_answer(answer)).collect();
    let total = dataset.len() as u64;
    let mut done = 0;
    progress.on_part("vqa", done, total);
    let mut report = AccuracyReport::default();
    let mut predictions = Vec::with_capacity(dataset.len());
    for batch in data_module.eval_loader(dataset)?.epoch(0)? {
        let batch = batch?;
        done += batch.indices.len() as u64;
        if let Some(batch) = ValidBatch::new(batch, device)? {
            let keys = encode_questions(blip, bound, batch.images()?, &batch.texts())?;
            let chosen = rank_answers((blip, bound), &keys, &texts, k)?;
            for (&index, chosen) in batch.indices.iter().zip(chosen) {
                let answer = candidates.get(chosen).cloned().unwrap_or_default();
                let question = dataset.sample(index)?.question.as_ref();
                let right = question.map(|q| q.answers.as_slice()).unwrap_or_default();
                let scored = (!right.is_empty()).then(|| score(&answer, right));
                if let Some(scored) = scored {
                    let reachable =
                        right.iter().filter(|(a, _)| known.contains(&normalize_answer(a)));
                    let best = reachable.map(|(a, _)| score(a, right)).fold(0.0, f64::max);
                    let said = question.and_then(|question| question.answer_type.as_deref());
                    report.add(scored, best, said.unwrap_or_else(|| kind(right)));
                }
                predictions.push(Prediction { index, answer, score: scored });
            }
        }
        progress.on_part("vqa", done, total);
    }
    Ok(VqaEval { report, predictions })
}
