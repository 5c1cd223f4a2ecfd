//! Peak memory of a step with gradient checkpointing, measured in processes of their own: neither the activations nor
//! the merged weights of all blocks exist at once.

#![cfg(target_os = "linux")]

use aurora_kernels::DeltaMode;
use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, BlipConfig,
    GradientCheckpointing, TextConfig, Variant, VisionConfig,
};
use candle_core::Device;
use std::process::Command;

/// Environment of the child process: the case, whether with gradient checkpointing, and the file for the peak.
const CASE: &str = "AURORA_TEST_CASE";
const SEGMENTS: &str = "AURORA_TEST_SEGMENTS";
const REPORT: &str = "AURORA_TEST_REPORT";

/// Case: width, side of an image in patches, images.
///
/// Many tokens in a narrow model: 18 * 64 values for each of 2,056 tokens are 9 MiB per block. Few tokens in a wide
/// one: the merged weights of a block are 12 MiB.
const CASES: [(&str, usize, usize, usize); 2] =
    [("activations", 64, 16, 8), ("merged weights", 512, 2, 1)];
const BLOCKS: usize = 8;

fn config(width: usize, side: usize) -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 4 * side,
            patch_size: 4,
            hidden_size: width,
            num_hidden_layers: BLOCKS,
            num_attention_heads: 4,
            intermediate_size: 4 * width,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 10,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            intermediate_size: 8,
            max_position_embeddings: 4,
            layer_norm_eps: 1e-12,
            enc_token_id: 9,
        },
        projection_dim: 4,
        architecture: Architecture::Retrieval,
    }
}

/// Line of `/proc/self/status`, in bytes.
fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "the other half of the test below, which starts it in a process of its own"]
fn step_in_a_process_of_its_own() {
    let Some(case) = std::env::var_os(CASE) else { return };
    let &(_, width, side, images) = CASES.iter().find(|(name, ..)| *case == **name).unwrap();
    let backbone = Backbone::random(config(width, side), 1, &Device::Cpu).unwrap();
    let blip = backbone.model().unwrap();
    let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 2);
    let tuned = AdaptedParams::init(adapter_config, &backbone, 1, &Device::Cpu).unwrap();
    let (tuned, variables) = tuned.into_variables().unwrap();
    let mut bound = tuned.bind(&blip, None).unwrap();
    bound.mode = DeltaMode::Reconstruct;
    if std::env::var_os(SEGMENTS).is_some() {
        bound.gradient_checkpointing = GradientCheckpointing::Block;
    }
    let mut stream = Stream::new(1, "images", 0, 0);
    let images = stream.normal_tensor((images, 3, 4 * side, 4 * side), 1.0).unwrap();
    // The peak is counted from here on.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let states = blip.encode_image(&images, &bound).unwrap();
    let store = states.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert!(variables.iter().any(|(_, variable)| store.get(variable).is_some()));
    let took = status("VmHWM:").saturating_sub(before);
    std::fs::write(std::env::var_os(REPORT).unwrap(), took.to_string()).unwrap();
}

fn measure(case: &str, segments: bool) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "gradient_checkpoint_memory::step_in_a_process_of_its_own",
            "--ignored",
            "--test-threads=1",
        ])
        .env(CASE, case)
        .env(REPORT, &report)
        .stdout(std::process::Stdio::null());
    if segments {
        command.env(SEGMENTS, "1");
    }
    assert!(command.status().unwrap().success());
    std::fs::read_to_string(report).unwrap().parse().unwrap()
}

#[test]
fn a_step_takes_less_memory_with_segments() {
    for (case, ..) in CASES {
        let (plain, segments) = (measure(case, false), measure(case, true));
        assert!(plain > 60 << 20, "{case}: {plain} bytes are less than all blocks together");
        assert!(
            2 * segments < plain,
            "{case}: {segments} bytes with gradient checkpointing, {plain} without"
        );
    }
}
