//! Malformed and hostile checkpoints: an error that names file and tensor and the way out.

use crate::common::{archive, file, legacy, safetensors, says, state_dict, tiny};
use aurora_layers::checkpoint::{Checkpoint, HEAD_WIDTH};
use aurora_layers::{Backbone, BlipConfig, tensors};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use std::path::Path;

fn refused(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

fn two_tensors(folder: &Path) -> Vec<u8> {
    let tensor = |size: usize| Tensor::zeros(size, DType::F32, &Device::Cpu).unwrap();
    let path = folder.join("whole.safetensors");
    tensors::write(&[("a".to_owned(), tensor(3)), ("b".to_owned(), tensor(2))].into(), &path)
        .unwrap();
    std::fs::read(path).unwrap()
}

fn zipped() -> Vec<u8> {
    let described = state_dict(&[("w".to_owned(), vec![2, 2]), ("v".to_owned(), vec![3])]);
    let numbers = [0u8; 16];
    archive(&[
        ("some/data.pkl", &described),
        ("some/byteorder", b"little"),
        ("some/data/0", &numbers),
        ("some/data/1", &numbers[..12]),
        ("some/version", b"3\n"),
    ])
}

#[test]
fn every_cut_of_every_kind_names_the_file_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let described = state_dict(&[("w".to_owned(), vec![2, 2])]);
    for (name, whole) in [
        ("some.safetensors", two_tensors(folder.path())),
        ("some.pth", zipped()),
        ("old.pth", legacy(&described, &[1.0; 4])),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, &whole).unwrap();
        Checkpoint::open(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = refused(&path);
            says(&message, &[name, "fetch"]);
        }
    }
}

#[test]
fn other_files_empty_ones_and_folders_without_weights() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n";
    for (name, bytes, parts) in [
        ("model.safetensors", &pointer[..], &["no file of weights", "Git LFS"][..]),
        ("weights.bin", b"nothing that anyone knows", &["no file of weights", "fetch"]),
        ("none.pth", b"", &["is empty", "fetch"]),
        ("short.pth", b"PK", &["2 bytes", "fetch"]),
    ] {
        let message = refused(&file(folder.path(), name, bytes));
        says(&message, &[&[name], parts].concat());
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    says(&refused(folder.path()), &["neither model.safetensors nor", "give the folder"]);
    says(&refused(&folder.path().join("absent.pth")), &["absent.pth", "read"]);
}

#[test]
fn headers_of_safetensors_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |name: &str, shape: &str, start: usize, end: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let overlapping = format!("{{{},{}}}", entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12));
    let hole = format!("{{{},{}}}", entry("a", "[1]", 0, 4), entry("b", "[1]", 8, 12));
    let larger = format!("{{{}}}", entry("a", "[9]", 0, 8));
    let overflow = format!("{{{}}}", entry("a", "[18446744073709551615,4]", 0, 8));
    let beyond = format!("{{{}}}", entry("a", "[4]", 0, 16));
    let beside = format!("{{{}}}", entry("a", "[1]", 0, 4));
    let nested = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let mut longer = safetensors("{}", &[]);
    longer[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for (bytes, parts) in [
        (safetensors(&overlapping, &[0; 12]), &["tensor `b`", "overlap or hole"][..]),
        (safetensors(&hole, &[0; 12]), &["tensor `b`", "overlap or hole"]),
        (safetensors(&larger, &[0; 8]), &["header is broken"]),
        (safetensors(&overflow, &[0; 8]), &["header is broken"]),
        (safetensors(&beyond, &[0; 8]), &["tells of 16 bytes", "there are 8"]),
        (safetensors(&beside, &[0; 8]), &["tells of 4 bytes", "there are 8"]),
        (safetensors(&nested, &[]), &["header is broken"]),
        (longer, &["should have 18446744073709551615 bytes", "the file has 10"]),
    ] {
        let message = refused(&file(folder.path(), "some.safetensors", &bytes));
        says(&message, &[&["some.safetensors", "fetch or write it again"], parts].concat());
    }
}

/// Folder of two shards, "a" in the first and "b" in the second, under this index.
fn sharded(folder: &Path, index: &str) {
    let one = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        safetensors(&header, &[0; 4])
    };
    file(folder, "1.safetensors", &one("a"));
    file(folder, "2.safetensors", &one("b"));
    file(folder, "model.safetensors.index.json", index.as_bytes());
}

