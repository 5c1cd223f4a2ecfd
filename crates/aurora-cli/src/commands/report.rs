//! Report page of a tuning run.

use anyhow::{Context, Result};
use aurora_data::Dataset;
use aurora_layers::AdapterKind;
use aurora_train::accuracy::AccuracyReport;
use aurora_train::config::{Config, RunConfig, Task};
use aurora_train::pipeline::{
    EvalResult, Inputs, Prediction, RetrievalEval, TuningResult, VqaEval, concepts,
};
use aurora_train::recall::{Recall, RetrievalReport};
use aurora_train::rerank::NOT_RANKED;
use aurora_train::run::RunFolder;

use crate::output;
use crate::page::{self, AccuracyByType, AnswerRow, CaptionRow, Fact, Gain, Hit, ReportPage};
use crate::plots::MetricsLog;
use crate::random_baseline::random_baseline;
use crate::thumbnail::thumbnail;

/// Number of captions, or questions, on the page.
const QUERIES_SHOWN: usize = 12;

/// Number of images per query, before and after tuning.
const HITS_SHOWN: usize = 5;

/// Writes `report.html` into the run's folder.
pub fn write(
    run: &RunFolder,
    title: &str,
    config: &Config,
    inputs: &Inputs,
    outcome: &TuningResult,
) -> Result<()> {
    let test = &inputs.splits.test;
    let mut page = ReportPage {
        title: title.to_owned(),
        tuned: tuned(config, inputs),
        test: tested(config, test.len()),
        facts: facts(config, outcome),
        charts: MetricsLog::read(&run.join("metrics.jsonl"))?.charts(),
        config: config.to_toml()?,
        ..ReportPage::default()
    };
    match (&outcome.baseline, &outcome.tuned) {
        (EvalResult::Retrieval(baseline), EvalResult::Retrieval(tuned)) => {
            page.gain = Gain::Recall {
                baseline: recall_at_k(&baseline.report),
                tuned: recall_at_k(&tuned.report),
                random_baseline: Some(random_baseline_of(test, tuned)?),
            };
            page.captions = captions(test, baseline, tuned)?;
        }
        (EvalResult::Vqa(baseline), EvalResult::Vqa(tuned)) => {
            let kinds = || baseline.report.by_type.keys().chain(tuned.report.by_type.keys());
            page.gain = Gain::Accuracy {
                baseline: accuracy_by_type(&baseline.report, kinds()),
                tuned: accuracy_by_type(&tuned.report, kinds()),
            };
            page.answers = answers(test, baseline, tuned)?;
        }
        _ => {}
    }
    run.write("report.html", page.render())?;
    Ok(())
}

/// Random baseline: expected recall of a random ranking of the evaluated images and texts.
pub fn random_baseline_of(test: &Dataset, found: &RetrievalEval) -> Result<page::RecallAtK> {
    let (images, texts) = concepts(test, &found.images, &found.texts)?;
    Ok(random_baseline(&images, &texts))
}

/// Accuracy for the page, with a column for each of `kinds`.
fn accuracy_by_type<'a>(
    report: &AccuracyReport,
    kinds: impl Iterator<Item = &'a String>,
) -> AccuracyByType {
    let kinds: std::collections::BTreeSet<&String> = kinds.collect();
    let of_kind = |kind: &String| report.by_type.get(kind).map(|found| found.accuracy);
    let [all, reachable] = report.known().map_or([None; 2], |known| known.map(Some));
    AccuracyByType {
        all,
        by_type: kinds.into_iter().map(|kind| (kind.clone(), of_kind(kind))).collect(),
        reachable,
    }
}

fn recall_at_k(report: &RetrievalReport) -> page::RecallAtK {
    let values = |recall: &Recall| [recall.r1, recall.r5, recall.r10];
    page::RecallAtK { image_to_text: values(&report.i2t), text_to_image: values(&report.t2i) }
}

/// Converts recall to the type that tables are printed from.
pub fn retrieval_report(recall: &page::RecallAtK) -> RetrievalReport {
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
    let examples = match config.task {
        Task::Retrieval => "captioned images",
        Task::Vqa => "questions about images",
    };
    format!(
        "{what} {verb} trained for the backbone {}{frozen}, on {} {examples} ({}) in {} \
         steps of {}.",
        inputs.backbone_name,
        output::count(inputs.splits.train.len() as u64),
        config.data.train.as_slice().join(", "),
        output::count(config.schedule.steps),
        config.data.batch_size
    )
}

fn tested(config: &Config, images: usize) -> String {
    let names = config.data.test.as_slice().join(", ");
    let count = output::count(images as u64);
    // Equal for the embedded dataset's own split alone.
    let own_split = config.data.train == config.data.test;
    if names == "noto" && own_split {
        return format!("Tested on {count} emoji of things that no training image shows.");
    }
    match config.task {
        Task::Retrieval => format!("Tested on {count} images ({names})."),
        Task::Vqa => format!("Tested on {count} questions ({names})."),
    }
}

