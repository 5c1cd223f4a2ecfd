//! `aurora eval`: recall of a model on the test pairs.

use anyhow::{Context, Result};
use aurora_data::Split;
use aurora_train::config::Config;
use aurora_train::pipeline::open;
use aurora_train::recall::RetrievalReport;
use serde::Serialize;

use super::shared::{recall_table, resolve_on, write_whole};
use crate::args::EvalArgs;
use crate::model::{self, Ready};
use crate::output;
use crate::progress::Display;

/// What `evaluation.json` says.
#[derive(Debug, Serialize)]
struct Measured {
    /// Recall of the two stages together, percent.
    recall: RetrievalReport,
    /// Recall by similarity of features alone, percent.
    by_similarity: RetrievalReport,
    /// Weight of the similarity beside the matching logit.
    beta: f64,
    /// Pictures that were searched.
    test_pairs: usize,
    /// The backbone's name or folder.
    backbone: String,
    /// The adapter's folder.
    adapter: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Settings, data or an adapter that cannot be used.
pub fn run(args: &EvalArgs) -> Result<()> {
    let config: Config = resolve_on(&args.settings, &args.device)?;
    let device = model::device(&config)?;
    let model = model::open(&config.model, &device)?;
    let ready = Ready::new(&model, args.adapter.as_deref())?;
    let data = &config.data;
    let test = open(&data.test, Split::Test, &data.reading(), &data.skips())?;
    let mut progress = Display::new();
    let beta = ready.beta(&model.tokens, &config, &mut progress)?;
    let found = ready.measure(&test, &model.tokens, &config, Some(beta), &mut progress)?;
    recall_table(&[("both stages", &found.report), ("similarity alone", &found.by_similarity)])
        .print();
    let adapter = args.adapter.as_ref().map(|folder| folder.display().to_string());
    output::line(&format!(
        "\n{} test pairs, backbone {}, {}",
        output::count(test.len() as u64),
        model.name,
        adapter.as_ref().map_or("no adapter".to_owned(), |folder| format!("adapter {folder}"))
    ));
    if let Some(out) = &args.out {
        let measured = Measured {
            recall: found.report,
            by_similarity: found.by_similarity,
            beta: found.beta,
            test_pairs: test.len(),
            backbone: model.name,
            adapter,
        };
        let path = out.join("evaluation.json");
        let text = serde_json::to_string_pretty(&measured).context("evaluation.json")?;
        write_whole(&path, &(text + "\n"))?;
        output::line(&format!("written to {}", path.display()));
    }
    Ok(())
}
