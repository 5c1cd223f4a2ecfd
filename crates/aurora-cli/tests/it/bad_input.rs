//! Bad input: exit code 2 and a message that names the file, the key or the tensor, before any training.

use std::path::Path;

use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{AdapterFolder, Tensors, tensors};
use candle_core::{DType, Device};

use crate::fixture::{adapter, backbone, images, png, refused, tiny_run};
use crate::snapshots::Transcript;

/// Runs `aurora train` on unusable data.
fn train_on<'a>(folder: &'a Path, data: &str) -> Transcript<'a> {
    backbone(&folder.join("backbone"), 1);
    let mut said = Transcript::new(folder);
    said.refused(&format!("train --out {{}}/run {}", tiny_run(data)));
    assert!(!folder.join("run/adapter").exists(), "nothing was trained");
    said
}

#[test]
fn unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("quickstart --out {}/run --set adapter.rnak=3");
    std::fs::write(folder.path().join("my.toml"), "[adaptor]\nrank = 3\n").unwrap();
    said.refused("train --config {}/my.toml --out {}/run");
    said.matches("refused_unknown_key");
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn value_of_the_wrong_type() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("quickstart --out {}/run --set adapter.rank=many");
    said.refused("pretrain --out {}/run --set model.patch_size=true");
    said.matches("refused_wrong_type");
}

#[test]
fn device_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("quickstart --out {}/run --device gpu");
    said.refused("quickstart --out {}/run --set device=cuda:x");
    said.matches("refused_device");
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn gpu_that_cannot_be_had() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["eval", "quickstart --out {}/run", "search fruit --out {}/found"] {
        // A device number that no machine has, for one with GPUs.
        let message = refused(folder.path(), &format!("{command} --device cuda:99"));
        assert!(message.contains("cuda"), "{message}");
    }
    if cfg!(not(feature = "cuda")) {
        let mut said = Transcript::new(folder.path());
        said.refused("eval --device cuda:99");
        said.matches("refused_gpu_without_cuda");
    }
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
}

#[test]
fn configuration_that_is_not_there_or_no_toml() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("train --config {}/none.toml --out {}/run");
    std::fs::write(folder.path().join("bad.toml"), "rank = = 3").unwrap();
    said.refused("eval --config {}/bad.toml");
    said.matches("refused_configuration");
}

#[test]
fn missing_shard() {
    let folder = tempfile::tempdir().unwrap();
    train_on(folder.path(), "{}/none.tar").matches("refused_missing_shard");
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
    train_on(folder.path(), "{}/cut.tar").matches("refused_truncated_shard");
}

#[test]
fn image_that_does_not_decode() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::write(data.join("p3.png"), &png(3)[..40]).unwrap();
    let mut said = train_on(folder.path(), "{}/data");
    said.refused("search cat --images {}/data --set model.backbone={}/backbone --out {}/found");
    said.matches("refused_image");
    assert!(!folder.path().join("found/search.html").exists());
}

#[test]
fn empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mut said = train_on(folder.path(), "{}/data");
    said.refused("search cat --images {}/data --set model.backbone={}/backbone --out {}/found");
    said.matches("refused_empty_folder");
}

#[test]
fn caption_without_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::remove_file(data.join("p5.png")).unwrap();
    train_on(folder.path(), "{}/data").matches("refused_caption_without_image");
}

#[test]
fn image_without_a_caption() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(&folder.path().join("data"));
    std::fs::remove_file(data.join("p5.txt")).unwrap();
    train_on(folder.path(), "{}/data").matches("refused_image_without_caption");
}

/// Runs every command that takes an adapter on an unusable one.
fn with_adapter<'a>(folder: &'a Path) -> Transcript<'a> {
    let settings = "--adapter {}/adapter --set model.backbone={}/backbone";
    let mut said = Transcript::new(folder);
    said.refused(&format!("eval {settings} {}", tiny_run("{}/data")));
    said.refused(&format!("search cat --images {{}}/data --out {{}}/found {settings}"));
    said
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
    with_adapter(folder.path()).matches("refused_adapter_another_backbone");
}

#[test]
fn adapter_with_a_tensor_missing() {
    let folder = adapted(|stored| drop(stored.remove(LAMBDA)));
    with_adapter(folder.path()).matches("refused_adapter_tensor_missing");
}

#[test]
fn adapter_with_a_tensor_too_many() {
    let folder = adapted(|stored| {
        let lambda = stored[LAMBDA].clone();
        stored.insert("base_model.stray".to_owned(), lambda);
    });
    with_adapter(folder.path()).matches("refused_adapter_tensor_too_many");
}

#[test]
fn adapter_with_a_tensor_of_another_shape() {
    let folder = adapted(|stored| {
        let lambda = stored[LAMBDA].unsqueeze(0).unwrap();
        stored.insert(LAMBDA.to_owned(), lambda);
    });
    with_adapter(folder.path()).matches("refused_adapter_tensor_shape");
}

#[test]
fn adapter_that_is_not_there() {
    let folder = adapted(|_| {});
    std::fs::remove_dir_all(folder.path().join("adapter")).unwrap();
    with_adapter(folder.path()).matches("refused_adapter_not_there");
}

#[test]
fn backbone_that_is_cut_or_not_there() {
    let folder = adapted(|_| {});
    let path = folder.path().join("backbone/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    with_adapter(folder.path()).matches("refused_backbone_cut");
    std::fs::remove_file(&path).unwrap();
    with_adapter(folder.path()).matches("refused_backbone_not_there");
}

#[test]
fn folder_that_already_holds_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("config.toml"), "seed = 7\n").unwrap();
    let mut said = Transcript::new(folder.path());
    for command in ["quickstart", "train", "pretrain"] {
        said.refused(&format!("{command} --out {{}}/run"));
    }
    said.matches("refused_run_exists");
    assert_eq!(std::fs::read_to_string(run.join("config.toml")).unwrap(), "seed = 7\n");
}

#[test]
fn words_that_are_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    for args in ["tune", "inspect {}", "search cat --top-k 0"] {
        said.refused(args);
    }
    said.matches("refused_words");
}
