//! `aurora inspect`: its output for every kind of input, and the published counts at full size.

use std::path::Path;

use aurora_layers::{AdapterFolder, AdapterKind};

use crate::fixture::{adapter, adapter_of, backbone, hugging_face, refused, tiny_run, works};
use crate::snapshots::Transcript;

/// Committed `config.json` of full size.
fn config(name: &str) -> String {
    format!("{}/tests/configs/{name}.json", env!("CARGO_MANIFEST_DIR"))
}

/// Runs `aurora inspect` in an empty folder: a folder called `nano` would come before the embedded backbone.
fn inspect(args: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    works(folder.path(), &format!("inspect {args}"))
}

/// Cells of the one line that begins with these words.
fn cells(printed: &str, words: &[&str]) -> Vec<String> {
    let split = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let begins =
        |line: &Vec<String>| line.iter().zip(words).filter(|(a, b)| a == b).count() == words.len();
    let found: Vec<_> = printed.lines().map(split).filter(begins).collect();
    assert_eq!(found.len(), 1, "{words:?} in {printed}");
    found[0][words.len()..].to_vec()
}

/// Parameter counts at BLIP-base's sizes, all 216 slices, as published for the method.
const COUNTS: [(&[&str], &str, &str); 12] = [
    (&["cp", "64"], "112,192", "0.05"),
    (&["tucker,", "reference", "32"], "88,832", "0.04"),
    (&["tensor_train", "16"], "79,872", "0.04"),
    (&["lora", "1"], "258,048", "0.12"),
    (&["lora", "8"], "2,064,384", "0.92"),
    (&["dora", "8"], "2,202,624", "0.98"),
    (&["ia3"], "138,240", "0.06"),
    (&["norms"], "95,232", "0.04"),
    (&["biases"], "251,650", "0.11"),
    (&["bottleneck", "128"], "4,784,640", "2.1"),
    (&["vera", "256"], "168,960", "0.08"),
    (&["full"], "223,744,258", "100.0"),
];

#[test]
fn every_kind_counts_what_is_published_on_blip_base() {
    let printed = inspect(&config("hugging_face_retrieval"));
    assert_eq!(cells(&printed, &["total"])[1], "223,744,258");
    assert!(printed.contains("in 216 slices"), "{printed}");
    for (name, count, share) in COUNTS {
        assert_eq!(cells(&printed, name)[..2], [count, share], "{name:?}");
    }
    let tucker = cells(&printed, &["tucker,", "reference", "32"]);
    assert_eq!(tucker[3..5], ["36,864", "125,696"]);
}

#[test]
fn question_answering_counts_its_decoder() {
    let printed = inspect(&config("hugging_face_question_answering"));
    assert!(printed.contains("for question answering"), "{printed}");
    assert_eq!(cells(&printed, &["total"])[1], "361,230,140");
}

#[test]
fn targets_are_told_before_they_are_trained() {
    let printed = inspect("nano --set adapter.targets.towers=[\"vision\"] --set adapter.kind=lora");
    assert!(printed.contains("16 of 40 are tuned"), "{printed}");
    assert!(printed.contains("+ visual_encoder.blocks.0.attn.qkv"), "{printed}");
    assert!(printed.contains("- text_encoder.encoder.layer.0.attention.self.query:"), "{printed}");
    let nothing = "inspect nano --set adapter.targets.target_modules=[\"nothing\"]";
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), nothing);
    assert!(message.contains("nothing") && message.contains("there are"), "{message}");
}

#[test]
fn one_kind_counts_alike() {
    let base = config("hugging_face_retrieval");
    for (args, count) in [
        ("cp --rank 64", "112,192"),
        ("tucker --rank 32 --variant reference", "88,832"),
        ("tensor_train", "79,872"),
        ("lora --rank 1", "258,048"),
        ("lora", "2,064,384"),
        ("dora --rank 8", "2,202,624"),
        ("ia3", "138,240"),
        ("norms", "95,232"),
        ("biases", "251,650"),
        ("bottleneck --rank 128", "4,784,640"),
        ("vera --rank 256", "168,960"),
    ] {
        let printed = inspect(&format!("{base} --adapter-kind {args}"));
        let table = printed.split("what an adapter would train").nth(1).unwrap();
        assert!(table.contains(&format!(" {count} ")), "{args}: {table}");
    }
}

