//! A run that is cut off and resumed ends as one that never was, to the bit; what it cannot go on from is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use aurora_data::{Dataset, Decode, OnError, Sample, Skips};
use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{Backbone, Tensors, tensors};
use aurora_train::config::{Config, RunConfig, Task};
use aurora_train::pipeline::{Inputs, Outcome, Saved, resume, tune};
use aurora_train::progress::{EvaluationReport, Progress, Silent, StepReport};
use aurora_train::run::RunFolder;
use candle_core::{DType, Device};
use common::{drawings, inputs, metrics, questions};
use proptest::prelude::*;

const STEPS: u64 = 8;

fn config(task: Task, settings: &[&str]) -> Config {
    let base = [
        "data.batch=4",
        "schedule.evaluate_every=3",
        "schedule.warmup=2",
        "adapter.rank=4",
        "adapter.dropout=0.25",
        "retrieval.queue=10",
        "retrieval.train_temperature=true",
        "retrieval.alpha_ramp_steps=5",
        "retrieval.itm_pairs=3",
        "saving.every=1",
        "saving.keep=2",
    ];
    let own = [format!("schedule.steps={STEPS}"), format!("task={}", task.name())];
    let own = own.iter().map(String::as_str);
    let settings: Vec<&str> =
        base.iter().copied().chain(own).chain(settings.iter().copied()).collect();
    Config::resolve(None, &settings).unwrap()
}

/// Eleven samples, so that batches of four cut epochs in the middle of an evaluation's interval.
fn fresh(task: Task) -> Inputs {
    let samples = match task {
        Task::Retrieval => drawings(11),
        Task::Answering => questions(11),
    };
    inputs(task, samples, Skips::default())
}

/// Ends the process, as it were, once so many steps are done: between a step and what follows it.
struct Cut {
    after: u64,
    /// In the evaluation that follows the step.
    in_evaluation: bool,
}

impl Progress for Cut {
    fn on_step(&mut self, report: &StepReport<'_>) {
        if report.step == self.after && !self.in_evaluation {
            resume_unwind(Box::new("cut"));
        }
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        if report.step >= self.after {
            resume_unwind(Box::new("cut"));
        }
    }
}

/// With so many threads for everything.
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Begins a run, or goes on with it, until it is cut off or at its end.
fn go(folder: &Path, config: &Config, inputs: &Inputs, cut: Option<Cut>) -> Option<Outcome> {
    let mut silent = Silent;
    let mut cut = cut;
    let progress: &mut dyn Progress = match &mut cut {
        Some(cut) => cut,
        None => &mut silent,
    };
    let done = catch_unwind(AssertUnwindSafe(|| match folder.join("config.toml").exists() {
        false => tune(config, inputs, &RunFolder::create(folder).unwrap(), progress),
        true => {
            let run = RunFolder::open(folder).unwrap();
            let saved = Saved::newest(&run).unwrap();
            resume(config, inputs, &run, saved, progress)
        }
    }));
    done.ok().map(Result::unwrap)
}

/// What a run leaves, but for times.
fn left(folder: &Path) -> (Vec<serde_json::Value>, Vec<u8>, String, serde_json::Value) {
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut summary: serde_json::Value = serde_json::from_str(&file("summary.json")).unwrap();
    assert!(summary.as_object_mut().unwrap().remove("seconds").unwrap().as_f64().unwrap() > 0.0);
    let adapter = std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(!folder.join("checkpoints").exists(), "a run at its end needs none");
    (metrics(folder), adapter, file("adapter/README.md"), summary)
}

