//! Adapter export and import: PEFT's LoRA folders and checkpoints of the reference code.

use std::path::Path;

use aurora_layers::checkpoint::read_tensors;
use aurora_layers::{AdapterFolder, AdapterKind, save_adapter, tensors};
use candle_core::{DType, Device, Tensor};

use crate::fixture::{
    adapter, adapter_of, backbone, hugging_face, images, refused, tiny_run, works,
};
use crate::snapshots::Transcript;

/// A tiny backbone, ours and Hugging Face's, with an adapter at its initialization, whose gates are closed.
fn start() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tiny = backbone(&folder.path().join("backbone"), 1);
    hugging_face(&folder.path().join("theirs"), &tiny);
    adapter(&folder.path().join("adapter"), &tiny);
    images(&folder.path().join("data"));
    folder
}

/// Opens a gate of the adapter in the folder.
fn open_gate(folder: &Path) {
    let path = AdapterFolder::weights_path(&folder.join("adapter"));
    let mut stored = read_tensors(&path, DType::F32, &Device::Cpu).unwrap();
    let gate = stored.keys().find(|name| name.contains("aurora_gate_self")).unwrap().clone();
    stored.insert(gate, Tensor::new(&[0.25f32], &Device::Cpu).unwrap());
    tensors::write(&stored, &path).unwrap();
}

fn measured(folder: &Path, adapter: &str) -> Vec<String> {
    let eval = format!("eval --adapter {{}}/{adapter} {}", tiny_run("{}/data"));
    let printed = works(folder, &eval);
    printed.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

const EXPORT: &str = "export {}/adapter --format peft-lora --backbone {}/backbone --out {}/lora";

#[test]
fn an_adapter_goes_out_as_a_lora_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let tiny = backbone(&path.join("backbone"), 1);
    hugging_face(&path.join("theirs"), &tiny);
    images(&path.join("data"));
    // Nonzero factors, so that a lost one would show.
    let mut tuned = adapter_of(AdapterKind::Lora, &tiny);
    for (name, tensor) in &mut tuned.tensors {
        if name.contains("lora_B") {
            *tensor = (tensor.ones_like().unwrap() * 0.2).unwrap();
        }
    }
    let named = path.join("backbone").display().to_string();
    save_adapter(&path.join("adapter"), &tuned, &tiny, &named, "card").unwrap();
    // The adapter says where its backbone is.
    let printed = works(path, "export {}/adapter --format peft-lora --out {}/lora");
    assert!(printed.contains("a LoRA of PEFT"), "{printed}");
    for name in ["adapter_model.safetensors", "adapter_config.json", "README.md"] {
        assert!(path.join("lora").join(name).is_file(), "{name}");
    }
    let card = std::fs::read_to_string(path.join("lora/README.md")).unwrap();
    assert!(card.contains("Nothing was left out") && card.contains("PeftModel"), "{card}");
    works(path, "import {}/lora --backbone {}/theirs --out {}/back");
    assert_eq!(measured(path, "adapter"), measured(path, "back"));
    let first = |adapter: &str| {
        let file = AdapterFolder::weights_path(&path.join(adapter));
        read_tensors(&file, DType::F32, &Device::Cpu).unwrap()
    };
    let fingerprint = |adapter| tensors::fingerprint(&first(adapter)).unwrap();
    assert_eq!(fingerprint("adapter"), fingerprint("back"));
}

#[test]
fn open_gates_are_refused_unless_dropped() {
    let folder = start();
    works(folder.path(), EXPORT);
    open_gate(folder.path());
    std::fs::remove_dir_all(folder.path().join("lora")).unwrap();
    let message = refused(folder.path(), EXPORT);
    for part in ["aurora_gate_self", "0.25", "drop the gates"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!folder.path().join("lora").exists(), "nothing is left behind");
    let printed = works(folder.path(), &format!("{EXPORT} --drop-gates"));
    assert!(printed.contains("left out"), "{printed}");
    let card = std::fs::read_to_string(folder.path().join("lora/README.md")).unwrap();
    assert!(card.contains("were left out"), "{card}");
}

#[test]
fn bad_exports_are_refused() {
    let folder = start();
    let path = folder.path();
    let to_lora = "export {}/adapter --format peft-lora";
    let mut said = Transcript::new(path);
    for args in [
        "export {}/adapter --format onnx --backbone {}/backbone --out {}/lora",
        "export {}/nowhere --format peft-lora --out {}/lora",
        &format!("{to_lora} --out {{}}/lora"),
        &format!("{to_lora} --backbone {{}}/nowhere --out {{}}/lora"),
        &format!("{to_lora} --backbone nano --out {{}}/lora"),
        &format!("{to_lora} --backbone {{}}/backbone --out {{}}/data"),
        &format!("{to_lora} --backbone {{}}/backbone --out {{}}/data/p0.txt"),
        &format!("{to_lora} --backbone {{}}/backbone --image-size 30 --out {{}}/lora"),
    ] {
        said.refused(args);
        assert!(!path.join("lora").exists(), "{args}");
    }
    let heads = adapter_of(AdapterKind::Heads, &backbone(&path.join("backbone"), 1));
    let tiny = backbone(&path.join("backbone"), 1);
    save_adapter(&path.join("heads"), &heads, &tiny, "tiny", "card").unwrap();
    said.refused("export {}/heads --format peft-lora --backbone {}/backbone --out {}/lora");
    said.matches("refused_export");
}

