//! `aurora search`: text-to-image search, as a list and as a page.

use anyhow::Result;
use aurora_data::{Captions, Dataset, Decode, embedded};
use aurora_train::config::{Config, Task};

use super::shared::{resolve_on, write_whole};
use crate::args::SearchArgs;
use crate::exit_code::bad_input;
use crate::model::{self, LoadedModel};
use crate::output::{self, Table};
use crate::page::{SearchHit, SearchPage};
use crate::progress::ProgressDisplay;
use crate::search::search;
use crate::thumbnail::thumbnail;

/// Runs `aurora search`.
///
/// # Errors
/// An empty query, images or an adapter that cannot be used.
pub fn run(args: &SearchArgs) -> Result<()> {
    if args.query.trim().is_empty() {
        return Err(bad_input("the query is empty"));
    }
    let config: Config = resolve_on(&args.settings, &args.device)?;
    if config.task != Task::Retrieval {
        return Err(bad_input("a search is retrieval, and `task` is \"vqa\" here"));
    }
    let device = model::device(&config)?;
    let (images, dataset) = match &args.images {
        Some(folder) => {
            let dataset = Dataset::open(&[folder], Captions::Optional, Decode::OnUse)?;
            (folder.display().to_string(), dataset)
        }
        None => {
            let dataset = Dataset::new(embedded::noto()?, Decode::OnUse)?;
            ("the embedded Noto emoji".to_owned(), dataset)
        }
    };
    let model = model::open(&config.model, config.task, &device)?;
    let loaded = LoadedModel::new(&model, args.adapter.as_deref())?;
    let mut progress = ProgressDisplay::new();
    let evaluator = model::evaluator(&config, &model)?;
    let similarity_weight = loaded.similarity_weight(&evaluator, &config, &mut progress)?;
    let candidates = config.evaluation.k_test.max(args.top_k as usize);
    let found = search(
        &loaded,
        &dataset,
        &model.tokens,
        &args.query,
        candidates,
        similarity_weight,
        &mut progress,
    )?;

    let mut page = SearchPage {
        query: args.query.clone(),
        model: match &args.adapter {
            Some(folder) => format!("{} with {}", model.name, folder.display()),
            None => format!("{} without an adapter", model.name),
        },
        images,
        searched: dataset.len(),
        hits: Vec::new(),
    };
    let mut table = Table::new(["image", "score", "ITM logit", "ITC similarity"]);
    for hit in found.iter().take(args.top_k as usize) {
        let sample = dataset.sample(hit.index)?;
        let caption = sample.captions.first().cloned().unwrap_or_default();
        // The key of an image in a pack is a mere number; a file name is informative.
        let name = match (&args.images, caption.is_empty()) {
            (None, false) => caption.clone(),
            _ => sample.key.clone(),
        };
        page.hits.push(SearchHit {
            image: thumbnail(&*dataset.image(hit.index)?, &name)?,
            caption,
            scores: vec![
                ("score".to_owned(), hit.score),
                ("ITM logit".to_owned(), hit.itm_logit),
                ("ITC similarity".to_owned(), hit.itc_similarity),
            ],
        });
        let numbers = [hit.score, hit.itm_logit, hit.itc_similarity].map(|n| format!("{n:.3}"));
        table.row(std::iter::once(name).chain(numbers));
    }
    table.print();
    let path = args.out.join("search.html");
    write_whole(&path, &page.render())?;
    output::line(&format!("\nopen {} to see them", path.display()));
    Ok(())
}
