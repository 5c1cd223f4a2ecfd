//! `aurora train --resume`: a killed process, and runs that cannot be resumed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{backbone, images, refused, tiny_run, works};

const LONG: &str = "--set schedule.steps=120 --set schedule.eval_every=30 --set checkpoint.every=7";

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Starts the program and kills it as soon as the run in `run/` has a checkpoint of this or a later step.
fn killed(folder: &Path, args: &str, step: u64) {
    let args = args.split_whitespace().map(|arg| arg.replace("{}", folder.to_str().unwrap()));
    let mut program = Command::new(env!("CARGO_BIN_EXE_aurora"));
    program.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.spawn().unwrap();
    let begun = Instant::now();
    while newest(folder) < Some(step) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before step {step}");
        assert!(begun.elapsed() < Duration::from_secs(120), "step {step} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.join("run/summary.json").exists(), "it came to its end before it was killed");
}

fn newest(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder.join("run/checkpoints")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max()
}

#[test]
fn a_run_that_is_killed_twice_ends_as_one_that_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    images(&path.join("data"));
    let settings = format!("{} {LONG}", tiny_run("{}/data"));
    let whole = works(path, &format!("train --out {{}}/whole {settings}"));
    killed(path, &format!("train --out {{}}/run {settings}"), 14);
    killed(path, "train --resume {}/run --set data.num_workers=1", 49);

    // Moved in the meantime.
    std::fs::rename(path.join("backbone"), path.join("model")).unwrap();
    let message = refused(path, "train --resume {}/run");
    assert!(message.contains("backbone"), "{message}");
    std::fs::rename(path.join("model"), path.join("backbone")).unwrap();
    let config = text(&path.join("run/config.toml"));
    let resumed =
        works(path, "train --resume {}/run --set data.num_workers=2 --set checkpoint.every=50");
    assert_eq!(text(&path.join("run/config.toml")), config);

    let file = |run: &str, name: &str| std::fs::read(path.join(run).join(name)).unwrap();
    for name in ["config.toml", "adapter/adapter_model.safetensors", "adapter/README.md"] {
        assert_eq!(file("run", name), file("whole", name), "{name}");
    }
    let records = |run: &str| -> Vec<serde_json::Value> {
        let without_time = |line: &str| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record.as_object_mut().unwrap().remove("seconds");
            record
        };
        text(&path.join(run).join("metrics.jsonl")).lines().map(without_time).collect()
    };
    assert_eq!(records("run"), records("whole"));
    let summary = |run: &str| {
        let mut summary: serde_json::Value =
            serde_json::from_str(&text(&path.join(run).join("summary.json"))).unwrap();
        summary.as_object_mut().unwrap().remove("seconds");
        summary
    };
    assert_eq!(summary("run"), summary("whole"));
    // Recall table, before and after.
    let table = |said: &str| said.lines().take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(table(&resumed), table(&whole));
    let page = text(&path.join("run/report.html"));
    assert!(page.contains("Mean recall") && page.contains("red apple"));
    assert!(!path.join("run/checkpoints").exists());

    let message = refused(path, "train --resume {}/run");
    assert!(message.contains("has finished") && message.contains("summary.json"), "{message}");
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    images(&path.join("data"));
    let has = |args: &str, parts: &[&str]| {
        let message = refused(path, &format!("train --resume {{}}/run {args}"));
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    };
    has("", &["run holds no run", "config.toml"]);
    let settings = format!("{} {LONG}", tiny_run("{}/data"));
    killed(path, &format!("train --out {{}}/run {settings}"), 7);
    let metrics = text(&path.join("run/metrics.jsonl"));
    has("--set adapter.rank=8", &["`adapter.rank` was 4", "is 8 now", "data.num_workers", "step-"]);
    has("--set adapter.rnak=8", &["adapter.rnak", "adapter.rank"]);
    has("--config my.toml", &["--config", "--resume"]);
    has("--out other", &["--out", "--resume"]);
    let state = path.join("run/checkpoints").join(format!("step-{}", newest(path).unwrap()));
    let tensors = std::fs::read(state.join("state.safetensors")).unwrap();
    std::fs::write(state.join("state.safetensors"), &tensors[..tensors.len() / 2]).unwrap();
    has("", &["state.safetensors", "not a whole", "without that folder"]);
    std::fs::write(state.join("state.safetensors"), tensors).unwrap();
    backbone(&path.join("backbone"), 2);
    has("", &["model.backbone", "fingerprint"]);
    backbone(&path.join("backbone"), 1);
    std::fs::write(path.join("data/p3.txt"), "another caption").unwrap();
    has("", &["data.validation", "contents of the dataset"]);
    std::fs::remove_dir_all(path.join("run/checkpoints")).unwrap();
    has("", &["no checkpoint", "checkpoint.every", "run/config.toml"]);
    assert_eq!(text(&path.join("run/metrics.jsonl")), metrics, "a refused run is left as it was");
}
