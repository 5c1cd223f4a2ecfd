//! Checkpoint formats of other libraries: output and training do not depend on the format.

use std::path::Path;

use aurora_layers::Backbone;
use candle_core::{DType, Device};

use crate::fixture::{aurora, backbone, hugging_face, images, refused, sizes, tiny_run, works};
use crate::snapshots::Transcript;

/// One set of weights as our folder and as Hugging Face's, and images.
fn layouts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ours = backbone(&folder.path().join("backbone"), 1);
    hugging_face(&folder.path().join("theirs"), &ours);
    images(&folder.path().join("data"));
    folder
}

/// Settings of a run on the named backbone.
fn on(backbone: &str) -> String {
    tiny_run("{}/data").replace("{}/backbone", &format!("{{}}/{backbone}"))
}

/// Standard error of a command that succeeds.
fn notes(folder: &Path, args: &str) -> String {
    let output = aurora(folder, args);
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_layout_measures_alike() {
    let folder = layouts();
    let path = folder.path();
    let table = |backbone: &str| {
        let printed = works(path, &format!("eval {}", on(backbone)));
        printed.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = table("backbone");
    assert!(ours.len() > 2, "{ours:?}");
    assert_eq!(ours, table("theirs"));
    let notes = notes(path, &format!("eval {}", on("theirs")));
    assert!(
        notes.contains("tensors read") && notes.contains("temperature of training 1"),
        "{notes}"
    );
}

#[test]
fn an_adapter_fits_the_same_weights_in_every_layout() {
    let folder = layouts();
    works(folder.path(), &format!("train --out {{}}/run {}", on("theirs")));
    let eval = "eval --adapter {}/run/adapter";
    let theirs = works(folder.path(), &format!("{eval} {}", on("theirs")));
    let ours = works(folder.path(), &format!("{eval} {}", on("backbone")));
    assert_eq!(theirs.lines().next(), ours.lines().next());
    assert_eq!(theirs.lines().nth(2), ours.lines().nth(2));
}

#[test]
fn images_may_have_another_size() {
    let folder = layouts();
    let larger = format!("{} --set model.image_size=32", on("theirs"));
    works(folder.path(), &format!("train --out {{}}/run {larger}"));
    let eval = "eval --adapter {}/run/adapter";
    let notes = notes(folder.path(), &format!("{eval} {larger}"));
    assert!(notes.contains("pos_embed [1, 5, 16] to [1, 17, 16]"), "{notes}");
    let message = refused(folder.path(), &format!("{eval} {}", on("theirs")));
    assert!(message.contains("fingerprint") && message.contains("image size"), "{message}");
    let odd = format!("eval {} --set model.image_size=30", on("theirs"));
    let message = refused(folder.path(), &odd);
    assert!(message.contains("image_size = 30") && message.contains("24 or 32"), "{message}");
}

#[test]
fn the_embedded_backbone_takes_another_image_size_too() {
    let folder = layouts();
    let search = "search cat --images {}/data --set model.image_size=32 --top-k 1 --out {}/found";
    works(folder.path(), search);
}

#[test]
fn a_vocabulary_is_beside_the_weights_or_named() {
    let folder = layouts();
    let vocabulary = folder.path().join("theirs/vocab.txt");
    let elsewhere = folder.path().join("words.txt");
    std::fs::rename(&vocabulary, &elsewhere).unwrap();
    let eval = format!("eval {}", on("theirs"));
    let message = refused(folder.path(), &eval);
    for part in ["theirs/vocab.txt", "theirs/tokenizer.json", "model.tokenizer"] {
        assert!(message.contains(part), "{message}");
    }
    works(folder.path(), &format!("{eval} --set model.tokenizer={{}}/words.txt"));
    let mut words = std::fs::read_to_string(&elsewhere).unwrap();
    words.push_str("onemore\n");
    std::fs::write(&elsewhere, words).unwrap();
    let message = refused(folder.path(), &format!("{eval} --set model.tokenizer={{}}/words.txt"));
    assert!(message.contains("words.txt") && message.contains("word pieces"), "{message}");
}

#[test]
fn what_is_no_backbone_is_refused_with_what_would_be() {
    let folder = layouts();
    let path = folder.path();
    std::fs::create_dir(path.join("empty")).unwrap();
    std::fs::write(path.join("notes.txt"), "neither kind of file").unwrap();
    let mut said = Transcript::new(path);
    for backbone in ["nowhere", "empty", "notes.txt"] {
        for command in ["eval", "train --out {}/run", "search cat --images {}/data"] {
            said.refused(&format!("{command} {}", on(backbone)));
        }
        assert!(!path.join("run").exists(), "nothing is left behind");
    }
    let weights = path.join("theirs/model-00002-of-00002.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for length in [0, 7, 8, 200, whole.len() - 1] {
        std::fs::write(&weights, &whole[..length]).unwrap();
        said.refused(&format!("eval {}", on("theirs")));
    }
    said.matches("refused_checkpoints");
}

/// Sizes are inferred from shapes, with heads as wide as in every published model.
#[test]
fn a_file_without_a_configuration_tells_its_sizes() {
    let folder = layouts();
    let mut config = sizes();
    (config.vision.hidden_size, config.vision.num_attention_heads) = (64, 1);
    (config.text.hidden_size, config.text.num_attention_heads) = (128, 2);
    let wide = Backbone::random(config, 1, &Device::Cpu).unwrap();
    let path = folder.path().join("wide");
    wide.write(&path, DType::F32).unwrap();
    std::fs::rename(folder.path().join("theirs/vocab.txt"), path.join("vocab.txt")).unwrap();
    let eval = |backbone: &str| works(folder.path(), &format!("eval {}", on(backbone)));
    let described = eval("wide");
    let table = |printed: &str| printed.lines().take(4).map(str::to_owned).collect::<Vec<_>>();
    std::fs::remove_file(path.join("config.json")).unwrap();
    assert_eq!(table(&described), table(&eval("wide/model.safetensors")));
    let printed = works(folder.path(), "inspect {}/wide/model.safetensors");
    assert!(printed.contains("sizes told by shapes"), "{printed}");
}
