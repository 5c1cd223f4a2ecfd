//! Peak memory of loading a checkpoint: that of the model and little more, no second copy of the weights.

#![cfg(target_os = "linux")]

use aurora_layers::checkpoint::Checkpoint;
use aurora_layers::{Architecture, Blip, BlipConfig, TextConfig, VisionConfig};
use candle_core::Device;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

/// Environment of the child process: the file to load, the file for the results, and the sizes.
const FILE: &str = "AURORA_TEST_CHECKPOINT";
const LAYERS: &str = "AURORA_TEST_LAYERS";
const REPORT: &str = "AURORA_TEST_REPORT";

/// BLIP-base at 384 pixels, or a part of it: 223,744,258 values with all 12 layers.
fn config(layers: usize) -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 384,
            patch_size: 16,
            hidden_size: 768,
            num_hidden_layers: layers,
            num_attention_heads: 12,
            intermediate_size: 3072,
            layer_norm_eps: 1e-5,
        },
        text: TextConfig {
            // Vocabulary in proportion to the layers: at a small scale one embedding would be most of the file.
            vocab_size: 30_524 * layers / 12,
            hidden_size: 768,
            num_hidden_layers: layers,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            enc_token_id: 2,
        },
        projection_dim: 256,
        architecture: Architecture::Retrieval,
    }
}

fn numbers(out: &mut impl Write, count: usize) {
    let piece: Vec<u8> = (0..4096).flat_map(|n| (n as f32 * 1e-4).to_le_bytes()).collect();
    let mut left = 4 * count;
    while left > 0 {
        let count = left.min(piece.len());
        out.write_all(&piece[..count]).unwrap();
        left -= count;
    }
}

/// Names and shapes of a file, and its number of values.
fn wanted(layers: usize) -> (Vec<(String, Vec<i64>)>, usize) {
    let wanted = Blip::param_shapes(&config(layers));
    let count = wanted.iter().map(|(_, shape)| shape.elem_count()).sum();
    let sizes = |shape: &candle_core::Shape| shape.dims().iter().map(|&d| d as i64).collect();
    (wanted.iter().map(|(name, shape)| (name.clone(), sizes(shape))).collect(), count)
}

fn write_safetensors(path: &Path, layers: usize) {
    let (tensors, _) = wanted(layers);
    let (mut entries, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in &tensors {
        let start = end;
        end += 4 * shape.iter().product::<i64>();
        let entry =
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        entries.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&entries).unwrap();
    let mut out = BufWriter::new(File::create(path).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(&header).unwrap();
    numbers(&mut out, end as usize / 4);
}

fn write_pth(path: &Path, layers: usize) {
    let (tensors, _) = wanted(layers);
    let mut out = zip::ZipWriter::new(BufWriter::new(File::create(path).unwrap()));
    out.start_file("base/data.pkl", crate::common::stored()).unwrap();
    out.write_all(&crate::common::state_dict(&tensors)).unwrap();
    for (place, (_, shape)) in tensors.iter().enumerate() {
        out.start_file(format!("base/data/{place}"), crate::common::stored()).unwrap();
        numbers(&mut out, shape.iter().product::<i64>() as usize);
    }
    out.finish().unwrap();
}

/// Peak resident memory of this process so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "the other half of the tests below, which start it in a process of its own"]
fn load_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let layers = std::env::var(LAYERS).unwrap().parse().unwrap();
    let before = peak();
    let checkpoint = Checkpoint::open(Path::new(&path)).unwrap();
    let (backbone, _) = checkpoint.backbone(&config(layers), &Device::Cpu).unwrap();
    let loaded = peak();
    backbone.fingerprint().unwrap();
    backbone.model().unwrap();
    let report = format!("{before} {loaded} {}", peak());
    std::fs::write(std::env::var_os(REPORT).unwrap(), report).unwrap();
}

/// Memory before, after loading, and after the fingerprint and the model; bytes of the file.
fn measure(write: fn(&Path, usize), layers: usize) -> ([u64; 3], u64) {
    let folder = tempfile::tempdir().unwrap();
    let (path, report) = (folder.path().join("weights"), folder.path().join("report"));
    write(&path, layers);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::load_in_a_process_of_its_own", "--ignored", "--test-threads=1"])
        .env(FILE, &path)
        .env(LAYERS, layers.to_string())
        .env(REPORT, &report)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(report).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    (numbers.try_into().unwrap(), path.metadata().unwrap().len())
}

#[test]
fn a_part_of_blip_takes_the_memory_of_its_file() {
    for write in [write_safetensors, write_pth] {
        let ([before, loaded, used], bytes) = measure(write, 1);
        let (grown, after) = (loaded - before, used - before);
        assert!(bytes > 70_000_000, "{bytes}");
        assert!(grown as f64 <= 1.15 * bytes as f64, "{grown} for a file of {bytes}");
        assert!(after as f64 <= 1.15 * bytes as f64, "{after} with a fingerprint, file {bytes}");
    }
}

#[test]
#[ignore = "writes 900 MB twice; run it with --ignored to see the numbers of BLIP-base"]
fn blip_base_takes_the_memory_of_its_file() {
    assert_eq!(wanted(12).1, 223_744_258);
    for (kind, write) in
        [("safetensors", write_safetensors as fn(&Path, usize)), ("pth", write_pth)]
    {
        let ([before, loaded, used], bytes) = measure(write, 12);
        let line = format!(
            "{kind}: file {bytes} bytes, peak resident memory {before} before, {loaded} loaded, {used} with fingerprint \
             and model: {:.3} of the file\n",
            used as f64 / bytes as f64
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(used as f64 <= 1.15 * bytes as f64, "{line}");
    }
}