/// Cuts a run off at these steps, one after the other, each time on another number of threads, and goes on.
fn agrees(config: &Config, whole: &Path, cuts: &[(u64, bool)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for (index, &(after, in_evaluation)) in cuts.iter().enumerate() {
        let cut = Cut { after, in_evaluation };
        let done = on_threads(1 + index % 2, || go(&path, config, &fresh(config.task), Some(cut)));
        assert!(done.is_none() && !path.join("summary.json").exists(), "cut off at {after}");
    }
    let config = Config {
        data: aurora_train::config::DataSection { threads: 2, ..config.data.clone() },
        ..config.clone()
    };
    let outcome = on_threads(2, || go(&path, &config, &fresh(config.task), None)).unwrap();
    assert_eq!(left(&path), left(whole), "cut off at {cuts:?}");
    assert_eq!(outcome.history.len(), metrics(whole).len());
}

fn uncut(task: Task, settings: &[&str]) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    // It saves nothing, and is the same all the same.
    let never: Vec<&str> =
        settings.iter().copied().chain(["saving.every=0", "data.threads=1"]).collect();
    let path = folder.path().join("whole");
    on_threads(1, || go(&path, &config(task, &never), &fresh(task), None)).unwrap();
    (folder, config(task, settings))
}

#[test]
fn retrieval_goes_on_from_every_step() {
    let (folder, config) = uncut(Task::Retrieval, &[]);
    let path = folder.path().join("whole");
    let lines = metrics(&path);
    let queued = lines.iter().filter(|line| line["event"] == "train").count();
    assert_eq!(queued as u64, STEPS);
    for after in 2..=STEPS {
        agrees(&config, &path, &[(after, false)]);
    }
    agrees(&config, &path, &[(3, true), (5, false), (8, true)]);
}

#[test]
fn answering_goes_on_twice() {
    let (folder, config) = uncut(Task::Answering, &[]);
    let path = folder.path().join("whole");
    for cuts in [&[(2, false), (3, false)][..], &[(4, false), (6, true)], &[(8, true)]] {
        agrees(&config, &path, cuts);
    }
}

/// Kinds that keep something else than shared factors: fixed projections, singular vectors, tensors of the backbone;
/// the released arithmetic, whose momentum model shares factors.
#[test]
fn every_kind_of_adapter_goes_on() {
    let kinds: [&[&str]; 6] = [
        &["adapter.kind=vera"],
        &["adapter.kind=lora", "adapter.start=pissa"],
        &["adapter.kind=full", "checkpoint=block"],
        &["adapter.kind=tucker", "adapter.flavour=released"],
        &["adapter.kind=heads", "retrieval.queue=0", "retrieval.train_temperature=false"],
        &["adapter.kind=cp", "adapter.context_slots=7", "retrieval.queue=3"],
    ];
    for settings in kinds {
        let (folder, config) = uncut(Task::Retrieval, settings);
        agrees(&config, &folder.path().join("whole"), &[(4, false), (6, false)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// States are saved now and then: steps after the last of them are done once more.
    #[test]
    fn steps_since_the_last_state_are_repeated(
        every in 1u64..5, first in 0u64..4, second in 0u64..4, answering: bool,
    ) {
        let task = if answering { Task::Answering } else { Task::Retrieval };
        let every_text = format!("saving.every={every}");
        let (folder, config) = uncut(task, &[&every_text, "saving.keep=1"]);
        let first = (every + 1 + first).min(STEPS);
        let second = (first + second).min(STEPS);
        agrees(&config, &folder.path().join("whole"), &[(first, false), (second, false)]);
    }
}

/// What was left out before the cut counts and is listed, even if it is never met again.
#[test]
fn skipped_samples_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let nothing = aurora_data::Content::Memory(std::sync::Arc::from(*b"no picture"));
    let fresh = || {
        let good = drawings(9);
        let bad = Sample {
            key: "broken".into(),
            visual: aurora_data::Visual::Picture(nothing.clone()),
            ..good[4].clone()
        };
        let mut inputs = inputs(Task::Retrieval, good.clone(), Skips::new(OnError::Skip, 1));
        let samples = good.into_iter().chain([bad]).collect();
        inputs.pictures.train = Dataset::new(samples, Decode::OnUse).unwrap();
        inputs
    };
    let config = config(Task::Retrieval, &["data.augment=none"]);
    let whole = folder.path().join("whole");
    let expected = go(&whole, &config, &fresh(), None).unwrap().summary.skipped;
    assert_eq!(expected, 1);
    assert!(go(&path, &config, &fresh(), Some(Cut { after: 8, in_evaluation: false })).is_none());
    let inputs = fresh();
    assert!(inputs.pictures.skips.is_empty());
    assert_eq!(go(&path, &config, &inputs, None).unwrap().summary.skipped, 1);
    assert_eq!(left(&path), left(&whole));
    let listed = std::fs::read_to_string(path.join("skipped.jsonl")).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("broken"), "{listed}");
}

/// A run that was cut off after step 5, with the states after steps 3 and 4.
fn cut_off() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = config(Task::Retrieval, &[]);
    let cut = Cut { after: 5, in_evaluation: false };
    assert!(go(&path, &config, &fresh(Task::Retrieval), Some(cut)).is_none());
    (folder, path)
}

