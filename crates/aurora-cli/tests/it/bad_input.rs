//! Bad input: exit code 2 and a message that names the file, the key or the tensor, before any training.

use std::path::Path;

use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{AdapterFolder, Tensors, tensors};
use candle_core::{DType, Device};

use crate::fixture::{adapter, backbone, images, png, refused, tiny_run};

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

/// Runs `aurora train` on unusable data; returns the message.
fn train_on(folder: &Path, data: &str) -> String {
    backbone(&folder.join("backbone"), 1);
    let message = refused(folder, &format!("train --out {{}}/run {}", tiny_run(data)));
    assert!(!folder.join("run/adapter").exists(), "nothing was trained");
    message
}

#[test]
fn unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), "quickstart --out {}/run --set adapter.rnak=3");
    has(&message, &["adapter.rnak", "adapter.rank", "variant"]);
    std::fs::write(folder.path().join("my.toml"), "[adaptor]\nrank = 3\n").unwrap();
    let message = refused(folder.path(), "train --config {}/my.toml --out {}/run");
    has(&message, &["my.toml", "adaptor", "did you mean `adapter`"]);
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn value_of_the_wrong_type() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), "quickstart --out {}/run --set adapter.rank=many");
    has(&message, &["adapter.rank", "whole number", "many"]);
    let message = refused(folder.path(), "pretrain --out {}/run --set model.patch_size=true");
    has(&message, &["model.patch_size", "whole number", "true"]);
}

#[test]
fn device_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), "quickstart --out {}/run --device gpu");
    has(&message, &["--device", "gpu", "auto, cpu, cuda or cuda:N"]);
    let message = refused(folder.path(), "quickstart --out {}/run --set device=cuda:x");
    has(&message, &["device", "cuda:x", "auto, cpu, cuda or cuda:N"]);
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn gpu_that_cannot_be_had() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["eval", "quickstart --out {}/run", "search fruit --out {}/found"] {
        // A device number that no machine has, for one with GPUs.
        let message = refused(folder.path(), &format!("{command} --device cuda:99"));
        has(&message, &["cuda"]);
        if cfg!(not(feature = "cuda")) {
            has(&message, &["cuda:99", "built without CUDA", "--features cuda"]);
        }
    }
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn configuration_that_is_not_there_or_no_toml() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), "train --config {}/none.toml --out {}/run");
    has(&message, &["none.toml"]);
    std::fs::write(folder.path().join("bad.toml"), "rank = = 3").unwrap();
    has(&refused(folder.path(), "eval --config {}/bad.toml"), &["bad.toml", "TOML"]);
}

#[test]
fn missing_shard() {
    let folder = tempfile::tempdir().unwrap();
    has(&train_on(folder.path(), "{}/none.tar"), &["none.tar"]);
}

#[test]
fn truncated_shard() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = tar::Builder::new(Vec::new());
    for index in 0..6 {
        for (name, data) in [("png", png(index)), ("txt", b"a cat".to_vec())] {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_cksum();
            shard.append_data(&mut header, format!("{index}.{name}"), data.as_slice()).unwrap();
        }
    }
    let whole = shard.into_inner().unwrap();
    std::fs::write(folder.path().join("cut.tar"), &whole[..whole.len() / 2 + 7]).unwrap();
    has(&train_on(folder.path(), "{}/cut.tar"), &["cut.tar", "truncated"]);
}

#[test]
fn image_that_does_not_decode() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::write(data.join("p3.png"), &png(3)[..40]).unwrap();
    has(&train_on(folder.path(), "{}/data"), &["p3", "does not decode"]);
    let message = refused(
        folder.path(),
        "search cat --images {}/data --set model.backbone={}/backbone --out {}/found",
    );
    has(&message, &["p3", "does not decode"]);
    assert!(!folder.path().join("found/search.html").exists());
}

#[test]
fn empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    has(&train_on(folder.path(), "{}/data"), &["data", "no image"]);
    let message = refused(
        folder.path(),
        "search cat --images {}/data --set model.backbone={}/backbone --out {}/found",
    );
    has(&message, &["data", "no image"]);
}

