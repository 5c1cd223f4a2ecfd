//! From the outcome of a tuning to its page.

use anyhow::{Context, Result};
use aurora_data::Dataset;
use aurora_layers::AdapterKind;
use aurora_train::config::{Config, RunConfig};
use aurora_train::pipeline::{Evaluation, Inputs, Outcome};
use aurora_train::recall::{Recall, RetrievalReport};
use aurora_train::rerank::NOT_RANKED;
use aurora_train::run::RunFolder;

use crate::chance::chance;
use crate::curves::Metrics;
use crate::output;
use crate::page::{self, CaptionRow, Fact, Hit, ReportPage};
use crate::thumbnail::thumbnail;

/// Captions shown on the page.
const CAPTIONS: usize = 12;

/// Pictures shown for each, before and after.
const PICTURES: usize = 5;

/// Writes `report.html` into the run's folder.
pub fn write(
    run: &RunFolder,
    title: &str,
    config: &Config,
    inputs: &Inputs,
    outcome: &Outcome,
) -> Result<()> {
    let test = &inputs.pictures.test;
    let (images, texts) = ids(test, outcome);
    let page = ReportPage {
        title: title.to_owned(),
        tuned: tuned(config, inputs),
        test: tested(config, test.len()),
        before: of_report(&outcome.summary.before),
        after: of_report(&outcome.summary.after),
        chance: Some(chance(&images, &texts)),
        facts: facts(config, outcome),
        charts: Metrics::read(&run.join("metrics.jsonl"))?.charts(),
        captions: captions(config, test, outcome)?,
        config: config.to_toml()?,
    };
    run.write("report.html", page.render())?;
    Ok(())
}

/// Concept ids of the test pictures and of their captions, in the order of the score matrices.
pub fn ids(test: &Dataset, outcome: &Outcome) -> (Vec<i64>, Vec<i64>) {
    let images = test.concepts();
    let captions = test.samples().map(|sample| sample.captions.len());
    let texts: Vec<i64> =
        images.iter().zip(captions).flat_map(|(id, count)| vec![*id; count]).collect();
    debug_assert_eq!(outcome.after.t2i.dims(), [texts.len(), images.len()]);
    (images, texts)
}

fn of_report(report: &RetrievalReport) -> page::Recall {
    let values = |recall: &Recall| [recall.r1, recall.r5, recall.r10];
    page::Recall { image_to_text: values(&report.i2t), text_to_image: values(&report.t2i) }
}

/// The same numbers in the type that tables are printed from.
pub fn to_report(recall: &page::Recall) -> RetrievalReport {
    let values = |[r1, r5, r10]: [f64; 3]| Recall { r1, r5, r10 };
    RetrievalReport { i2t: values(recall.image_to_text), t2i: values(recall.text_to_image) }
}

fn tuned(config: &Config, inputs: &Inputs) -> String {
    let ranked = |name: &str| format!("{name} of rank {}", config.adapter.rank);
    let what = match config.adapter.kind {
        AdapterKind::Cp => ranked("A CP adapter"),
        AdapterKind::Tucker => ranked("A Tucker adapter"),
        AdapterKind::TensorTrain => ranked("A tensor train"),
        AdapterKind::Lora => ranked("A LoRA adapter"),
        AdapterKind::Dora => ranked("A DoRA adapter"),
        AdapterKind::Vera => ranked("A VeRA adapter"),
        AdapterKind::Ia3 => "An IA3 adapter".to_owned(),
        AdapterKind::Bottleneck => {
            format!("A bottleneck of width {} in every block", config.adapter.rank)
        }
        AdapterKind::Norms => "The layer norms".to_owned(),
        AdapterKind::Biases => "The biases".to_owned(),
        AdapterKind::Heads => "The heads alone".to_owned(),
        AdapterKind::Full => "Every weight".to_owned(),
    };
    let verb = match config.adapter.kind {
        AdapterKind::Norms | AdapterKind::Biases | AdapterKind::Heads => "were",
        _ => "was",
    };
    let frozen = match config.adapter.kind {
        AdapterKind::Full => "",
        AdapterKind::Norms | AdapterKind::Biases => ", whose other weights stayed frozen",
        _ => ", whose own weights stayed frozen",
    };
    format!(
        "{what} {verb} trained for the backbone {}{frozen}, on {} captioned pictures ({}) in {} \
         steps of {}.",
        inputs.backbone_name,
        output::count(inputs.pictures.train.len() as u64),
        config.data.train.as_slice().join(", "),
        output::count(config.schedule.steps),
        config.data.batch
    )
}

