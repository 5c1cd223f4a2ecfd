//! Merged weights compute what the adapted model computes, and unmerge to the byte.

use crate::small::{answering, answers, bits, config, every_spec, moved, outputs, relative};
use aurora_layers::merge::{Merged, RESIDUAL_ADAPTER, merge};
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Backbone, Tower, Variant, load_adapter,
};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

fn backbone() -> Backbone {
    Backbone::random(config(), 1, &Device::Cpu).unwrap()
}

fn mergeable() -> impl Iterator<Item = AdapterConfig> {
    every_spec().into_iter().filter(|adapter_config| adapter_config.kind != AdapterKind::Bottleneck)
}

/// Image, text and fusion outputs of the adapted model.
fn adapted(backbone: &Backbone, tuned: &AdaptedParams) -> Vec<Tensor> {
    let blip = tuned.model(&Arc::new(backbone.model().unwrap())).unwrap();
    outputs(&blip, &tuned.bind(&blip, None).unwrap())
}

/// Outputs of the merged model with its residual adapter.
fn merged_outputs(backbone: &Backbone, residual: &AdaptedParams) -> Vec<Tensor> {
    let blip = backbone.model().unwrap();
    outputs(&blip, &residual.bind(&blip, None).unwrap())
}

fn assert_same(merged: &Merged, wanted: &[Tensor], what: &str) {
    for (found, wanted) in merged_outputs(&merged.backbone, &merged.residual).iter().zip(wanted) {
        let off = relative(found, wanted);
        assert!(off < 1e-5, "{what}: {off}");
    }
}

#[test]
fn merged_equals_adapted() {
    let backbone = backbone();
    let bare =
        outputs(&backbone.model().unwrap(), &backbone.model().unwrap().bind_frozen().unwrap());
    for adapter_config in mergeable() {
        let what = format!("{:?} {:?}", adapter_config.kind, adapter_config.init);
        let tuned = moved(&backbone, adapter_config, 0.1);
        let wanted = adapted(&backbone, &tuned);
        assert!(relative(&wanted[2], &bare[2]) > 1e-3, "{what} does something");
        assert_same(&merge(&backbone, &tuned).unwrap(), &wanted, &what);
    }
}

#[test]
fn a_merged_model_answers_as_the_adapted_one() {
    let backbone = Backbone::random(answering(), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    for adapter_config in mergeable() {
        let what = format!("{:?} {:?}", adapter_config.kind, adapter_config.init);
        let tuned = moved(&backbone, adapter_config, 0.1);
        let blip = tuned.model(&frozen).unwrap();
        let wanted = answers(&blip, &tuned.bind(&blip, None).unwrap());
        let merged = merge(&backbone, &tuned).unwrap();
        let blip = merged.backbone.model().unwrap();
        let bound = merged.residual.bind(&blip, None).unwrap();
        for (found, wanted) in answers(&blip, &bound).iter().zip(&wanted) {
            let off = relative(found, wanted);
            assert!(off < 1e-5, "{what}: {off}");
        }
    }
}

#[test]
fn variant_released_keeps_its_gates_beside() {
    let backbone = backbone();
    let adapter_config = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, 4);
    let tuned = moved(&backbone, adapter_config, 0.1);
    let merged = merge(&backbone, &tuned).unwrap();
    assert!(merged.has_residual());
    assert!(
        merged
            .residual
            .tensors
            .keys()
            .all(|name| name.contains("aurora_scale_") || name.contains("aurora_shift_"))
    );
    assert_same(&merged, &adapted(&backbone, &tuned), "reference");
}