fn facts(config: &Config, outcome: &TuningResult) -> Vec<Fact> {
    let summary = &outcome.summary;
    let fact =
        |label: &str, value: String, note: String| Fact { label: label.to_owned(), value, note };
    let share = output::share(summary.trainable_parameters, summary.backbone_parameters);
    let whole = output::count(summary.backbone_parameters);
    let mut facts = vec![
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
    ];
    match (&outcome.baseline, &outcome.tuned) {
        (EvalResult::Retrieval(baseline), EvalResult::Retrieval(tuned)) => facts.extend([
            fact(
                "Similarity alone",
                format!("{:.1} %", tuned.by_similarity.mean()),
                format!(
                    "mean recall without the matching head; {:.1} % before",
                    baseline.by_similarity.mean()
                ),
            ),
            fact(
                "Re-ranked",
                match config.evaluation.k_test {
                    0 => "nothing".to_owned(),
                    k => format!("best {k}"),
                },
                format!(
                    "candidates of each query, by matching logit + {} × similarity",
                    tuned.similarity_weight
                ),
            ),
        ]),
        _ => facts.push(fact(
            "Compared in full",
            format!("best {}", config.evaluation.k_test),
            "answers to each question, of those to choose from, by their first word".to_owned(),
        )),
    }
    if summary.skipped > 0 {
        facts.push(fact(
            "Left out",
            output::count(summary.skipped),
            "broken images or rows; skipped.jsonl lists them".to_owned(),
        ));
    }
    facts
}

/// Indices of the queries shown: a dozen, evenly spaced, not selected by result.
fn evenly_spaced(count: usize) -> impl Iterator<Item = usize> {
    let shown = QUERIES_SHOWN.min(count);
    (0..shown).map(move |row| row * count / shown)
}

/// Sample captions with the images they retrieve.
fn captions(
    test: &Dataset,
    baseline: &RetrievalEval,
    tuned: &RetrievalEval,
) -> Result<Vec<CaptionRow>> {
    evenly_spaced(tuned.texts.len())
        .map(|at| {
            let (image, caption) = tuned.texts.get(at).context("a caption of the test set")?;
            let concept = test.concept(*image)?;
            let side = |evaluation: &RetrievalEval| {
                // A broken image may have been skipped in one of the two evaluations.
                let place = evaluation.texts.iter().position(|text| text == &tuned.texts[at]);
                side(test, concept, evaluation, place.context("a caption of the test set")?)
            };
            let ((baseline, rank_baseline), (tuned, rank_tuned)) = (side(baseline)?, side(tuned)?);
            Ok(CaptionRow { caption: caption.clone(), baseline, tuned, rank_baseline, rank_tuned })
        })
        .collect()
}

/// Sample questions with their answers.
fn answers(test: &Dataset, baseline: &VqaEval, tuned: &VqaEval) -> Result<Vec<AnswerRow>> {
    let of = |given: &Prediction| (given.answer.clone(), given.score);
    evenly_spaced(tuned.predictions.len())
        .map(|at| {
            let given = tuned.predictions.get(at).context("an answer to a test question")?;
            let same = baseline.predictions.iter().find(|other| other.index == given.index);
            let sample = test.sample(given.index)?;
            let question = sample.question.as_ref().context("a question of the test set")?;
            let right = question.answers.iter().map(|(answer, weight)| match *weight {
                1.0 => answer.clone(),
                weight => format!("{answer} ({:.0} %)", 100.0 * weight),
            });
            Ok(AnswerRow {
                image: thumbnail(&*test.image(given.index)?, &sample.key)?,
                question: question.text.clone(),
                right: right.collect::<Vec<_>>().join(", "),
                baseline: same.map(of).unwrap_or_default(),
                tuned: of(given),
            })
        })
        .collect()
}

/// Top images for text `at`, and the rank of the first right one if it was ranked.
fn side(
    test: &Dataset,
    concept: i64,
    evaluation: &RetrievalEval,
    at: usize,
) -> Result<(Vec<Hit>, Option<usize>)> {
    let scores: Vec<f32> = evaluation.t2i.get(at)?.to_vec1()?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let ids = evaluation.images.iter().map(|&index| Ok(test.concept(index)?));
    let ids: Vec<i64> = ids.collect::<Result<_>>()?;
    let right = |index: usize| ids.get(index) == Some(&concept);
    let ranked = order.iter().take_while(|index| scores[**index] > NOT_RANKED);
    let rank = ranked.clone().position(|index| right(*index)).map(|place| place + 1);
    let hits = ranked.take(HITS_SHOWN).map(|&index| {
        let place = *evaluation.images.get(index).context("an image of the test set")?;
        let sample = test.sample(place)?;
        let name = sample.captions.first().unwrap_or(&sample.key);
        let image = thumbnail(&*test.image(place)?, name)?;
        Ok(Hit { image, score: f64::from(scores[index]), right: right(index) })
    });
    Ok((hits.collect::<Result<_>>()?, rank))
}
