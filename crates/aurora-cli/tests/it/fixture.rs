//! Fixtures: a tiny backbone and tiny images, so that whole commands take a second.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aurora_layers::checkpoint::to_hugging_face;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, BlipConfig, Tensors,
    TextConfig, Variant, VisionConfig, save_adapter, tensors,
};
use candle_core::{DType, Device, Tensor};
use image::{ImageFormat, Rgb, RgbImage};

/// Runs the program; `args` are separated by spaces, and `{}` stands for the folder.
pub fn aurora(folder: &Path, args: &str) -> Output {
    let args = args.split_whitespace().map(|arg| arg.replace("{}", folder.to_str().unwrap()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_aurora"));
    command.args(args).current_dir(folder).env("COLUMNS", "100"); // the width of help
    command.output().unwrap()
}

/// Runs the program and expects it to refuse its input; returns the message.
pub fn refused(folder: &Path, args: &str) -> String {
    let output = aurora(folder, args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args}: {message}");
    assert!(message.lines().any(|line| line.starts_with("error: ")), "{args}: {message}");
    assert!(!message.contains("panicked"), "{args}: {message}");
    message
}

/// Runs the program and expects success; returns its standard output.
pub fn works(folder: &Path, args: &str) -> String {
    let output = aurora(folder, args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args}: {message}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sizes of a minimal backbone, with the embedded vocabulary.
pub fn sizes() -> BlipConfig {
    let vocab_size = aurora_data::embedded::VOCABULARY.lines().count();
    BlipConfig {
        vision: VisionConfig {
            image_size: 16,
            patch_size: 8,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            max_position_embeddings: 32,
            layer_norm_eps: 1e-12,
            enc_token_id: vocab_size as u32 - 1,
        },
        projection_dim: 8,
        architecture: Architecture::Retrieval,
    }
}

/// Writes a backbone folder of random weights.
pub fn backbone(folder: &Path, seed: u64) -> Backbone {
    let backbone = Backbone::random(sizes(), seed, &Device::Cpu).unwrap();
    backbone.write(folder, DType::F32).unwrap();
    std::fs::write(folder.join("vocab.txt"), aurora_data::embedded::VOCABULARY).unwrap();
    // An adapter's fingerprint is of the weights as read back.
    Backbone::read(folder, &Device::Cpu).unwrap()
}

/// Writes the weights in the format of Hugging Face's transformers, in two shards, with a tensor that only training
/// needs.
pub fn hugging_face(folder: &Path, backbone: &Backbone) {
    std::fs::create_dir_all(folder).unwrap();
    let (vision, text) = (&backbone.config.vision, &backbone.config.text);
    let config = serde_json::json!({
        "architectures": ["BlipForImageTextRetrieval"],
        "model_type": "blip",
        "image_text_hidden_size": backbone.config.projection_dim,
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": vision.layer_norm_eps,
        },
        "text_config": {
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "encoder_hidden_size": vision.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "max_position_embeddings": text.max_position_embeddings,
        },
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let temperature = Tensor::new(2.6592f32, &Device::Cpu).unwrap();
    let named = backbone.tensors.iter().map(|(name, tensor)| (to_hugging_face(name), tensor));
    let (first, mut second): (Tensors, Tensors) = named
        .map(|(name, tensor)| (name, tensor.clone()))
        .partition(|(name, _)| name.starts_with("vision_model"));
    second.insert("logit_scale".to_owned(), temperature);
    let mut map = serde_json::Map::new();
    for (number, shard) in [(1, &first), (2, &second)] {
        let file = format!("model-0000{number}-of-00002.safetensors");
        tensors::write(shard, &folder.join(&file)).unwrap();
        map.extend(shard.keys().map(|name| (name.clone(), file.clone().into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(folder.join("vocab.txt"), aurora_data::embedded::VOCABULARY).unwrap();
}

/// Adapter at its initialization.
pub fn adapter_of(kind: AdapterKind, backbone: &Backbone) -> AdaptedParams {
    let adapter_config = AdapterConfig::new(kind, Variant::Paper, 4);
    AdaptedParams::init(adapter_config, backbone, 1, &Device::Cpu).unwrap()
}

/// Writes an adapter folder at its initialization.
pub fn adapter(folder: &Path, backbone: &Backbone) {
    let tuned = adapter_of(AdapterKind::Cp, backbone);
    save_adapter(folder, &tuned, backbone, "tiny", "card").unwrap();
}

/// A PNG in one color with a square in another.
pub fn png(index: usize) -> Vec<u8> {
    let color = |shift: usize| Rgb([0, 1, 2].map(|c| (index * 37 + shift * 91 + c * 53) as u8));
    let image = RgbImage::from_fn(24, 20, |x, y| color(usize::from(x > 6 && y > 5)));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

const WORDS: [&str; 8] = ["cat", "dog", "red apple", "car", "tree", "house", "star", "fish"];

/// Writes a folder of eight images with captions beside them.
pub fn images(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    for (index, words) in WORDS.iter().enumerate() {
        std::fs::write(folder.join(format!("p{index}.png")), png(index)).unwrap();
        std::fs::write(folder.join(format!("p{index}.txt")), words).unwrap();
    }
    folder.to_owned()
}

/// Settings of a run on a tiny backbone in `backbone/` and the images of `data`, two steps long.
pub fn tiny_run(data: &str) -> String {
    format!(
        "--set model.backbone={{}}/backbone --set data.train={data} --set data.validation={data} \
         --set data.test={data} --set data.batch_size=4 --set schedule.steps=2 --set schedule.warmup_steps=0 \
         --set schedule.eval_every=1 --set adapter.rank=4 --set retrieval.queue_size=8"
    )
}
