//! Pretraining run of a tiny model with synthetic teachers: losses fall, a seed repeats a run, and teachers that do not
//! fit are refused by name.

use std::path::Path;

use aurora_data::{Split, embedded};
use aurora_kernels::random::Stream;
use aurora_layers::tensors::{self, Tensors};
use aurora_train::config::{PretrainConfig, RunConfig};
use aurora_train::pipeline::{Pretrained, pretrain};
use aurora_train::progress::Silent;
use aurora_train::run::RunFolder;
use candle_core::{D, DType, Device, Tensor};

const WIDTH: usize = 24; // of the synthetic text teacher

fn unit(purpose: &str, shape: &[usize]) -> Tensor {
    let random = Stream::new(5, purpose, 0, 0).normal_tensor(shape, 1.0).unwrap();
    let norm = random.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
    random.broadcast_div(&norm).unwrap().to_dtype(DType::F16).unwrap()
}

/// Synthetic teachers of twelve views, three of them of images without a caption.
fn teachers(folder: &Path, change: impl FnOnce(&mut Tensors)) {
    let pack = embedded::openclipart().unwrap();
    let train = pack.iter().zip(0i64..).filter(|(sample, _)| sample.split == Some(Split::Train));
    let mut rows: Vec<i64> = train.map(|(_, row)| row).take(9).collect();
    rows.extend([-1; 3]);
    let mut stream = Stream::new(5, "pixels", 0, 0);
    let pixels: Vec<u8> = (0..12 * 32 * 32 * 3).map(|_| stream.below(256) as u8).collect();
    let pixels = Tensor::from_vec(pixels, (12, 32, 32, 3), &Device::Cpu).unwrap();
    let mut file = Tensors::from([
        ("views".to_owned(), pixels),
        ("view_rows".to_owned(), Tensor::from_vec(rows, 12, &Device::Cpu).unwrap()),
    ]);
    let real: [(&str, &[usize]); 9] = [
        ("image", &[12, 20]),
        ("patch_distill", &[12, 4, 10]),
        ("image_joint", &[12, 16]),
        ("joint_mean", &[WIDTH]),
        ("joint_directions", &[16, WIDTH]),
        ("text", &[pack.len(), WIDTH]),
        ("text_all", &[pack.len(), WIDTH]),
        ("strings", &[3, WIDTH]),
        ("word_embeddings", &[3600, 32]),
    ];
    for (name, shape) in real {
        file.insert(name.to_owned(), unit(name, shape));
    }
    change(&mut file);
    std::fs::create_dir_all(folder).unwrap();
    tensors::write(&file, &folder.join("teachers.safetensors")).unwrap();
    std::fs::write(folder.join("strings.tsv"), "word\tred\nword\tblue\nlist\tred, blue\n").unwrap();
}

fn run(teachers: &Path, out: &Path) -> aurora_train::Result<Pretrained> {
    let teachers = format!("pretrain.teachers={:?}", teachers.display().to_string());
    let settings = [
        &teachers,
        "model.image_size=32",
        "model.vision_layers=1",
        "model.vision_hidden_size=32",
        "model.vision_heads=2",
        "model.text_layers=1",
        "model.text_hidden_size=32",
        "model.text_heads=2",
        "model.max_positions=12",
        "model.projection_dim=16",
        "data.batch_size=6",
        "data.test=noto",
        "pretrain.image_only=2",
        "pretrain.text_only=2",
        "pretrain.itm_from_step=3",
        "pretrain.itm_pairs=4",
        "schedule.steps=8",
        "schedule.warmup_steps=1",
        "schedule.eval_every=8",
        "evaluation.k_test=0",
    ];
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let config = PretrainConfig::resolve(None, &settings)?;
    pretrain(&config, &Device::Cpu, &RunFolder::create(out)?, &mut Silent)
}

#[test]
fn losses_fall_and_a_seed_repeats_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    teachers(&at("teachers"), |_| ());
    let first = run(&at("teachers"), &at("first")).unwrap();
    run(&at("teachers"), &at("second")).unwrap();
    let weights = |name: &str| std::fs::read(at(name).join("backbone/model.safetensors")).unwrap();
    assert_eq!(weights("first"), weights("second"));

    let history: Vec<serde_json::Value> =
        first.history.iter().map(|record| serde_json::to_value(record).unwrap()).collect();
    let loss = |step: u64, part: &str| {
        let is = |r: &&serde_json::Value| r["event"] == "train" && r["step"] == step;
        history.iter().find(is).and_then(|r| r[part].as_f64()).unwrap()
    };
    for part in ["image_cosine", "patch_distill", "joint", "text_cosine"] {
        assert!(loss(8, part) < loss(1, part), "{part}: {} to {}", loss(1, part), loss(8, part));
    }
    assert!(loss(8, "itm") > 0.0);
}

#[test]
fn teachers_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut Tensors)| {
        teachers(&folder.path().join(name), change);
        run(&folder.path().join(name), &folder.path().join(format!("{name} run")))
            .unwrap_err()
            .to_string()
    };
    let message = refused("gone", &|file| drop(file.remove("patch_distill")));
    assert!(
        message.contains("patch_distill") && message.contains("cargo xtask teachers"),
        "{message}"
    );
    let message =
        refused("short", &|file| drop(file.insert("image".into(), unit("image", &[11, 20]))));
    assert!(message.contains("rows of image") && message.contains("11"), "{message}");
    let message =
        refused("narrow", &|file| drop(file.insert("image_joint".into(), unit("j", &[12, 15]))));
    assert!(message.contains("length of the joint space"), "{message}");
    let message = refused("held out", &|file| {
        let pack = embedded::openclipart().unwrap();
        let held = pack.iter().position(|s| s.split == Some(Split::Validation)).unwrap();
        let rows = Tensor::full(held as i64, 12, &Device::Cpu).unwrap();
        file.insert("view_rows".into(), rows);
    });
    assert!(message.contains("held out"), "{message}");
}
