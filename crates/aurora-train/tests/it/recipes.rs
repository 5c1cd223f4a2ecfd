//! Every recipe is a valid configuration with the hyper-parameters of the reference code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aurora_data::Format;
use aurora_layers::{AdapterKind, Variant};
use aurora_train::config::{Config, RunConfig, Task};
use aurora_train::schedule::Decay;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

/// Name, format, learning rate, epochs, image size, batch size, `k_test`.
const REFERENCE: [(&str, Format, f64, u64, usize, usize, usize); 6] = [
    ("coco", Format::Coco, 1e-5, 6, 384, 16, 256),
    ("didemo", Format::Didemo, 1e-4, 5, 224, 8, 128),
    ("flickr30k", Format::Flickr30k, 1e-4, 4, 384, 16, 128),
    ("msrvtt", Format::Msrvtt, 1e-4, 5, 224, 8, 128),
    ("msrvtt_qa", Format::MsrvttQa, 2e-5, 5, 224, 12, 128),
    ("vqa", Format::Vqa, 2e-5, 5, 384, 16, 128),
];

#[test]
fn every_recipe_resolves() {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            Config::resolve(Some(&path), &[] as &[&str]).unwrap_or_else(|e| panic!("{e}"));
            names.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    let listed: BTreeSet<String> = REFERENCE.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(names, listed);
}

#[test]
fn recipes_hold_the_released_hyper_parameters() {
    for (name, format, rate, epochs, size, batch, k_test) in REFERENCE {
        let path = folder().join(format!("{name}.toml"));
        let config = Config::resolve(Some(&path), &[] as &[&str]).unwrap();
        assert_eq!(config.data.format, format, "{name}");
        let rates = &config.optimizer.lr;
        assert_eq!([rates.factors, rates.gates, rates.heads], [Some(rate); 3], "{name}");
        assert_eq!((config.model.image_size, config.data.batch_size), (size, batch), "{name}");
        assert_eq!(config.evaluation.k_test, k_test, "{name}");
        let schedule = &config.schedule;
        assert_eq!(
            (schedule.decay, schedule.cosine_epochs, schedule.warmup_steps),
            (Decay::CosineEpoch, epochs, 0)
        );
        assert_eq!(schedule.steps, epochs * schedule.eval_every, "{name}");
        assert_eq!(config.retrieval.alpha_warmup_steps, schedule.eval_every, "{name}");
        assert_eq!(
            (config.retrieval.queue_size, config.retrieval.momentum),
            (57_600, 0.995),
            "{name}"
        );
        assert_eq!(config.optimizer.weight_decay, 0.05, "{name}");
        let adapter = &config.adapter;
        assert_eq!((adapter.kind, adapter.variant), (AdapterKind::Tucker, Variant::Reference));
    }
}

#[test]
fn recipes_name_their_task_and_the_frames_of_clips() {
    for (name, ..) in REFERENCE {
        let path = folder().join(format!("{name}.toml"));
        let config = Config::resolve(Some(&path), &[] as &[&str]).unwrap();
        let asks = ["vqa", "msrvtt_qa"].contains(&name);
        assert_eq!(config.task, if asks { Task::Vqa } else { Task::Retrieval }, "{name}");
        let weighs = ["msrvtt", "didemo"].contains(&name);
        assert_eq!((config.adapter.frame_aware, config.data.num_frames), (weighs, 8), "{name}");
    }
}

#[test]
fn no_recipe_chooses_or_measures_on_what_it_trains_on() {
    for (name, ..) in REFERENCE {
        let path = folder().join(format!("{name}.toml"));
        let data = Config::resolve(Some(&path), &[] as &[&str]).unwrap().data;
        for held in [&data.validation, &data.test] {
            for file in held.as_slice() {
                assert!(!data.train.as_slice().contains(file), "{name}: {file}");
            }
        }
    }
}
