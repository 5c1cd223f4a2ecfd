//! Resume: an interrupted run ends as an uninterrupted one, to the bit.

use std::path::Path;
use std::sync::Arc;

use crate::common::cut::{Cut, STEPS, config, cut_off, fresh, go, left, on_threads, uncut};
use crate::common::{drawings, inputs, metrics};
use aurora_data::{ByteSource, Dataset, Decode, Media, OnError, SkipLog};
use aurora_train::config::{Config, DataSection, Task};
use aurora_train::pipeline::{TrainingCheckpoint, resume};
use aurora_train::progress::Silent;
use aurora_train::run::RunFolder;
use proptest::prelude::*;

/// Interrupts a run at these steps, one after the other, each time on another number of threads, and resumes it.
fn agrees(config: &Config, whole: &Path, cuts: &[(u64, bool)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for (index, &(after, in_evaluation)) in cuts.iter().enumerate() {
        let cut = Cut { after, in_evaluation };
        let done = on_threads(1 + index % 2, || go(&path, config, &fresh(config.task), Some(cut)));
        assert!(done.is_none() && !path.join("summary.json").exists(), "cut off at {after}");
    }
    let config =
        Config { data: DataSection { num_workers: 2, ..config.data.clone() }, ..config.clone() };
    let outcome = on_threads(2, || go(&path, &config, &fresh(config.task), None)).unwrap();
    assert_eq!(left(&path), left(whole), "cut off at {cuts:?}");
    assert_eq!(outcome.history.len(), metrics(whole).len());
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
fn vqa_resumes_twice() {
    let (folder, config) = uncut(Task::Vqa, &[]);
    let path = folder.path().join("whole");
    for cuts in [&[(2, false), (3, false)][..], &[(4, false), (6, true)], &[(8, true)]] {
        agrees(&config, &path, cuts);
    }
}

/// Adapter kinds whose state is more than shared factors: fixed projections, singular vectors, tensors of the backbone;
/// and the reference variant, whose momentum model shares factors.
#[test]
fn every_kind_of_adapter_goes_on() {
    let kinds: [&[&str]; 6] = [
        &["adapter.kind=vera"],
        &["adapter.kind=lora", "adapter.init=pissa"],
        &["adapter.kind=full", "gradient_checkpointing=block"],
        &["adapter.kind=tucker", "adapter.variant=reference"],
        &["adapter.kind=heads", "retrieval.queue_size=0", "retrieval.learn_temperature=false"],
        &["adapter.kind=cp", "adapter.context_slots=7", "retrieval.queue_size=3"],
    ];
    for settings in kinds {
        let (folder, config) = uncut(Task::Retrieval, settings);
        agrees(&config, &folder.path().join("whole"), &[(4, false), (6, false)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Steps after the last checkpoint are repeated.
    #[test]
    fn steps_since_the_last_state_are_repeated(
        every in 1u64..5, first in 0u64..4, second in 0u64..4, vqa: bool,
    ) {
        let task = if vqa { Task::Vqa } else { Task::Retrieval };
        let every_text = format!("checkpoint.every={every}");
        let (folder, config) = uncut(task, &[&every_text, "checkpoint.keep_last=1"]);
        let first = (every + 1 + first).min(STEPS);
        let second = (first + second).min(STEPS);
        agrees(&config, &folder.path().join("whole"), &[(first, false), (second, false)]);
    }
}

fn undecodable(place: &str) -> aurora_data::Error {
    aurora_data::Error::Decode { shard: place.into(), key: "7".into(), reason: "cut".into() }
}

/// Samples skipped before the interruption are counted and listed, although they are not met again.
#[test]
fn skipped_samples_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = ByteSource::Memory(Arc::from(*b"no image"));
    // Eight batches of four are less than an epoch.
    let broken = |index: usize| {
        let mut inputs = inputs(Task::Retrieval, drawings(5), SkipLog::new(OnError::Skip, 1));
        let mut samples = drawings(40);
        samples[index].key = "broken".into();
        samples[index].media = Media::Image(nothing.clone());
        inputs.splits.train = Dataset::new(samples, Decode::OnUse).unwrap();
        inputs
    };
    let config = config(Task::Retrieval, &["data.augment=none", "data.num_workers=1"]);
    let is_met = |index: &usize| {
        let (path, inputs) = (folder.path().join(index.to_string()), broken(*index));
        go(&path, &config, &inputs, Some(Cut { after: 1, in_evaluation: false }));
        !inputs.splits.skips.is_empty()
    };
    let met = (0..40).find(is_met).unwrap();
    let whole = folder.path().join("whole");
    go(&whole, &config, &broken(met), None).unwrap();
    let path = folder.path().join("run");
    let cut = Some(Cut { after: 7, in_evaluation: false });
    assert!(go(&path, &config, &broken(met), cut).is_none());
    let inputs = broken(met);
    assert_eq!(go(&path, &config, &inputs, None).unwrap().summary.skipped, 1);
    assert_eq!(left(&path), left(&whole));
    let listed = std::fs::read_to_string(path.join("skipped.jsonl")).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("broken"), "{listed}");
}

/// Moved data: a skipped sample counts once, under its new path.
#[test]
fn what_was_left_out_moves_with_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let began = config(Task::Retrieval, &["data.train=old/train", "data.augment=none"]);
    let lost = |place: &str| {
        let inputs = inputs(Task::Retrieval, drawings(11), SkipLog::new(OnError::Skip, 1));
        inputs.splits.skips.handle(format!("{place}: 7"), undecodable(place)).unwrap();
        inputs
    };
    let cut = Some(Cut { after: 5, in_evaluation: false });
    assert!(go(&path, &began, &lost("old/train"), cut).is_none());
    let now = config(Task::Retrieval, &["data.train=new", "data.augment=none"]);
    let outcome = go(&path, &now, &lost("new"), None).unwrap();
    assert_eq!(outcome.summary.skipped, 1);
    let listed = std::fs::read_to_string(path.join("skipped.jsonl")).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("new: 7"), "{listed}");
}

/// A refused resume leaves the run folder as it was.
#[test]
fn a_refusal_leaves_the_folder_alone() {
    let (_folder, path) = cut_off();
    let inputs = inputs(Task::Retrieval, drawings(10), SkipLog::new(OnError::Skip, 1));
    inputs.splits.skips.handle("elsewhere: 7", undecodable("elsewhere")).unwrap();
    let run = RunFolder::open(&path).unwrap();
    let saved = TrainingCheckpoint::newest(&run).unwrap();
    let config = config(Task::Retrieval, &[]);
    let error = resume(&config, &inputs, &run, saved, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("samples in the dataset was 11 and is 10"), "{error}");
    assert!(!path.join("skipped.jsonl").exists());
}

/// Gradient checkpointing stays as chosen, whatever memory is left on resume; wall time is that of all parts of the
/// run.
#[test]
fn a_run_keeps_to_what_its_first_step_chose() {
    let (_folder, path) = cut_off();
    let read = |step: &str| -> serde_json::Value {
        let file = path.join("checkpoints").join(step).join("state.json");
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let mut state = read("step-4");
    assert_eq!(state["gradient_checkpointing"], "none");
    state["gradient_checkpointing"] = "block".into();
    state["seconds"] = 1e6.into();
    std::fs::write(path.join("checkpoints/step-4/state.json"), state.to_string()).unwrap();
    let config = config(Task::Retrieval, &[]);
    let cut = Some(Cut { after: 6, in_evaluation: false });
    assert!(go(&path, &config, &fresh(Task::Retrieval), cut).is_none());
    let state = read("step-5");
    assert_eq!(state["gradient_checkpointing"], "block");
    assert!(state["seconds"].as_f64().unwrap() > 1e6);
    let outcome = go(&path, &config, &fresh(Task::Retrieval), None).unwrap();
    assert!(outcome.summary.seconds > 1e6);
}