#[test]
fn bad_imports_are_refused() {
    let folder = start();
    let path = folder.path();
    works(path, EXPORT);
    let weights = AdapterFolder::weights_path(&path.join("lora"));
    let whole = std::fs::read(&weights).unwrap();
    let on = "--backbone {}/backbone";
    let mut said = Transcript::new(path);
    for args in [
        format!("import {{}}/nowhere {on} --out {{}}/back"),
        format!("import {{}}/data {on} --out {{}}/back"),
        "import {}/lora --out {}/back".to_owned(),
        format!("import {{}}/lora {on} --out {{}}/data"),
        format!("import {{}}/adapter {on} --out {{}}/back"),
        "import {}/theirs/config.json --out {}/back".to_owned(),
        format!("import {{}}/data/p0.txt {on} --out {{}}/back"),
    ] {
        said.refused(&args);
        assert!(!path.join("back").exists(), "{args}");
    }
    let import = format!("import {{}}/lora {on} --out {{}}/back");
    std::fs::write(&weights, &whole[..whole.len() - 3]).unwrap();
    said.refused(&import);
    // A LoRA of some other model.
    let other = Tensor::zeros((4, 8), DType::F32, &Device::Cpu).unwrap();
    let name = |factor: &str| format!("base_model.model.layers.0.q_proj.{factor}.weight");
    let others = [(name("lora_A"), other.clone()), (name("lora_B"), other.t().unwrap())];
    tensors::write(&others.into_iter().collect(), &weights).unwrap();
    said.refused(&import);
    said.matches("refused_import");
    assert!(!path.join("back").exists());
}

/// Checkpoint written by the reference code, with the sizes and a vocabulary beside it.
fn reference() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../aurora-train/tests/golden");
    std::fs::copy(golden.join("retrieval_image.pth"), folder.path().join("aurora.pth")).unwrap();
    let config = serde_json::json!({
        "model_type": "blip",
        "image_text_hidden_size": 16,
        "vision_config": {
            "image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "layer_norm_eps": 1e-6,
        },
        "text_config": {
            "vocab_size": 38, "hidden_size": 32, "encoder_hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 64,
            "layer_norm_eps": 1e-12,
        },
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into_iter();
    let letters = ('a'..='z').map(String::from);
    let pieces = pieces.chain(letters).chain(('a'..='e').map(|letter| format!("##{letter}")));
    let words: Vec<String> = pieces.chain(["[DEC]", "[ENC]"].map(str::to_owned)).collect();
    std::fs::write(folder.path().join("vocab.txt"), words.join("\n") + "\n").unwrap();
    images(&folder.path().join("data"));
    folder
}

#[test]
fn a_released_checkpoint_is_a_backbone_and_an_adapter() {
    let folder = reference();
    let printed = works(folder.path(), "inspect {}/aurora.pth");
    for part in ["momentum copy", "momentum queue", "adapter of the reference code", "total"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let printed = works(folder.path(), "import {}/aurora.pth --out {}/adapter");
    assert!(printed.contains("kind tucker, rank 4"), "{printed}");
    let settings = tiny_run("{}/data").replace("{}/backbone", "{}/aurora.pth");
    let bare = works(folder.path(), &format!("eval {settings}"));
    let tuned = works(folder.path(), &format!("eval --adapter {{}}/adapter {settings}"));
    assert!(bare.contains("R@10") && tuned.contains("R@10"));
    let message = refused(folder.path(), "export {}/adapter --format peft-lora --out {}/lora");
    assert!(message.contains("aurora_") && message.contains("drop the gates"), "{message}");
    works(folder.path(), "export {}/adapter --format peft-lora --drop-gates --out {}/lora");
    let message = refused(folder.path(), "import {}/aurora.pth --backbone nano --out {}/back");
    assert!(message.contains("aurora.pth") && message.contains("inside"), "{message}");
    // Without the sizes beside it: the number of heads does not show in shapes.
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let message = refused(folder.path(), "inspect {}/aurora.pth");
    assert!(message.contains("aurora.pth") && message.contains("config.json"), "{message}");
}

#[test]
fn a_merged_backbone_measures_as_the_adapted_one() {
    let folder = start();
    let path = folder.path();
    open_gate(path);
    works(path, "merge {}/adapter --backbone {}/theirs --out {}/merged");
    works(path, "merge {}/adapter --backbone {}/backbone --format transformers --out {}/written");
    let adapted = measured(path, "adapter");
    for merged in ["merged", "written"] {
        // The vocabulary came along, and the gates stand beside.
        let settings = tiny_run("{}/data").replace("/backbone", &format!("/{merged}"));
        let printed = works(path, &format!("eval --adapter {{}}/{merged}/adapter {settings}"));
        assert!(adapted.iter().all(|line| printed.contains(line)), "{printed}");
    }
    assert!(path.join("written/config.json").is_file() && path.join("merged/vocab.txt").is_file());
}

#[test]
fn bad_merges_are_refused() {
    let folder = start();
    let path = folder.path();
    let tiny = backbone(&path.join("backbone"), 1);
    let narrow = adapter_of(AdapterKind::Bottleneck, &tiny);
    save_adapter(&path.join("narrow"), &narrow, &tiny, "tiny", "card").unwrap();
    let mut said = Transcript::new(path);
    for args in [
        "{}/adapter --backbone {}/backbone --format onnx --out {}/merged",
        "{}/adapter --backbone nano --out {}/merged",
        "{}/adapter --out {}/merged",
        "{}/adapter --backbone {}/backbone --out {}/data",
        "{}/narrow --backbone {}/backbone --out {}/merged",
        "{}/data --backbone {}/backbone --out {}/merged",
    ] {
        said.refused(&format!("merge {args}"));
        assert!(!path.join("merged").exists(), "{args}");
    }
    said.matches("refused_merge");
}