fn tested(config: &Config, pictures: usize) -> String {
    let names = config.data.test.as_slice().join(", ");
    let count = output::count(pictures as u64);
    // True of the embedded set's own split, and only of that.
    let own_split = config.data.train == config.data.test;
    if names == "noto" && own_split {
        return format!("Tested on {count} emoji of things that no training picture shows.");
    }
    format!("Tested on {count} pictures ({names}).")
}

fn facts(config: &Config, outcome: &Outcome) -> Vec<Fact> {
    let summary = &outcome.summary;
    let fact =
        |label: &str, value: String, note: String| Fact { label: label.to_owned(), value, note };
    let share = output::share(summary.trainable_parameters, summary.backbone_parameters);
    let whole = output::count(summary.backbone_parameters);
    let (before, after) = (&outcome.before, &outcome.after);
    vec![
        fact(
            "Trainable parameters",
            output::count(summary.trainable_parameters),
            format!("{share} of the backbone's {whole}"),
        ),
        fact(
            "Adapter on disk",
            output::bytes(summary.adapter_bytes),
            "everything that has to be kept".to_owned(),
        ),
        fact("Time", output::duration(summary.seconds), "with all measurements".to_owned()),
        fact("Seed", summary.seed.to_string(), "the same seed gives the same run".to_owned()),
        fact(
            "Similarity alone",
            format!("{:.1} %", after.by_similarity.mean()),
            format!(
                "mean recall without the matching head; {:.1} % before",
                before.by_similarity.mean()
            ),
        ),
        fact(
            "Re-ranked",
            match config.evaluation.k_test {
                0 => "nothing".to_owned(),
                k => format!("best {k}"),
            },
            format!("candidates of each query, by matching logit + {} × similarity", after.beta),
        ),
    ]
}

/// A dozen captions, evenly spaced over the test set: not chosen by how they fared.
fn captions(config: &Config, test: &Dataset, outcome: &Outcome) -> Result<Vec<CaptionRow>> {
    let keywords = config.data.evaluation_keywords.into();
    let texts = test.texts(keywords);
    let ids = test.concepts();
    let shown = CAPTIONS.min(texts.len());
    (0..shown)
        .map(|row| {
            let at = row * texts.len() / shown;
            let (picture, caption) = texts.get(at).context("a caption of the test set")?;
            let concept = *ids.get(*picture).context("a picture of the test set")?;
            let side = |evaluation: &Evaluation| side(test, &ids, concept, evaluation, at);
            let ((before, rank_before), (after, rank_after)) =
                (side(&outcome.before)?, side(&outcome.after)?);
            Ok(CaptionRow { caption: caption.clone(), before, after, rank_before, rank_after })
        })
        .collect()
}

/// The best pictures for text `at`, and the rank of the first right one if it was ranked.
fn side(
    test: &Dataset,
    ids: &[i64],
    concept: i64,
    evaluation: &Evaluation,
    at: usize,
) -> Result<(Vec<Hit>, Option<usize>)> {
    let scores: Vec<f32> = evaluation.t2i.get(at)?.to_vec1()?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let right = |index: usize| ids.get(index) == Some(&concept);
    let ranked = order.iter().take_while(|index| scores[**index] > NOT_RANKED);
    let rank = ranked.clone().position(|index| right(*index)).map(|place| place + 1);
    let hits = ranked.take(PICTURES).map(|&index| {
        let sample = test.sample(index)?;
        let name = sample.captions.first().unwrap_or(&sample.key);
        let picture = thumbnail(&*test.picture(index)?, name)?;
        Ok(Hit { picture, score: f64::from(scores[index]), right: right(index) })
    });
    Ok((hits.collect::<Result<_>>()?, rank))
}