fn attempt(path: &Path, config: &Config, inputs: &Inputs) -> aurora_train::Result<Outcome> {
    let run = RunFolder::open(path)?;
    let saved = Saved::newest(&run)?;
    resume(config, inputs, &run, saved, &mut Silent)
}

fn refused(path: &Path, config: &Config, inputs: &Inputs, parts: &[&str]) {
    let before = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap_or_default();
    let message = attempt(path, config, inputs).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    let after = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap_or_default();
    assert_eq!(before, after, "a refused run is left as it was");
}

#[test]
fn states_that_are_damaged_are_named() {
    let (_folder, path) = cut_off();
    let config = config(Task::Retrieval, &[]);
    let inputs = fresh(Task::Retrieval);
    let state = path.join("checkpoints/step-4");
    assert!(path.join("checkpoints/step-3").exists() && !path.join("checkpoints/step-2").exists());
    let file = state.join("state.safetensors");
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        refused(&path, &config, &inputs, &["step-4", "state.safetensors", "without that folder"]);
    }
    std::fs::write(&file, &whole).unwrap();
    let stored = read_tensors(&file, DType::F32, &Device::Cpu).unwrap();
    let change = |change: &dyn Fn(&mut Tensors)| {
        let mut stored = stored.clone();
        change(&mut stored);
        tensors::write(&stored, &file).unwrap();
    };
    let names = [
        "best.aurora_lambda",
        "live.aurora_lambda",
        "momentum.aurora_lambda",
        "optimizer.first.aurora_lambda",
        "optimizer.step",
        "queue.image_queue",
        "queue.ptr_queue",
        "temperature",
    ];
    for name in names {
        change(&|stored| drop(stored.remove(name).unwrap()));
        refused(&path, &config, &inputs, &["state.safetensors", &format!("missing: {name}")]);
    }
    change(&|stored| drop(stored.insert("live.stray".into(), stored["temperature"].clone())));
    refused(&path, &config, &inputs, &["state.safetensors", "unexpected: live.stray"]);
    change(&|stored| {
        let pointer = stored["queue.ptr_queue"].ones_like().unwrap();
        stored.insert("queue.ptr_queue".into(), (pointer * 10.0).unwrap());
    });
    refused(&path, &config, &inputs, &["step-4", "ptr_queue"]);
    change(&|stored| {
        let ids = stored["queue.idx_queue"].to_dtype(DType::F32).unwrap();
        stored.insert("queue.idx_queue".into(), ids);
    });
    refused(&path, &config, &inputs, &["step-4", "idx_queue", "f32", "i64"]);

    std::fs::write(&file, &whole).unwrap();
    let file = state.join("state.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    for (text, parts) in [
        (whole[..whole.len() / 2].to_owned(), ["state.json is cut", "step-4"]),
        (whole.replace("\"version\": 1", "\"version\": 2"), ["version 2", "from 1"]),
        (whole.replace("\"version\": 1,", ""), ["no version", "state.json"]),
        (whole.replace("\"lines\"", "\"rows\""), ["state.json", "rows"]),
        (whole.replace("\"step\": 4", "\"step\": 5"), ["state.json", "steps in the data"]),
        (whole.replace("\"lines\": 7", "\"lines\": 99"), ["metrics.jsonl", "99 lines"]),
    ] {
        std::fs::write(&file, &text).unwrap();
        assert!(text != whole, "{parts:?}");
        refused(&path, &config, &inputs, &parts);
    }
    std::fs::write(&file, &whole).unwrap();

    let baseline = path.join("checkpoints/baseline");
    let scores = std::fs::read(baseline.join("scores.safetensors")).unwrap();
    std::fs::write(baseline.join("scores.safetensors"), &scores[..scores.len() - 4]).unwrap();
    refused(&path, &config, &inputs, &["baseline", "scores.safetensors"]);

    // The ways out that the messages name: an older state, and the backbone measured anew.
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::remove_dir_all(&baseline).unwrap();
    attempt(&path, &config, &inputs).unwrap();
    let (uncut, _) = uncut(Task::Retrieval, &[]);
    assert_eq!(left(&path), left(&uncut.path().join("whole")));
}