#[test]
fn targets_and_further_modules_are_honored() {
    let backbone = backbone();
    let mut adapter_config = AdapterConfig::new(AdapterKind::Dora, Variant::Paper, 4);
    adapter_config.targets.towers = vec![Tower::Vision];
    adapter_config.targets.target_modules = vec!["attn.qkv".into()];
    adapter_config.modules_to_save = vec!["visual_encoder.norm".into(), "itm_head".into()];
    let tuned = moved(&backbone, adapter_config, 0.1);
    let merged = merge(&backbone, &tuned).unwrap();
    assert_eq!(
        merged.replaced().collect::<Vec<_>>(),
        [
            "itm_head.bias",
            "itm_head.weight",
            "visual_encoder.blocks.0.attn.qkv.weight",
            "visual_encoder.blocks.1.attn.qkv.weight",
            "visual_encoder.norm.bias",
            "visual_encoder.norm.weight",
        ]
    );
    assert_same(&merged, &adapted(&backbone, &tuned), "dora on qkv");
}

#[test]
fn unmerged_is_the_original_to_the_byte() {
    let backbone = backbone();
    for adapter_config in mergeable() {
        let kind = adapter_config.kind;
        let merged = merge(&backbone, &moved(&backbone, adapter_config, 0.1)).unwrap();
        let back = merged.unmerge().unwrap();
        assert_eq!(back.tensors.len(), backbone.tensors.len());
        for (name, tensor) in &backbone.tensors {
            assert_eq!(bits(&back.tensors[name]), bits(tensor), "{kind:?} {name}");
            // Tensors that merging does not change are shared.
            let kept = merged.backbone.tensors[name].id() == tensor.id();
            assert_eq!(
                kept,
                !merged.replaced().any(|replaced| replaced == name),
                "{kind:?} {name}"
            );
        }
    }
}

#[test]
fn weights_that_were_changed_after_merging_are_noticed() {
    let backbone = backbone();
    let adapter_config = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 4);
    let mut merged = merge(&backbone, &moved(&backbone, adapter_config, 0.1)).unwrap();
    let name = "visual_encoder.norm.bias";
    let other = (&merged.backbone.tensors[name] + 1.0).unwrap();
    merged.backbone.tensors.insert(name.into(), other);
    let message = merged.unmerge().unwrap_err().to_string();
    assert!(message.contains("fingerprint") && message.contains("changed afterwards"), "{message}");
}

#[test]
fn a_bottleneck_is_refused_by_name() {
    let backbone = backbone();
    let adapter_config = AdapterConfig::new(AdapterKind::Bottleneck, Variant::Paper, 4);
    let message = merge(&backbone, &moved(&backbone, adapter_config, 0.1)).unwrap_err().to_string();
    assert!(
        message.contains("kind = bottleneck") && message.contains("cannot be merged"),
        "{message}"
    );
}

#[test]
fn a_merged_folder_reads_back_with_what_stands_beside() {
    let backbone = backbone();
    let adapter_config = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 4);
    let tuned = moved(&backbone, adapter_config, 0.1);
    let merged = merge(&backbone, &tuned).unwrap();
    let wanted = adapted(&backbone, &tuned);
    // f32 is exact; f16 and bf16 round the weights, and the residual adapter fits all the same.
    for (dtype, allowed) in [(DType::F32, 1e-5), (DType::F16, 0.02), (DType::BF16, 0.2)] {
        let folder = tempfile::tempdir().unwrap();
        merged.write(folder.path(), dtype, "small").unwrap();
        let back = Backbone::read(folder.path(), &Device::Cpu).unwrap();
        let residual =
            load_adapter(&folder.path().join(RESIDUAL_ADAPTER), &back, &Device::Cpu).unwrap();
        assert!(
            residual.adapter_config.gated_query
                && residual.adapter_config.modules_to_save.is_empty()
        );
        for (found, wanted) in merged_outputs(&back, &residual).iter().zip(&wanted) {
            let off = relative(found, wanted);
            assert!(off < allowed, "{dtype:?}: {off}");
        }
    }
    // Without gates and context there is no residual adapter.
    let adapter_config = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 4);
    let merged = merge(&backbone, &moved(&backbone, adapter_config, 0.1)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    merged.write(folder.path(), DType::F32, "small").unwrap();
    assert!(!folder.path().join(RESIDUAL_ADAPTER).exists());
}