#[test]
fn caption_without_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::remove_file(data.join("p5.png")).unwrap();
    has(&train_on(folder.path(), "{}/data"), &["p5", "has no image"]);
}

#[test]
fn image_without_a_caption() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::remove_file(data.join("p5.txt")).unwrap();
    has(&train_on(folder.path(), "{}/data"), &["p5", "has no caption"]);
}

/// Runs every command that takes an adapter on an unusable one.
fn with_adapter(folder: &Path, parts: &[&str]) {
    let settings = "--adapter {}/adapter --set model.backbone={}/backbone";
    let data = tiny_run("{}/data");
    has(&refused(folder, &format!("eval {settings} {data}")), parts);
    let search = format!("search cat --images {{}}/data --out {{}}/found {settings}");
    has(&refused(folder, &search), parts);
}

fn adapted(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("data"));
    let backbone = backbone(&folder.path().join("backbone"), 1);
    adapter(&folder.path().join("adapter"), &backbone);
    let path = AdapterFolder::weights_path(&folder.path().join("adapter"));
    let mut stored = read_tensors(&path, DType::F32, &Device::Cpu).unwrap();
    change(&mut stored);
    tensors::write(&stored, &path).unwrap();
    folder
}

const LAMBDA: &str = "base_model.aurora_lambda";

#[test]
fn adapter_for_another_backbone() {
    let folder = adapted(|_| {});
    backbone(&folder.path().join("backbone"), 2);
    with_adapter(folder.path(), &["adapter", "fingerprint"]);
}

#[test]
fn adapter_with_a_tensor_missing() {
    let folder = adapted(|stored| drop(stored.remove(LAMBDA)));
    with_adapter(folder.path(), &["adapter_model.safetensors", "missing: aurora_lambda"]);
}

#[test]
fn adapter_with_a_tensor_too_many() {
    let folder = adapted(|stored| {
        let lambda = stored[LAMBDA].clone();
        stored.insert("base_model.stray".to_owned(), lambda);
    });
    with_adapter(folder.path(), &["adapter_model.safetensors", "unexpected: stray"]);
}

#[test]
fn adapter_with_a_tensor_of_another_shape() {
    let folder = adapted(|stored| {
        let lambda = stored[LAMBDA].unsqueeze(0).unwrap();
        stored.insert(LAMBDA.to_owned(), lambda);
    });
    with_adapter(folder.path(), &["adapter_model.safetensors", "aurora_lambda is [1, 4], not [4]"]);
}

#[test]
fn adapter_that_is_not_there() {
    let folder = adapted(|_| {});
    std::fs::remove_dir_all(folder.path().join("adapter")).unwrap();
    with_adapter(folder.path(), &["adapter_config.json"]);
}

#[test]
fn backbone_that_is_cut_or_not_there() {
    let folder = adapted(|_| {});
    let path = folder.path().join("backbone/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    with_adapter(folder.path(), &["model.safetensors", "not a whole"]);
    std::fs::remove_file(&path).unwrap();
    with_adapter(folder.path(), &["model.safetensors"]);
}

#[test]
fn folder_that_already_holds_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("config.toml"), "seed = 7\n").unwrap();
    for command in ["quickstart", "train", "pretrain"] {
        let message = refused(folder.path(), &format!("{command} --out {{}}/run"));
        has(&message, &["run", "already holds a run", "--out"]);
    }
    assert_eq!(std::fs::read_to_string(run.join("config.toml")).unwrap(), "seed = 7\n");
}

#[test]
fn words_that_are_no_command() {
    let folder = tempfile::tempdir().unwrap();
    has(&refused(folder.path(), "tune"), &["tune"]);
    has(&refused(folder.path(), "inspect {}"), &["config.json", "adapter_config.json"]);
    has(&refused(folder.path(), "search cat --top-k 0"), &["--top-k"]);
}
