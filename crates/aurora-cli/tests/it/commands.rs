//! Whole commands on a tiny backbone: their output and their files.

use std::path::Path;

use crate::fixture::{adapter, backbone, images, tiny_run, works};
use crate::snapshots::Transcript;

fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    backbone(&folder.path().join("backbone"), 1);
    images(&folder.path().join("data"));
    works(folder.path(), &format!("train --out {{}}/run {}", tiny_run("{}/data")));
    folder
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_run_leaves_everything_that_is_promised() {
    let folder = trained();
    let run = folder.path().join("run");
    let summary: serde_json::Value =
        serde_json::from_str(&text(&run.join("summary.json"))).unwrap();
    for key in ["baseline", "tuned"] {
        for way in ["i2t", "t2i"] {
            for k in ["r1", "r5", "r10"] {
                assert!(summary[key][way][k].is_number(), "{key} {way} {k}");
            }
        }
    }
    assert_eq!(summary["test_pairs"], 8);
    assert_eq!(summary["seed"], 1);
    let bytes = std::fs::metadata(run.join("adapter/adapter_model.safetensors")).unwrap().len();
    assert_eq!(summary["adapter_bytes"], bytes);
    let page = text(&run.join("report.html"));
    for part in ["Mean recall", "red apple", "Losses", "Recall on validation", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(text(&run.join("config.toml")).contains("rank = 4"));
    assert!(text(&run.join("metrics.jsonl")).lines().count() >= 4);
    let left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn the_resolved_configuration_repeats_the_run_to_the_bit() {
    let folder = trained();
    works(folder.path(), "train --config {}/run/config.toml --out {}/again");
    let file = |run: &str, name: &str| std::fs::read(folder.path().join(run).join(name)).unwrap();
    for name in ["config.toml", "adapter/adapter_model.safetensors"] {
        assert_eq!(file("run", name), file("again", name), "{name}");
    }
    let lines = |run: &str| -> Vec<serde_json::Value> {
        let without_time = |line: &str| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record.as_object_mut().unwrap().remove("seconds");
            record
        };
        text(&folder.path().join(run).join("metrics.jsonl")).lines().map(without_time).collect()
    };
    assert_eq!(lines("run"), lines("again"));
}

#[test]
fn an_evaluation_agrees_with_the_run() {
    let folder = trained();
    let settings = tiny_run("{}/data");
    let printed = works(
        folder.path(),
        &format!("eval --adapter {{}}/run/adapter --out {{}}/measured {settings}"),
    );
    assert!(printed.contains("R@10"), "{printed}");
    let summary: serde_json::Value =
        serde_json::from_str(&text(&folder.path().join("run/summary.json"))).unwrap();
    let measured: serde_json::Value =
        serde_json::from_str(&text(&folder.path().join("measured/evaluation.json"))).unwrap();
    assert_eq!(measured["recall"], summary["tuned"]);
}

#[test]
fn a_search_writes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = backbone(&folder.path().join("backbone"), 1);
    adapter(&folder.path().join("adapter"), &tiny);
    images(&folder.path().join("data"));
    let search = "search cat --images {}/data --set model.backbone={}/backbone --top-k 3";
    let printed = works(folder.path(), &format!("{search} --out {{}}/bare"));
    assert_eq!(
        printed.lines().filter(|line| line.starts_with('p') && line.contains('.')).count(),
        3
    );
    works(folder.path(), &format!("{search} --out {{}}/found --adapter {{}}/adapter"));
    let page = text(&folder.path().join("found/search.html"));
    assert!(page.contains("The best 3 of 8 images"));
    assert_eq!(page.matches("<img ").count(), 3);
    // A second search replaces the page.
    works(folder.path(), &format!("{search} --out {{}}/found"));
}

#[test]
fn inspect_knows_backbones_adapters_and_runs() {
    let folder = trained();
    let mut said = Transcript::new(folder.path());
    for args in ["{}/backbone --tensors", "{}/run/adapter", "nano"] {
        said.works(&format!("inspect {args}"));
    }
    said.measures("inspect {}/run");
    said.matches("inspect_backbone_adapter_run");
}
