//! Trained tensors of each kind, and configurations that are refused.

use super::*;
use crate::adapter::tests::{blip_base, vision_large};
use crate::config::tests::tiny;

/// Number of values a kind trains, heads excluded unless they are the kind's own.
fn trained(kind: AdapterKind, config: &BlipConfig) -> usize {
    let adapter_config = AdapterConfig {
        modules_to_save: Vec::new(),
        ..AdapterConfig::new(kind, Variant::Paper, 1)
    };
    adapter_config.param_shapes(config).unwrap().iter().map(|(_, shape)| shape.elem_count()).sum()
}

#[test]
fn names_are_those_of_the_files() {
    for kind in AdapterKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}

#[test]
fn norms_and_biases_of_blip_base() {
    let config = BlipConfig { projection_dim: 256, ..blip_base() };
    assert_eq!(trained(AdapterKind::Norms, &config), 95_232);
    assert_eq!(trained(AdapterKind::Biases, &config), 251_650);
}

#[test]
fn norms_and_biases_of_towers_of_different_width() {
    let config = BlipConfig { projection_dim: 256, ..vision_large() };
    let norms = (2 * 24 + 1) * 2 * 1024 + (3 * 12 + 1) * 2 * 768;
    assert_eq!(trained(AdapterKind::Norms, &config), norms);
    let biases = (24 * 11 + 2) * 1024 + (12 * 16 + 1) * 768 + 2 * 256 + 2;
    assert_eq!(trained(AdapterKind::Biases, &config), biases);
}

/// 360 slices in 168 sites, with inputs and outputs of width 1024 and 768.
#[test]
fn factors_of_towers_of_different_width() {
    let config = vision_large();
    let counts = |kind, rank| -> usize {
        let adapter_config = AdapterConfig::new(kind, Variant::Paper, rank);
        let specs = adapter_config
            .adapter()
            .unwrap()
            .param_specs(&adapter_config.sites(&config).unwrap())
            .unwrap();
        specs.iter().map(|spec| spec.shape.elem_count()).sum()
    };
    let (widths, outputs) = (2 * (1024 + 768), 24 * 9 * 1024 + 12 * 6 * 768);
    let inputs = 24 * 7 * 1024 + 12 * (4 * 768 + 2 * 1024);
    assert_eq!(counts(AdapterKind::Cp, 64), 64 * (widths + 360 + 1));
    assert_eq!(counts(AdapterKind::Tucker, 32), 32 * (widths + 360) + 32 * 32 * 32);
    assert_eq!(counts(AdapterKind::TensorTrain, 16), 16 * widths + 360 * 16 * 16);
    assert_eq!(counts(AdapterKind::Lora, 8), 8 * (inputs + outputs));
    let shared = 256 * (4096 + 4096);
    assert_eq!(counts(AdapterKind::Vera, 256), shared + 168 * 256 + outputs);
}

#[test]
fn targets_narrow_what_is_trained_of_the_backbone() {
    let mut adapter_config = AdapterConfig::new(AdapterKind::Norms, Variant::Paper, 1);
    adapter_config.modules_to_save.clear();
    adapter_config.targets.target_modules = vec!["norm1".into()];
    let names = adapter_config.param_shapes(&tiny()).unwrap().into_iter().map(|(name, _)| name);
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["0.norm1.weight", "0.norm1.bias", "1.norm1.weight", "1.norm1.bias"]
            .map(|name| format!("visual_encoder.blocks.{name}"))
    );
    adapter_config.targets.target_modules = vec!["attn.qkv".into()];
    let message = adapter_config.param_shapes(&tiny()).unwrap_err().to_string();
    assert!(message.contains("targets.target_modules = attn.qkv: matches nothing"), "{message}");
    assert!(message.contains("visual_encoder.blocks.N.norm1"), "{message}");
    adapter_config.kind = AdapterKind::Heads;
    let message = adapter_config.param_shapes(&tiny()).unwrap_err().to_string();
    assert!(message.contains("kind = heads: has no targets"), "{message}");
}

#[test]
fn modules_of_the_backbone_are_saved_by_path() {
    let mut adapter_config = AdapterConfig::new(AdapterKind::Heads, Variant::Paper, 1);
    assert!(adapter_config.is_heads_alone());
    adapter_config.modules_to_save = vec!["visual_encoder.norm".into(), "itm_head".into()];
    let names = adapter_config.param_shapes(&tiny()).unwrap().into_iter().map(|(name, _)| name);
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "visual_encoder.norm.weight",
            "visual_encoder.norm.bias",
            "itm_head.weight",
            "itm_head.bias"
        ]
    );
    assert!(!adapter_config.is_heads_alone());
    adapter_config.modules_to_save = vec!["visual_encoder.norms".into()];
    let message = adapter_config.param_shapes(&tiny()).unwrap_err().to_string();
    for part in ["modules_to_save = visual_encoder.norms", "visual_encoder.norm, ", "itm_head"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn pissa_is_an_initialization_of_lora() {
    let mut adapter_config = AdapterConfig::new(AdapterKind::Dora, Variant::Paper, 2);
    adapter_config.init = LoraInit::Pissa;
    let message = adapter_config.param_shapes(&tiny()).unwrap_err().to_string();
    assert!(
        message.contains("init = pissa: is an initialization of lora, not of dora"),
        "{message}"
    );
}

/// Every kind on a question answering model: its decoder has sites of its own, and it has no heads.
#[test]
fn every_kind_starts_on_a_decoder() {
    let config = crate::config::tests::tiny_with(crate::Architecture::QuestionAnswering);
    let device = &candle_core::Device::Cpu;
    let backbone = crate::Backbone::random(config, 1, device).unwrap();
    let frozen = std::sync::Arc::new(backbone.model().unwrap());
    for kind in AdapterKind::ALL {
        let adapter_config = AdapterConfig::new(kind, Variant::Paper, 2);
        let tuned = crate::AdaptedParams::init(adapter_config, &backbone, 1, device).unwrap();
        let decodes = tuned.tensors.keys().any(|name| name.contains("decoder"));
        assert_eq!(decodes, kind != AdapterKind::Heads, "{kind:?}");
        let blip = tuned.model(&frozen).unwrap();
        let bound = tuned.bind(&blip, None).unwrap();
        assert_eq!(bound.parallel.len(), if kind == AdapterKind::Bottleneck { 6 } else { 0 });
    }
}
