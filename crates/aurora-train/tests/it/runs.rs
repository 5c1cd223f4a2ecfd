//! Whole runs beside image retrieval, on synthetic data: clips, and questions with answers.

use std::path::Path;
use std::sync::Arc;

use crate::common::{drawings, inputs, model, questions, retrieval_backbone};
use aurora_data::{ByteSource, Dataset, Decode, Media, OnError, Question, Sample, SkipLog};
use aurora_layers::load_adapter;
use aurora_train::config::{Config, RunConfig, Task};
use aurora_train::metrics::TaskMetrics;
use aurora_train::pipeline::{EvalResult, Inputs, TuningResult, tune};
use aurora_train::progress::Silent;
use aurora_train::run::RunFolder;
use candle_core::Device;

/// Clips of one to three frames, each of a drawing and its neighbors.
fn clips(count: usize) -> Vec<Sample> {
    let drawings = drawings(count + 2);
    let content = |sample: &Sample| sample.media.contents()[0].clone();
    (0..count)
        .map(|first| {
            let frames = drawings[first..=first + first % 3].iter().map(content).collect();
            Sample { media: Media::Frames(frames), ..drawings[first].clone() }
        })
        .collect()
}

fn broken(mut sample: Sample) -> Sample {
    let nothing = ByteSource::Memory(Arc::from(*b"no image"));
    let first = sample.media.contents()[0].clone();
    sample.key = "broken".into();
    sample.media = Media::Frames(vec![first, nothing]);
    sample
}

fn config(settings: &[&str]) -> Config {
    let base = [
        "data.batch_size=6",
        "data.augment=none",
        "schedule.steps=4",
        "schedule.eval_every=2",
        "schedule.warmup_steps=0",
        "adapter.rank=4",
    ];
    let settings: Vec<&str> = base.iter().chain(settings).copied().collect();
    Config::resolve(None, &settings).unwrap()
}

fn run(folder: &Path, inputs: &Inputs, settings: &[&str]) -> TuningResult {
    tune(&config(settings), inputs, &RunFolder::create(folder).unwrap(), &mut Silent).unwrap()
}

fn file(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn clips_are_found_whatever_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let adapters = ["1", "3"].map(|threads| {
        let path = folder.path().join(threads);
        let inputs = inputs(Task::Retrieval, clips(9), SkipLog::default());
        let threads = format!("data.num_workers={threads}");
        let settings = ["data.num_frames=2", "adapter.frame_aware=true", threads.as_str()];
        let outcome = run(&path, &inputs, &settings);
        let EvalResult::Retrieval(found) = &outcome.tuned else { panic!("{outcome:?}") };
        assert_eq!(found.t2i.dims(), [9, 9]);
        assert!(outcome.params.adapter_config.frame_aware && outcome.summary.skipped == 0);
        assert!(!path.join("skipped.jsonl").exists() && !path.join("answers.json").exists());
        std::fs::read(path.join("adapter/adapter_model.safetensors")).unwrap()
    });
    assert_eq!(adapters[0], adapters[1]);
}

#[test]
fn heads_alone_learn_of_clips_as_of_images() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(Task::Retrieval, clips(9), SkipLog::default());
    let outcome =
        run(&folder.path().join("run"), &inputs, &["adapter.kind=heads", "data.num_frames=3"]);
    assert!(matches!(outcome.summary.tuned, TaskMetrics::Recall(_)));
}

#[test]
fn broken_clips_are_left_out_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples = clips(9);
    samples[4] = broken(samples[4].clone());
    let path = folder.path().join("stop");
    let stops = inputs(Task::Retrieval, samples.clone(), SkipLog::default());
    let error = tune(&config(&[]), &stops, &RunFolder::create(&path).unwrap(), &mut Silent);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("broken") && message.contains("frame 1"), "{message}");

    let path = folder.path().join("skip");
    let skips = inputs(Task::Retrieval, samples.clone(), SkipLog::new(OnError::Skip, 1));
    let outcome = run(&path, &skips, &[]);
    let EvalResult::Retrieval(found) = &outcome.tuned else { panic!("{outcome:?}") };
    assert_eq!(found.images, [0, 1, 2, 3, 5, 6, 7, 8]);
    assert!(found.texts.iter().all(|(index, _)| *index != 4));
    assert_eq!(found.t2i.dims(), [found.texts.len(), 8]);
    assert_eq!(outcome.summary.skipped, 1);
    let listed = file(&path, "skipped.jsonl");
    assert!(listed.lines().count() == 1 && listed.contains("broken"), "{listed}");
    assert!(file(&path, "summary.json").contains("\"skipped\": 1"));

    samples[5] = Sample { key: "other".into(), ..broken(samples[5].clone()) };
    let path = folder.path().join("limit");
    let limited = inputs(Task::Retrieval, samples, SkipLog::new(OnError::Skip, 1));
    let error = tune(&config(&[]), &limited, &RunFolder::create(&path).unwrap(), &mut Silent);
    assert!(error.unwrap_err().to_string().contains("no more than 1"));
    assert_eq!(file(&path, "skipped.jsonl").lines().count(), 1);
}

