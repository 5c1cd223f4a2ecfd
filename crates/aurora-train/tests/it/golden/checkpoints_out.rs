//! Checkpoints written in the formats of others, sizes inferred from shapes, and reference checkpoints with their
//! adapter.

use super::support::{assert_close, folder, read};
use aurora_layers::checkpoint::Checkpoint;
use aurora_layers::{AdapterKind, Architecture, Backbone, BlipConfig, Variant};
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::Path;

/// Backbone of a Hugging Face folder.
fn hugging_face(path: &Path) -> Backbone {
    let config = path.join("config.json");
    let config =
        BlipConfig::from_json(&std::fs::read_to_string(&config).unwrap(), &config).unwrap();
    Checkpoint::open(path).unwrap().backbone(&config, &Device::Cpu).unwrap().0
}

/// Header of a safetensors file.
fn header(path: &Path) -> BTreeMap<String, serde_json::Value> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[8..8 + length]).unwrap()
}

/// Every entry of `ours` is in `theirs`, with the same value.
fn agrees(key: &str, ours: &serde_json::Value, theirs: &serde_json::Value) {
    let serde_json::Value::Object(entries) = ours else {
        assert_eq!(ours, theirs, "{key}");
        return;
    };
    for (key, value) in entries {
        agrees(key, value, theirs.get(key).unwrap_or_else(|| panic!("{key} is not theirs")));
    }
}

#[test]
fn hf_written_back() {
    for (form, count) in [("itm", 104), ("vqa", 159), ("caption", 103)] {
        let path = folder().join("hf").join(form);
        let backbone = hugging_face(&path);
        let written = tempfile::tempdir().unwrap();
        let written = written.path();
        backbone.write_hugging_face(written, None).unwrap();
        // Names, types, shapes, note and order of the numbers are those of transformers: tied tensors are stored once.
        let (ours, theirs) = ("model.safetensors", path.join("model.safetensors"));
        assert_eq!(header(&written.join(ours)), header(&theirs), "{form}");
        let json = |folder: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
        };
        agrees("config.json", &json(written), &json(&path));
        let back = hugging_face(written);
        assert_eq!(back.config, backbone.config, "{form}");
        assert_eq!(back.fingerprint().unwrap(), backbone.fingerprint().unwrap(), "{form}");
        assert_eq!(back.tensors.len(), count, "{form}");
    }
}

#[test]
fn hf_written_in_shards() {
    let backbone = hugging_face(&folder().join("hf/itm"));
    let written = tempfile::tempdir().unwrap();
    let written = written.path();
    backbone.write_hugging_face(written, None).unwrap();
    // In shards, and back to one file: the stale files are not found again.
    backbone.write_hugging_face(written, Some(100_000)).unwrap();
    let names = |folder: &Path| -> Vec<String> {
        let files = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let sharded = names(written);
    assert!(sharded.contains(&"model.safetensors.index.json".to_owned()), "{sharded:?}");
    assert!(sharded.contains(&"model-00006-of-00006.safetensors".to_owned()), "{sharded:?}");
    assert_eq!(sharded.len(), 8, "{sharded:?}");
    assert_eq!(hugging_face(written).fingerprint().unwrap(), backbone.fingerprint().unwrap());
    backbone.write_hugging_face(written, None).unwrap();
    assert!(!names(written).contains(&"model.safetensors.index.json".to_owned()));
    assert_eq!(hugging_face(written).fingerprint().unwrap(), backbone.fingerprint().unwrap());
}

#[test]
fn hf_sizes_from_shapes() {
    for form in ["itm", "vqa", "caption"] {
        let path = folder().join("hf").join(form);
        let mut wanted = hugging_face(&path).config;
        let mut found = Checkpoint::open(&path).unwrap().infer_config(8).unwrap();
        // Not inferred from shapes: epsilons, and the projection width of a model without heads.
        (found.vision.layer_norm_eps, found.text.layer_norm_eps) = (1e-5, 1e-12);
        if form != "itm" {
            found.projection_dim = wanted.projection_dim;
        }
        for config in [&mut found, &mut wanted] {
            if let Architecture::QuestionAnswering(tokens) | Architecture::Captioning(tokens) =
                &mut config.architecture
            {
                tokens.end_token_id = 3;
            }
        }
        assert_eq!(found, wanted, "{form}");
    }
}

#[test]
fn released_question_answering() {
    let path = folder().join("vqa.weights.safetensors");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut config = checkpoint.infer_config(8).unwrap();
    let Architecture::QuestionAnswering(tokens) = &mut config.architecture else {
        panic!("{:?}", config.architecture)
    };
    tokens.end_token_id = 3;
    let (backbone, tuned, report) = checkpoint.backbone_and_adapter(&config, &Device::Cpu).unwrap();
    assert!(report.complete(), "{report}");
    assert!(
        tuned.adapter_config.gated_query
            && tuned.adapter_config.context_slots == 0
            && tuned.adapter_config.rank == 4
    );
    assert!(tuned.bind(&backbone.model().unwrap(), None).is_ok());
}

#[test]
fn released_checkpoint() {
    let expected = read("retrieval_image.weights.safetensors");
    for name in ["retrieval_image.pth", "retrieval_image.legacy.pth"] {
        let checkpoint = Checkpoint::open(&folder().join(name)).unwrap();
        let config = checkpoint.infer_config(8).unwrap();
        let alone = checkpoint.backbone(&config, &Device::Cpu).unwrap_err().to_string();
        assert!(alone.contains("CP_C") && alone.contains("with its adapter"), "{alone}");

        let (backbone, tuned, mut report) =
            checkpoint.backbone_and_adapter(&config, &Device::Cpu).unwrap();
        assert_eq!(backbone.fingerprint().unwrap(), {
            let wanted = aurora_layers::Blip::param_shapes(&config).into_iter();
            let tensors = wanted.map(|(name, _)| (name.clone(), expected[&name].clone())).collect();
            aurora_layers::tensors::fingerprint(&tensors).unwrap()
        });
        let adapter_config = &tuned.adapter_config;
        assert_eq!(
            (adapter_config.kind, adapter_config.variant),
            (AdapterKind::Tucker, Variant::Reference)
        );
        assert_eq!((adapter_config.rank, adapter_config.gated_query), (4, true));
        let adapter = expected
            .iter()
            .filter(|(name, _)| aurora_layers::reference_checkpoint::is_adapter(name))
            .map(|(name, tensor)| (name.clone(), tensor.clone()));
        let adapter: BTreeMap<_, _> = adapter.collect();
        for (name, tensor) in aurora_layers::reference_checkpoint::translate(&adapter).unwrap() {
            assert_close(&name, &tuned.tensors[&name], &tensor, 0.0);
        }
        assert!(tuned.bind(&backbone.model().unwrap(), None).is_ok());

        // Every tensor is accounted for, and training state kept beside the model can be read.
        assert_eq!(report.loaded, backbone.tensors.len() + adapter.len());
        let beside = |ignored: &(String, &str)| ignored.1 == "beside the weights";
        report.ignored.retain(|ignored| !beside(ignored));
        assert_eq!(report.loaded + report.ignored.len(), expected.len());
        let state = checkpoint.training_state(&Device::Cpu).unwrap();
        for (name, reason) in &report.ignored {
            assert_eq!(state.contains_key(name), *reason != "buffer", "{name}: {reason}");
        }
        assert!(state.contains_key("visual_encoder_m.blocks.1.attn.CP_attention"));
        for (name, tensor) in &state {
            assert_close(name, tensor, &expected[name], 0.0);
        }
    }
}
