//! Tuning runs of a tiny random backbone on a few embedded images: every kind runs, and a seed repeats a run.

use std::path::Path;
use std::sync::Arc;

use crate::common::metrics;
use aurora_data::{Dataset, Decode, Split, embedded};
use aurora_layers::{AdapterKind, Backbone, load_adapter};
use aurora_train::config::{Config, RunConfig};
use aurora_train::pipeline::{DataSplits, Inputs, TuningResult, tune};
use aurora_train::progress::Silent;
use aurora_train::run::RunFolder;
use candle_core::Device;

fn backbone() -> Backbone {
    crate::common::backbone(3600, 32, 12)
}

fn inputs() -> Inputs {
    let samples = embedded::noto().unwrap();
    let few = |split: Split, count: usize| {
        let chosen = samples.iter().filter(|sample| sample.split == Some(split)).take(count);
        Dataset::new(chosen.cloned().collect(), Decode::AtLoad).unwrap()
    };
    Inputs {
        backbone: backbone(),
        backbone_name: "tiny".into(),
        tokens: Arc::new(embedded::vocabulary().unwrap()),
        splits: DataSplits {
            train: few(Split::Train, 24),
            validation: few(Split::Validation, 6),
            test: few(Split::Test, 8),
            skips: Arc::default(),
        },
    }
}

fn run(folder: &Path, settings: &[&str]) -> TuningResult {
    let base = [
        "data.batch_size=6",
        "schedule.steps=4",
        "schedule.eval_every=2",
        "schedule.warmup_steps=1",
        "adapter.rank=4",
    ];
    let settings: Vec<String> = base.iter().chain(settings).map(ToString::to_string).collect();
    let config = Config::resolve(None, &settings).unwrap();
    tune(&config, &inputs(), &RunFolder::create(folder).unwrap(), &mut Silent).unwrap()
}

#[test]
fn a_seed_repeats_a_run_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let [first, again, other] = ["first", "again", "other"].map(|name| folder.path().join(name));
    run(&first, &["seed=5", "data.num_workers=1", "adapter.rank_dropout=0.25"]);
    run(&again, &["seed=5", "data.num_workers=3", "adapter.rank_dropout=0.25"]);
    run(&other, &["seed=6", "data.num_workers=1", "adapter.rank_dropout=0.25"]);
    assert_eq!(metrics(&first), metrics(&again));
    assert_ne!(metrics(&first), metrics(&other));
    let adapter =
        |run: &Path| std::fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter(&first), adapter(&again));
    assert_ne!(adapter(&first), adapter(&other));
}

/// Gradient checkpointing does not change the first step, before rounding has moved anything.
#[test]
fn recomputed_blocks_learn_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [kept, recomputed] = ["none", "block"].map(|checkpoint| {
        let path = folder.path().join(checkpoint);
        run(&path, &[&format!("gradient_checkpointing={checkpoint}")]);
        metrics(&path).into_iter().find(|line| line["event"] == "train").unwrap()
    });
    let number = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    assert_eq!(number(&kept, "loss"), number(&recomputed, "loss"));
    let norms = [&kept, &recomputed].map(|line| number(line, "gradient_norm"));
    assert!(norms[0] > 0.0 && (norms[0] / norms[1] - 1.0).abs() < 1e-6, "{norms:?}");
}

