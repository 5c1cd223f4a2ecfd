//! Refused resumes: the message names the file or key and the way out, and the run folder is left as it was.

use std::path::Path;

use crate::common::cut::{Cut, config, cut_off, fresh, go, left, uncut};
use crate::common::drawings;
use aurora_data::{Dataset, Decode, Sample};
use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{Backbone, Tensors, tensors};
use aurora_train::config::{Config, Task};
use aurora_train::pipeline::{Inputs, TrainingCheckpoint, TuningResult, resume};
use aurora_train::progress::Silent;
use aurora_train::run::RunFolder;
use candle_core::{DType, Device};

fn attempt(path: &Path, config: &Config, inputs: &Inputs) -> aurora_train::Result<TuningResult> {
    let run = RunFolder::open(path)?;
    let saved = TrainingCheckpoint::newest(&run)?;
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
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &flipped).unwrap();
    refused(&path, &config, &inputs, &["state.safetensors", "other values than were saved"]);
    std::fs::write(&file, &whole).unwrap();
    let stored = read_tensors(&file, DType::F32, &Device::Cpu).unwrap();
    let change = |change: &dyn Fn(&mut Tensors)| {
        let mut stored = stored.clone();
        change(&mut stored);
        tensors::write(&stored, &file).unwrap();
    };
    let names = [
        "best.aurora_lambda",
        "online.aurora_lambda",
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
    change(&|stored| drop(stored.insert("online.stray".into(), stored["temperature"].clone())));
    refused(&path, &config, &inputs, &["state.safetensors", "unexpected: online.stray"]);
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
        (whole.replace("\"version\": 2", "\"version\": 3"), ["version 3", "from 2"]),
        (whole.replace("\"version\": 2,", ""), ["no version", "state.json"]),
        (whole.replace("\"metrics_lines\"", "\"rows\""), ["state.json", "rows"]),
        (whole.replace("\"step\": 4", "\"step\": 5"), ["state.json", "steps in the data"]),
        (
            whole.replace("\"device\": \"cpu\"", "\"device\": \"gpu\""),
            ["computes on a gpu", "`device`"],
        ),
        (
            whole.replace("\"answers\": \"", "\"answers\": \"0"),
            ["`data.answer_list`", "other answers"],
        ),
        (
            whole.replace("\"tokenizer\": \"", "\"tokenizer\": \"0"),
            ["`model.tokenizer`", "other pieces"],
        ),
        (
            whole.replace("\"metrics_lines\": 7", "\"metrics_lines\": 99"),
            ["metrics.jsonl", "99 lines"],
        ),
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

    // The ways out that the messages name: an older checkpoint, and a new baseline evaluation.
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::remove_dir_all(&baseline).unwrap();
    attempt(&path, &config, &inputs).unwrap();
    let (uncut, _) = uncut(Task::Retrieval, &[]);
    assert_eq!(left(&path), left(&uncut.path().join("whole")));
}

#[test]
fn what_the_run_began_with_is_asked_for() {
    let (_folder, path) = cut_off();
    let inputs = fresh(Task::Retrieval);
    for (setting, parts) in [
        ("adapter.rank=8", ["`adapter.rank` was 4", "8 now"]),
        ("schedule.steps=80", ["`schedule.steps` was 8", "80 now"]),
        ("optimizer.lr.heads=0.5", ["`optimizer.lr.heads`", "0.5 now"]),
        ("seed=2", ["`seed` was 1", "data.num_workers"]),
    ] {
        refused(&path, &config(Task::Retrieval, &[setting]), &inputs, &parts);
    }
    let config = config(
        Task::Retrieval,
        &["data.num_workers=3", "checkpoint.every=2", "checkpoint.keep_last=5"],
    );
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
        of("`data.train`", &|inputs, set| inputs.splits.train = set);
        of("`data.validation`", &|inputs, set| inputs.splits.validation = set);
        of("`data.test`", &|inputs, set| inputs.splits.test = set);
    }
    attempt(&path, &config, &inputs).unwrap();
}

#[test]
fn folders_without_anything_to_go_on_from_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let never = config(Task::Retrieval, &["checkpoint.every=0"]);
    let inputs = fresh(Task::Retrieval);
    refused(&folder.path().join("none"), &never, &inputs, &["none holds no run", "aurora train"]);
    let path = folder.path().join("never");
    assert!(go(&path, &never, &inputs, Some(Cut { after: 5, in_evaluation: false })).is_none());
    refused(&path, &never, &inputs, &["no checkpoint", "checkpoint.every", "never/config.toml"]);
    // A process killed while it saves its first checkpoint leaves this.
    std::fs::create_dir_all(path.join("checkpoints/.step-5.part")).unwrap();
    refused(&path, &never, &inputs, &["no checkpoint"]);
    let path = folder.path().join("done");
    go(&path, &config(Task::Retrieval, &[]), &inputs, None).unwrap();
    refused(&path, &never, &inputs, &["done has finished", "summary.json"]);
}
