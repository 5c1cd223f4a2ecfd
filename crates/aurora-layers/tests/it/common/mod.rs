//! Checkpoint files assembled by hand, and a model small enough for them.

use aurora_layers::{Architecture, BlipConfig, TextConfig, VisionConfig};
use std::io::Write as _;
use std::path::Path;

/// A hand-assembled pickle.
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        let length = (text.len() as u32).to_le_bytes();
        self.op(b"X").op(&length).op(text.as_bytes())
    }

    pub fn global(self, name: &str) -> Self {
        self.op(b"c").op(name.as_bytes()).op(b"\n")
    }

    /// Integer of eight bytes.
    pub fn int(self, number: i64) -> Self {
        self.op(b"\x8a\x08").op(&number.to_le_bytes())
    }

    pub fn sizes(self, sizes: &[i64]) -> Self {
        sizes.iter().fold(self.op(b"("), |writer, &size| writer.int(size)).op(b"t")
    }

    /// A tensor over a storage of `count` numbers.
    pub fn tensor(self, storage: (&str, &str, i64), shape: &[i64], stride: &[i64]) -> Self {
        let (kind, key, count) = storage;
        self.global("torch._utils\n_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global(&format!("torch\n{kind}"))
            .text(key)
            .text("cpu")
            .int(count)
            .op(b"tQK\x00")
            .sizes(shape)
            .sizes(stride)
            .op(b"\x89")
            .global("collections\nOrderedDict")
            .op(b")RtR")
    }
}

/// Row-major strides of a shape.
pub fn strides(shape: &[i64]) -> Vec<i64> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// Pickle of a state dict of floats, each tensor in a storage of its own: "0", "1", ...
pub fn state_dict(tensors: &[(String, Vec<i64>)]) -> Vec<u8> {
    let mut writer = Writer::new().op(b"}");
    for (place, (name, shape)) in tensors.iter().enumerate() {
        let storage = ("FloatStorage", &*place.to_string(), shape.iter().product());
        writer = writer.text(name).tensor(storage, shape, &strides(shape)).op(b"s");
    }
    writer.op(b".").0
}

fn long_one(value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 2, 0x8a, value.len() as u8];
    out.extend_from_slice(value);
    out.push(b'.');
    out
}

/// Legacy `.pth` around a description and one storage, "0".
pub fn legacy(described: &[u8], numbers: &[f32]) -> Vec<u8> {
    let mut file = long_one(&[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);
    file.extend(long_one(&1001u16.to_le_bytes()));
    file.extend(Writer::new().op(b"}").text("little_endian").op(b"\x88s.").0);
    file.extend(described);
    file.extend(Writer::new().op(b"]").text("0").op(b"a.").0);
    file.extend((numbers.len() as u64).to_le_bytes());
    file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    file
}

/// Zip `.pth` with these members.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive.start_file(*name, stored()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

pub fn stored() -> zip::write::SimpleFileOptions {
    zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored)
}

/// Safetensors file from the text of its header and its numbers.
pub fn safetensors(header: &str, numbers: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), numbers].concat()
}

/// Asserts that the message has every one of these parts.
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

/// Writes a file and returns its path.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Model of two towers of different widths.
pub fn tiny() -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 16,
            patch_size: 8,
            hidden_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 48,
            layer_norm_eps: 1e-5,
        },
        text: TextConfig {
            vocab_size: 20,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 12,
            layer_norm_eps: 1e-12,
            enc_token_id: 19,
        },
        projection_dim: 8,
        architecture: Architecture::Retrieval,
    }
}