/// Whatever memory is left when it goes on.
#[test]
fn a_run_keeps_to_what_its_first_step_chose() {
    let (_folder, path) = cut_off();
    let file = path.join("checkpoints/step-4/state.json");
    let saved = std::fs::read_to_string(&file).unwrap();
    let block = saved.replace("\"recompute\": \"none\"", "\"recompute\": \"block\"");
    assert_ne!(saved, block);
    std::fs::write(&file, block).unwrap();
    let config = config(Task::Retrieval, &[]);
    let cut = Some(Cut { after: 6, in_evaluation: false });
    assert!(go(&path, &config, &fresh(Task::Retrieval), cut).is_none());
    let saved = std::fs::read_to_string(path.join("checkpoints/step-5/state.json")).unwrap();
    assert!(saved.contains("\"recompute\": \"block\""), "{saved}");
}

#[test]
fn what_the_run_began_with_is_asked_for() {
    let (_folder, path) = cut_off();
    let inputs = fresh(Task::Retrieval);
    for (setting, parts) in [
        ("adapter.rank=8", ["`adapter.rank` was 4", "8 now"]),
        ("schedule.steps=80", ["`schedule.steps` was 8", "80 now"]),
        ("learning_rates.cp.heads=0.5", ["`learning_rates.cp.heads`", "0.5 now"]),
        ("seed=2", ["`seed` was 1", "data.threads"]),
    ] {
        refused(&path, &config(Task::Retrieval, &[setting]), &inputs, &parts);
    }
    let config = config(Task::Retrieval, &["data.threads=3", "saving.every=2", "saving.keep=5"]);
    let mut other = fresh(Task::Retrieval);
    other.backbone = Backbone::random(other.backbone.config, 2, &Device::Cpu).unwrap();
    refused(&path, &config, &other, &["step-4", "model.backbone", "tiny", "fingerprint"]);
    let set = |samples: Vec<Sample>| Dataset::new(samples, Decode::AtLoad).unwrap();
    let mut recaptioned = drawings(11);
    recaptioned[6].captions = vec!["something else".into()];
    for (what, samples) in [("samples in the dataset", drawings(10)), ("contents", recaptioned)] {
        let of = |key: &str, change: &dyn Fn(&mut Inputs, Dataset)| {
            let mut inputs = fresh(Task::Retrieval);
            change(&mut inputs, set(samples.clone()));
            refused(&path, &config, &inputs, &["step-4", key, what]);
        };
        of("`data.train`", &|inputs, set| inputs.pictures.train = set);
        of("`data.validation`", &|inputs, set| inputs.pictures.validation = set);
        of("`data.test`", &|inputs, set| inputs.pictures.test = set);
    }
    attempt(&path, &config, &inputs).unwrap();
}

#[test]
fn folders_without_anything_to_go_on_from_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let never = config(Task::Retrieval, &["saving.every=0"]);
    let inputs = fresh(Task::Retrieval);
    refused(&folder.path().join("none"), &never, &inputs, &["none holds no run", "aurora train"]);
    let path = folder.path().join("never");
    assert!(go(&path, &never, &inputs, Some(Cut { after: 5, in_evaluation: false })).is_none());
    refused(&path, &never, &inputs, &["no checkpoint", "saving.every", "never/config.toml"]);
    // As a process leaves it that is killed while it saves its first state.
    std::fs::create_dir_all(path.join("checkpoints/.step-5.part")).unwrap();
    refused(&path, &never, &inputs, &["no checkpoint"]);
    let path = folder.path().join("done");
    go(&path, &config(Task::Retrieval, &[]), &inputs, None).unwrap();
    refused(&path, &never, &inputs, &["done has finished", "summary.json"]);
}
