//! `aurora eval`: recall or VQA accuracy of a model on the test split.

use anyhow::{Context, Result};
use aurora_data::Split;
use aurora_train::accuracy::AccuracyReport;
use aurora_train::config::Config;
use aurora_train::pipeline::{EvalResult, open};
use aurora_train::recall::RetrievalReport;
use serde::Serialize;

use super::shared::{accuracy_table, recall_table, resolve_on, skipped_line, write_whole};
use crate::args::EvalArgs;
use crate::model::{self, LoadedModel};
use crate::output;
use crate::progress::ProgressDisplay;

/// Content of `evaluation.json`.
#[derive(Debug, Serialize)]
struct EvaluationJson {
    #[serde(flatten)]
    found: EvalMetrics,
    /// Number of images searched, or of questions asked.
    test_pairs: usize,
    /// Name or folder of the backbone.
    backbone: String,
    /// Folder of the adapter.
    adapter: Option<String>,
}

/// Task-specific metrics of `evaluation.json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EvalMetrics {
    Retrieval {
        /// Two-stage recall in percent: similarity, then re-ranking by the matching head.
        recall: RetrievalReport,
        /// Recall by feature similarity alone, in percent.
        by_similarity: RetrievalReport,
        /// Weight of the similarity added to the matching logit.
        similarity_weight: f64,
    },
    Vqa {
        /// VQA accuracy in percent.
        accuracy: AccuracyReport,
        /// Number of candidate answers.
        candidates: usize,
    },
}

/// Runs `aurora eval`.
///
/// # Errors
/// Settings, data or an adapter that cannot be used.
pub fn run(args: &EvalArgs) -> Result<()> {
    let config: Config = resolve_on(&args.settings, &args.device)?;
    let device = model::device(&config)?;
    let model = model::open(&config.model, config.task, &device)?;
    let loaded = LoadedModel::new(&model, args.adapter.as_deref())?;
    let evaluator = model::evaluator(&config, &model)?;
    let (data, skips) = (&config.data, &evaluator.data_module().skips);
    let test = open(&data.test, Split::Test, &data.reading(), skips)?;
    let mut progress = ProgressDisplay::new();
    let similarity_weight = loaded.similarity_weight(&evaluator, &config, &mut progress)?;
    let measured = loaded.measure(&evaluator, &test, Some(similarity_weight), &mut progress)?;
    let (what, found) = match &measured {
        EvalResult::Retrieval(found) => {
            let lines =
                [("both stages", &found.report), ("similarity alone", &found.by_similarity)];
            recall_table(&lines).print();
            let (recall, by_similarity) = (found.report, found.by_similarity);
            (
                "test pairs",
                EvalMetrics::Retrieval {
                    recall,
                    by_similarity,
                    similarity_weight: found.similarity_weight,
                },
            )
        }
        EvalResult::Vqa(found) => {
            accuracy_table(&[("answers", &found.report)]).print();
            let (accuracy, candidates) = (found.report.clone(), evaluator.candidates());
            ("test questions", EvalMetrics::Vqa { accuracy, candidates })
        }
    };
    let adapter = args.adapter.as_ref().map(|folder| folder.display().to_string());
    output::line(&format!(
        "\n{} {what}, backbone {}, {}",
        output::count(test.len() as u64),
        model.name,
        adapter.as_ref().map_or("no adapter".to_owned(), |folder| format!("adapter {folder}"))
    ));
    let skipped = skips.list();
    let list = args.out.as_ref().map(|out| out.join("skipped.jsonl"));
    if let Some(line) = skipped_line(skipped.len() as u64, list.as_deref()) {
        output::line(&line);
    }
    if let Some(out) = &args.out {
        let measured_here =
            EvaluationJson { found, test_pairs: test.len(), backbone: model.name, adapter };
        let path = out.join("evaluation.json");
        let text = serde_json::to_string_pretty(&measured_here).context("evaluation.json")?;
        write_whole(&path, &(text + "\n"))?;
        if let EvalResult::Vqa(found) = &measured {
            write_whole(&out.join("answers.json"), &found.to_json(&test)?)?;
        }
        if !skipped.is_empty() {
            let lines = skipped.iter().map(|one| Ok(serde_json::to_string(one)? + "\n"));
            let text: String = lines.collect::<Result<_>>()?;
            write_whole(&out.join("skipped.jsonl"), &text)?;
        }
        output::line(&format!("written to {}", path.display()));
    }
    Ok(())
}