/// bf16 against f32: thirty steps, always on the same 24 pairs, so that a loss says what was learned. Differences of
/// parameters grow with the steps, so the bounds are for this number of them. They are about twice the worst of five
/// seeds, largest and mean gap: 1.2e-1 and 3.9e-2 where all of the backbone is trained, at a rate so high that any
/// rounding grows (the loss falls from 3.9 to between 3.1 and 3.3), 3.9e-3 and 1.4e-3 with shared factors (from 3.87 to
/// 3.82 or less, which is chance).
#[test]
fn bf16_learns_as_f32_does() {
    let folder = tempfile::tempdir().unwrap();
    let same = [
        "schedule.steps=30",
        "schedule.eval_every=30",
        "retrieval.queue_size=0",
        "retrieval.alpha=0",
        "data.batch_size=24",
        "data.augment=none",
        "data.caption_keywords=all",
    ];
    let full = ["optimizer.lr.backbone=0.003", "optimizer.lr.heads=0.003"];
    let cases: [(&str, &[&str], f64, f64); 2] =
        [("full", &full, 2.4e-1, 8e-2), ("cp", &[], 8e-3, 2.8e-3)];
    for (kind, rates, largest_allowed, mean_allowed) in cases {
        let [exact, rounded] = ["f32", "bf16"].map(|precision| -> Vec<f64> {
            let path = folder.path().join(format!("{kind}-{precision}"));
            let own = [format!("adapter.kind={kind}"), format!("precision={precision}")];
            run(&path, &[&same[..], rates, &own.each_ref().map(String::as_str)].concat());
            let lines = metrics(&path).into_iter().filter(|line| line["event"] == "train");
            lines.map(|line| line["loss"].as_f64().unwrap()).collect()
        });
        assert_eq!((exact.len(), rounded.len()), (30, 30));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let gaps: Vec<f64> = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).collect();
        let largest = gaps.iter().copied().fold(0.0, f64::max);
        assert!(largest > 0.0 && largest <= largest_allowed, "{kind}: largest gap {largest:e}");
        assert!(mean(&gaps) <= mean_allowed, "{kind}: mean gap {:e}", mean(&gaps));
        for losses in [&exact, &rounded] {
            let (first, last) = (mean(&losses[..6]), mean(&losses[24..]));
            assert!(last < first - 0.05, "{kind}: from {first} to {last}");
        }
    }
}

#[test]
fn every_kind_trains_and_its_adapter_loads() {
    let folder = tempfile::tempdir().unwrap();
    let reference = (AdapterKind::Tucker, "reference");
    let kinds = AdapterKind::ALL.map(|kind| (kind, "paper"));
    for (kind, variant) in kinds.into_iter().chain([reference]) {
        let path = folder.path().join(format!("{}-{variant}", kind.name()));
        let settings =
            [format!("adapter.kind={}", kind.name()), format!("adapter.variant={variant}")];
        let outcome = run(&path, &settings.each_ref().map(String::as_str));
        let loaded = load_adapter(&path.join("adapter"), &backbone(), &Device::Cpu).unwrap();
        assert_eq!(loaded.adapter_config.kind, kind);
        assert_eq!(loaded.tensors.len(), outcome.params.tensors.len());
        let moved = metrics(&path)
            .iter()
            .filter_map(|line| line["mean_relative_delta"].as_f64())
            .next_back()
            .unwrap();
        let still =
            [AdapterKind::Heads, AdapterKind::Norms, AdapterKind::Biases, AdapterKind::Bottleneck];
        assert_eq!(moved > 0.0, !still.contains(&kind), "{kind:?}: |dW| / |W| is {moved}");
    }
}

#[test]
fn targets_and_further_modules_train_what_they_name() {
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("run");
    let settings = [
        "adapter.kind=dora",
        "adapter.targets.target_modules=query",
        "adapter.targets.exclude_modules=crossattention.self.query",
        "adapter.modules_to_save=visual_encoder.norm",
        "adapter.rank_dropout=0.25",
    ];
    let outcome = run(&path, &settings);
    let names: Vec<&str> = outcome.params.tensors.keys().map(String::as_str).collect();
    let query = "text_encoder.encoder.layer.0.attention.self.query";
    assert_eq!(
        names,
        [
            "itm_head.bias",
            "itm_head.weight",
            &format!("{query}.lora_A.weight"),
            &format!("{query}.lora_B.weight"),
            &format!("{query}.lora_magnitude_vector"),
            "text_proj.bias",
            "text_proj.weight",
            "vision_proj.bias",
            "vision_proj.weight",
            "visual_encoder.norm.bias",
            "visual_encoder.norm.weight",
        ]
    );
    let before = backbone();
    for name in ["visual_encoder.norm.bias", "visual_encoder.norm.weight"] {
        let moved = (&outcome.params.tensors[name] - &before.tensors[name]).unwrap();
        assert!(
            moved.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0,
            "{name}"
        );
    }
    let loaded = load_adapter(&path.join("adapter"), &before, &Device::Cpu).unwrap();
    assert_eq!(loaded.adapter_config, outcome.params.adapter_config);
}