#[test]
fn indices_that_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    sharded(path, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#);
    assert_eq!(Checkpoint::open(path).unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
    for (index, parts) in [
        (r#"{"weight_map":{"a":"3.safetensors"}}"#, &["3.safetensors, which is not there"][..]),
        (
            r#"{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}"#,
            &["b is in 1.safetensors, and it is not"],
        ),
        (r#"{"weight_map":{"a":"../1.safetensors"}}"#, &["../1.safetensors", "beside their index"]),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, &["/etc/passwd", "beside their index"]),
        (r#"{"weight_map":{"a":"x/1.safetensors"}}"#, &["beside their index"]),
        (r#"{"weight_map":{"a":".."}}"#, &["beside their index"]),
        (r#"{"weight_map":{"a":""}}"#, &["beside their index"]),
        (r#"{"weight_map":{}}"#, &["names no shard"]),
        (r#"{"weights":{}}"#, &["not an index of shards", "weight_map"]),
        ("{", &["not an index of shards"]),
    ] {
        sharded(path, index);
        says(&refused(path), &[&["model.safetensors.index.json"], parts].concat());
    }
    sharded(path, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#);
    std::fs::copy(path.join("1.safetensors"), path.join("2.safetensors")).unwrap();
    says(&refused(path), &["2.safetensors", "a is in", "1.safetensors too"]);
}

#[test]
fn one_tensor_under_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["visual_encoder.cls_token", "vision_model.embeddings.class_embedding"];
    let described = state_dict(&names.map(|name| (name.to_owned(), vec![1])));
    let path = file(
        folder.path(),
        "some.pth",
        &archive(&[("s/data.pkl", &described), ("s/data/0", &[0; 4]), ("s/data/1", &[0; 4])]),
    );
    says(&refused(&path), &["some.pth", names[0], names[1], "keep one"]);
}

#[test]
fn archives_that_torch_does_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let described = state_dict(&[("w".to_owned(), vec![1])]);
    let (whole, two) = (("a/data.pkl", described.as_slice()), ("b/data.pkl", described.as_slice()));
    let numbers = ("a/data/0", &[0u8; 4][..]);
    let missing_numbers = archive(&[whole]);
    let short_numbers = archive(&[whole, ("a/data/0", &[0; 3])]);
    let big = archive(&[whole, ("a/byteorder", b"big"), numbers]);
    for (bytes, parts) in [
        (archive(&[("a/other", b"x")]), &["no data.pkl"][..]),
        (archive(&[whole, two, numbers]), &["several"]),
        (missing_numbers, &["w:", "storage 0", "not in the file", "fetch"]),
        (short_numbers, &["w: [1]", "0 numbers of storage 0"]),
        (big, &["big-endian", "save it again"]),
    ] {
        says(&refused(&file(folder.path(), "some.pth", &bytes)), &[&["some.pth"], parts].concat());
    }
}

/// Folder in the layout of transformers, with changed tensors.
fn folder_with(change: impl FnOnce(&mut tensors::Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut backbone = Backbone::random(tiny(), 1, &Device::Cpu).unwrap();
    change(&mut backbone.tensors);
    tensors::write(&backbone.tensors, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn not_loaded(folder: &Path, config: &BlipConfig) -> String {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.backbone(config, &Device::Cpu).unwrap_err().to_string()
}

#[test]
fn weights_that_are_no_numbers_are_named_with_their_place() {
    let name = "text_encoder.encoder.layer.1.output.dense.weight";
    for (value, stored, shown) in [
        (f64::NAN, DType::F32, "NaN"),
        (f64::INFINITY, DType::F32, "inf"),
        (f64::NEG_INFINITY, DType::F16, "-inf"),
        (1e300, DType::F64, "inf"),
    ] {
        let folder = folder_with(|tensors| {
            let mut values = vec![0.5; 16 * 32];
            values[3 * 32 + 7] = value;
            let tensor = Tensor::from_vec(values, (16, 32), &Device::Cpu).unwrap();
            tensors.insert(name.to_owned(), tensor.to_dtype(stored).unwrap());
        });
        let message = not_loaded(folder.path(), &tiny());
        says(&message, &[&format!("{name}[3, 7] = {shown}"), "model.safetensors", "fetch"]);
    }
}

#[test]
fn whole_numbers_where_floats_are_wanted() {
    let folder = folder_with(|tensors| {
        let tensor = Tensor::zeros(8, DType::I64, &Device::Cpu).unwrap();
        tensors.insert("vision_proj.bias".to_owned(), tensor);
    });
    says(&not_loaded(folder.path(), &tiny()), &["vision_proj.bias is I64, not a float"]);
}

type Edit = fn(&mut BlipConfig);

#[test]
fn configurations_that_contradict_the_weights() {
    let folder = folder_with(|_| {});
    let cases: [(Edit, &[&str]); 9] = [
        (
            |c| c.text.num_hidden_layers = 3,
            &["missing: text_encoder.encoder.layer.2.", "and 14 more"],
        ),
        (
            |c| c.vision.num_hidden_layers = 1,
            &["unexpected: visual_encoder.blocks.1.attn.proj.bias"],
        ),
        (|c| c.text.vocab_size = 21, &["word_embeddings.weight is [20, 16], not [21, 16]"]),
        (
            |c| c.text.max_position_embeddings = 13,
            &["position_embeddings.weight is [12, 16], not [13, 16]"],
        ),
        (
            |c| c.vision.hidden_size = 12,
            &["crossattention.self.key.weight is [16, 24], not [16, 12]"],
        ),
        (|c| c.vision.intermediate_size = 96, &["blocks.0.mlp.fc1.bias is [48], not [96]"]),
        (|c| c.projection_dim = 4, &["vision_proj.weight is [8, 24], not [4, 24]"]),
        (
            |c| c.text.num_attention_heads = 3,
            &["text.num_attention_heads = 3", "must divide text.hidden_size = 16"],
        ),
        (|c| c.text.num_hidden_layers = usize::MAX, &["text.num_hidden_layers = ", "at most"]),
    ];
    for (change, parts) in cases {
        let mut config = tiny();
        change(&mut config);
        let message = not_loaded(folder.path(), &config);
        says(&message, parts);
        assert!(message.len() < 4000, "{message}");
    }
    let (path, huge) = (Path::new("config.json"), r#"{"vision_config":{"hidden_size":1e18}}"#);
    says(&BlipConfig::from_json(huge, path).unwrap_err().to_string(), &["config.json"]);
    let huge = r#"{"vision_config":{"hidden_size":1000000000000},"text_config":{"encoder_hidden_size":1000000000000}}"#;
    says(&BlipConfig::from_json(huge, path).unwrap_err().to_string(), &["vision.hidden_size"]);
}

#[test]
fn a_half_and_a_bf16_checkpoint_are_f32_in_memory() {
    for dtype in [DType::F16, DType::BF16] {
        let folder = folder_with(|tensors| {
            for tensor in tensors.values_mut() {
                *tensor = tensor.to_dtype(dtype).unwrap();
            }
        });
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let (backbone, report) = checkpoint.backbone(&tiny(), &Device::Cpu).unwrap();
        assert_eq!(report.loaded, backbone.tensors.len());
        assert!(backbone.tensors.values().all(|tensor| tensor.dtype() == DType::F32));
    }
}

#[test]
fn sizes_are_read_from_shapes() {
    let folder = folder_with(|_| {});
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let config = checkpoint.infer_config(8).unwrap();
    let mut wanted = tiny();
    wanted.vision.layer_norm_eps = 1e-6;
    assert_eq!(config, wanted);
    let message = checkpoint.infer_config(HEAD_WIDTH).unwrap_err().to_string();
    says(&message, &["head_width = 64", "vision tower, 24"]);
    for name in [
        "visual_encoder.patch_embed.proj.weight",
        "visual_encoder.pos_embed",
        "visual_encoder.blocks.0.mlp.fc1.weight",
        "text_encoder.embeddings.word_embeddings.weight",
        "text_encoder.embeddings.position_embeddings.weight",
        "text_encoder.encoder.layer.0.intermediate.dense.weight",
        "vision_proj.weight",
    ] {
        let flat = folder_with(|tensors| {
            drop(tensors.insert(name.into(), Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap()));
        });
        let gone = folder_with(|tensors| drop(tensors.remove(name)));
        for (folder, part) in [(flat, "is [7]"), (gone, "is missing")] {
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            let message = checkpoint.infer_config(8).unwrap_err().to_string();
            says(&message, &[name, part, &folder.path().display().to_string()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_changed_byte_of_any_kind_of_file_is_survived(
        kind in 0usize..3, place in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = match kind {
            0 => two_tensors(folder.path()),
            1 => zipped(),
            _ => legacy(&state_dict(&[("w".to_owned(), vec![2, 2])]), &[1.0; 4]),
        };
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(checkpoint) = Checkpoint::from_bytes(bytes, Path::new("some")) {
            for name in checkpoint.names() {
                let read = checkpoint.tensor(name, &Device::Cpu);
                prop_assert!(read.is_ok() || checkpoint.tensor_info(name).unwrap().1.is_none());
            }
        }
    }

    #[test]
    fn any_index_is_survived(index in "\\PC{0,60}|\\{\"weight_map\":\\{\"[ab]\":\"[12./]{0,4}(safetensors)?\"\\}\\}") {
        let folder = tempfile::tempdir().unwrap();
        sharded(folder.path(), &index);
        let _ = Checkpoint::open(folder.path());
    }
}