#[test]
fn settings_count_what_their_run_would_train() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my.toml"), "[adapter]\nkind = \"cp\"\nrank = 64\n").unwrap();
    let base = config("hugging_face_retrieval");
    let printed = works(folder.path(), &format!("inspect {base} --config my.toml"));
    assert_eq!(cells(&printed, &["factors"])[0], "112,192");
    assert_eq!(cells(&printed, &["gates"])[0], "36,889");
    let printed =
        inspect(&format!("{base} --set adapter.kind=tucker --set adapter.variant=reference"));
    assert_eq!(cells(&printed, &["factors"])[0], "88,832");
    assert_eq!(cells(&printed, &["gates"])[0], "36,864");
    assert_eq!(cells(printed.split("would train").nth(1).unwrap(), &["total"])[0], "324,098");
}

/// A run trains as many parameters as the table says.
#[test]
fn a_run_trains_what_was_counted() {
    let folder = tempfile::tempdir().unwrap();
    backbone(&folder.path().join("backbone"), 1);
    crate::fixture::images(&folder.path().join("data"));
    let settings = tiny_run("{}/data");
    let counted = works(folder.path(), &format!("inspect {{}}/backbone {settings}"));
    let table = counted.split("would train").nth(1).unwrap();
    let trained = works(folder.path(), &format!("train --out {{}}/run {settings}"));
    let trained = trained.lines().find(|line| line.starts_with("trainable")).unwrap();
    assert_eq!(cells(table, &["total"])[0], trained.split_whitespace().nth(1).unwrap());
}

#[test]
fn folders_and_files_of_one_backbone_are_alike() {
    let folder = tempfile::tempdir().unwrap();
    let ours = backbone(&folder.path().join("ours"), 1);
    hugging_face(&folder.path().join("theirs"), &ours);
    let look = |path: &str| works(folder.path(), &format!("inspect {{}}/{path}"));
    let printed = [
        look("ours"),
        look("ours/model.safetensors"),
        look("ours/config.json"),
        look("theirs"),
        look("theirs/config.json"),
    ];
    let model = |printed: &str| {
        let parts = printed.split("common space").nth(1).unwrap();
        let own = parts.split("beside the model").next().unwrap().to_owned();
        own.split("120 maps").next().unwrap().lines().take(10).collect::<Vec<_>>().join("\n")
    };
    for other in &printed[1..] {
        assert_eq!(model(&printed[0]), model(other));
    }
    assert!(printed[3].contains("Hugging Face's layout"), "{}", printed[3]);
    assert_eq!(cells(&printed[3], &["temperature", "of", "training"])[..2], ["1", "1"]);
    assert!(printed[4].contains("without weights"), "{}", printed[4]);
    assert!(works(folder.path(), "inspect {}/theirs --tensors").contains("logit_scale"));
}

fn lora(folder: &Path) {
    let tiny = backbone(&folder.join("backbone"), 1);
    let tuned = adapter_of(AdapterKind::Lora, &tiny);
    aurora_layers::peft::export_lora(&folder.join("lora"), &tuned, &tiny.config, "tiny", false)
        .unwrap();
}

#[test]
fn adapters_of_ours_and_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    lora(folder.path());
    let tiny = backbone(&folder.path().join("backbone"), 1);
    adapter(&folder.path().join("adapter"), &tiny);
    let ours = works(folder.path(), "inspect {}/adapter");
    assert!(ours.contains(&tiny.fingerprint().unwrap()), "{ours}");
    let mut said = Transcript::new(folder.path());
    said.works("inspect {}/adapter");
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert_eq!(
            works(folder.path(), &format!("inspect {{}}/adapter/{file}")).lines().nth(2),
            ours.lines().nth(2)
        );
    }
    said.works("inspect {}/lora");
    let alone = folder.path().join("alone.safetensors");
    std::fs::copy(AdapterFolder::weights_path(&folder.path().join("lora")), alone).unwrap();
    said.works("inspect {}/alone.safetensors");
    said.matches("inspect_adapters");
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    std::fs::create_dir(path.join("empty")).unwrap();
    std::fs::write(path.join("notes.txt"), "neither kind of file").unwrap();
    std::fs::write(path.join("other.json"), "{\"model_type\": \"bert\"}").unwrap();
    let weights = path.join("backbone/model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(path.join("cut.safetensors"), &whole[..whole.len() / 2]).unwrap();
    let mut said = Transcript::new(path);
    for args in [
        "{}/nowhere",
        "{}/empty",
        "{}/notes.txt",
        "{}/other.json",
        "{}/cut.safetensors",
        "nano --adapter-kind lara",
        "nano --rank 8",
        "nano --adapter-kind cp --rank 0",
        "nano --adapter-kind cp --set seed=2",
        "nano --set adapter.knid=cp",
    ] {
        said.refused(&format!("inspect {args}"));
    }
    std::fs::remove_file(&weights).unwrap();
    said.refused("inspect {}/backbone");
    said.matches("refused_inspect");
}