#[test]
fn questions_are_learned_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(Task::Vqa, questions(12), SkipLog::default());
    let settings = [
        "task=vqa",
        "adapter.kind=full",
        "optimizer.lr.backbone=0.01",
        "schedule.steps=80",
        "schedule.eval_every=40",
        "data.batch_size=12",
    ];
    let path = folder.path().join("run");
    let outcome = run(&path, &inputs, &settings);
    let TaskMetrics::Accuracy(after) = &outcome.summary.tuned else { panic!("{outcome:?}") };
    assert_eq!(after.questions, 12);
    // A question has one answer here: reading it is all that has to be learned.
    assert!((after.accuracy, after.reachable) == (100.0, 100.0), "{after:?}");
    assert_eq!(after.by_type["number"].questions, 2);
    assert_eq!(after.by_type["count"].questions, 2);
    assert_eq!(after.by_type["yes/no"].questions, 8);
    let answers: serde_json::Value = serde_json::from_str(&file(&path, "answers.json")).unwrap();
    assert_eq!(answers[2], serde_json::json!({"question_id": 102, "answer": "2"}));
    let losses: Vec<f64> = file(&path, "metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["event"] == "train")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert!(losses.len() == 80 && losses[79] < 0.1 * losses[0], "{losses:?}");
    assert!(file(&path, "metrics.jsonl").contains("\"accuracy\""));
    assert!(file(&path, "adapter/README.md").contains("accuracy, test"));
    // The decoder is initialized in the same way again, so the adapter fits it.
    let begun = model(Task::Vqa, "from_encoder").unwrap().backbone;
    let loaded = load_adapter(&path.join("adapter"), &begun, &Device::Cpu).unwrap();
    assert_eq!(loaded.tensors.len(), outcome.params.tensors.len());
    let message = load_adapter(&path.join("adapter"), &retrieval_backbone(), &Device::Cpu);
    assert!(message.is_err());
}

#[test]
fn questions_about_clips_and_a_list_of_answers() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("answers.json");
    std::fs::write(&list, "[\"yes\", \"no\", \"Yes\"]").unwrap();
    let asked = questions(9).into_iter().zip(clips(9));
    let asked = asked.map(|(sample, clip)| Sample { media: clip.media, ..sample }).collect();
    let inputs = inputs(Task::Vqa, asked, SkipLog::default());
    let answers = format!("data.answer_list={}", list.display());
    let path = folder.path().join("run");
    let outcome = run(&path, &inputs, &["task=vqa", "data.num_frames=2", answers.as_str()]);
    let TaskMetrics::Accuracy(after) = &outcome.summary.tuned else { panic!("{outcome:?}") };
    // Three of nine ask for a number, which is not among the candidates.
    assert!((after.reachable - 200.0 / 3.0).abs() < 1e-9, "{after:?}");
    let EvalResult::Vqa(found) = &outcome.tuned else { panic!("{outcome:?}") };
    assert!(found.predictions.iter().all(|given| ["yes", "no"].contains(&given.answer.as_str())));
}

/// Unlabeled test questions, as VQAv2's own: they are answered and not scored.
#[test]
fn nobody_knows_the_right_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = inputs(Task::Vqa, questions(9), SkipLog::default());
    let unanswered = questions(3).into_iter().map(|sample| {
        let question = sample.question.map(|asked| Question { answers: Vec::new(), ..asked });
        Sample { question, ..sample }
    });
    inputs.splits.test = Dataset::new(unanswered.collect(), Decode::AtLoad).unwrap();
    let path = folder.path().join("run");
    let outcome = run(&path, &inputs, &["task=vqa"]);
    let TaskMetrics::Accuracy(after) = &outcome.summary.tuned else { panic!("{outcome:?}") };
    assert!(after.questions == 0 && after.known().is_none());
    let card = file(&path, "adapter/README.md");
    assert!(card.contains("not known") && !card.contains(" %"), "{card}");
    let answers: serde_json::Value = serde_json::from_str(&file(&path, "answers.json")).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_answered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, inputs: &Inputs, settings: &[&str]| -> String {
        let run = RunFolder::create(folder.path().join(name)).unwrap();
        tune(&config(settings), inputs, &run, &mut Silent).unwrap_err().to_string()
    };
    let has = |message: &str, parts: &[&str]| {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    has(&model(Task::Vqa, "checkpoint").unwrap_err().to_string(), &["retrieval", "model.decoder"]);
    let asked = inputs(Task::Vqa, questions(9), SkipLog::default());
    has(&refused("form", &asked, &[]), &["question answering", "`task`", "retrieval"]);
    has(&refused("heads", &asked, &["task=vqa", "adapter.kind=heads"]), &["heads", "nothing"]);
    let pairs = inputs(Task::Vqa, drawings(9), SkipLog::default());
    has(&refused("pairs", &pairs, &["task=vqa"]), &["list of answers", "data.train"]);
    let mut unknown = inputs(Task::Vqa, questions(9), SkipLog::default());
    unknown.splits.validation = Dataset::new(drawings(3), Decode::AtLoad).unwrap();
    has(&refused("unknown", &unknown, &["task=vqa"]), &["data.validation", "answer"]);
    let set = ["task=vqa", "evaluation.k_test=0"];
    has(
        &Config::resolve(None, &set).unwrap_err().to_string(),
        &["evaluation.k_test", "at least 1"],
    );
    has(&Config::resolve(None, &["task=captions"]).unwrap_err().to_string(), &["task", "vqa"]);
    let message = Config::resolve(None, &["data.frame_sampling=2"]).unwrap_err().to_string();
    has(&message, &["data.frame_sampling", "2fps"]);
}
