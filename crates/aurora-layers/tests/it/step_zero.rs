//! Step zero: an adapter of variant paper changes nothing before its first step, and its context term is fair.

use crate::small::{
    answering, answers, bits, config, every_spec, inputs, moved, outputs, relative,
};
use aurora_kernels::DeltaMode;
use aurora_layers::{AdaptedParams, AdapterConfig, AdapterKind, Backbone, Variant, cls};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

#[test]
fn the_tuned_model_equals_the_backbone_bit_for_bit() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    let wanted = outputs(&frozen, &frozen.bind_frozen().unwrap());
    for adapter_config in every_spec() {
        let tuned =
            AdaptedParams::init(adapter_config.clone(), &backbone, 3, &Device::Cpu).unwrap();
        let blip = tuned.model(&frozen).unwrap();
        for mode in [DeltaMode::Apply, DeltaMode::Reconstruct, DeltaMode::Auto] {
            let mut bound = tuned.bind(&blip, None).unwrap();
            bound.mode = mode;
            for (found, wanted) in outputs(&blip, &bound).iter().zip(&wanted) {
                assert_eq!(
                    bits(found),
                    bits(wanted),
                    "{:?} {:?} {mode:?}",
                    adapter_config.kind,
                    adapter_config.init
                );
            }
        }
    }
}

#[test]
fn a_tuned_model_that_answers_equals_its_backbone_bit_for_bit() {
    let backbone = Backbone::random(answering(), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    let wanted = answers(&frozen, &frozen.bind_frozen().unwrap());
    for adapter_config in every_spec() {
        let tuned =
            AdaptedParams::init(adapter_config.clone(), &backbone, 3, &Device::Cpu).unwrap();
        let blip = tuned.model(&frozen).unwrap();
        let bound = tuned.bind(&blip, None).unwrap();
        for (found, wanted) in answers(&blip, &bound).iter().zip(&wanted) {
            assert_eq!(
                bits(found),
                bits(wanted),
                "{:?} {:?}",
                adapter_config.kind,
                adapter_config.init
            );
        }
    }
}

#[test]
fn a_moved_adapter_gives_the_same_in_both_modes() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    let bare = outputs(&frozen, &frozen.bind_frozen().unwrap());
    for adapter_config in every_spec() {
        let tuned = moved(&backbone, adapter_config.clone(), 0.3);
        let blip = tuned.model(&frozen).unwrap();
        let run = |mode| {
            let mut bound = tuned.bind(&blip, None).unwrap();
            bound.mode = mode;
            outputs(&blip, &bound)
        };
        let (apply, reconstruct) = (run(DeltaMode::Apply), run(DeltaMode::Reconstruct));
        for (index, ((a, b), bare)) in apply.iter().zip(&reconstruct).zip(&bare).enumerate() {
            let kind = adapter_config.kind;
            let off = |x: &Tensor, y: &Tensor| {
                (x - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
            };
            assert!(off(a, b) < 1e-4, "{kind:?}: modes differ by {}", off(a, b));
            // With the heads alone, the states (the last three) are the backbone's.
            let moves = kind != AdapterKind::Heads || index < 3;
            assert_eq!(relative(a, bare) > 1e-3, moves, "{kind:?}: what is tuned shows");
        }
    }
}

/// Untuned tensors are the backbone's own, not copies.
#[test]
fn the_frozen_rest_is_shared() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    for adapter_config in every_spec() {
        let tuned =
            AdaptedParams::init(adapter_config.clone(), &backbone, 3, &Device::Cpu).unwrap();
        let blip = tuned.model(&frozen).unwrap();
        let own = |name: &str| match adapter_config.kind {
            AdapterKind::Full => true,
            AdapterKind::Norms => name.contains("norm") || name.contains("LayerNorm"),
            AdapterKind::Biases => name.ends_with(".bias"),
            _ => false,
        };
        for (name, tensor) in blip.tensors() {
            let head = aurora_layers::HEADS.iter().any(|head| name.starts_with(head));
            let shared = tensor.id() == backbone.tensors[name].id();
            assert_eq!(shared, head || !own(name), "{:?} {name}", adapter_config.kind);
        }
    }
}

/// Without the fused states the matching head sees only the context term. The same texts stand in right and wrong
/// pairs, and the term is equal for both: no threshold on it is better than chance.
#[test]
fn the_context_term_alone_does_not_tell_right_pairs_from_wrong_ones() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let blip = backbone.model().unwrap();
    let tuned = moved(&backbone, AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 4), 0.3);
    let bound = tuned.bind(&blip, None).unwrap();
    let inputs = inputs();
    let own = cls(&blip.encode_text(&inputs.ids, &inputs.mask, &bound).unwrap()).unwrap();
    // Right pairs of texts 0, 1, 2; wrong pairs of the same texts with other images.
    let rows = Tensor::new(&[0u32, 1, 2, 0, 1, 2], &Device::Cpu).unwrap();
    let text_cls = own.index_select(&rows, 0).unwrap();
    let nothing = Tensor::zeros((6, 32), DType::F32, &Device::Cpu).unwrap();
    for positives in [0, 3] {
        let logits = bound
            .match_logits(&bound.add_context(&nothing, &text_cls, positives).unwrap())
            .unwrap();
        let (right, wrong) = (logits.narrow(0, 0, 3).unwrap(), logits.narrow(0, 3, 3).unwrap());
        assert_eq!(bits(&right), bits(&wrong));
    }
    // The reference rule does tell them apart: it marks the first pairs of a training step.
    let adapter_config = AdapterConfig::new(AdapterKind::Tucker, Variant::Reference, 4);
    let reference = AdaptedParams::init(adapter_config, &backbone, 3, &Device::Cpu)
        .unwrap()
        .bind(&blip, None)
        .unwrap();
    let marked = reference.add_context(&nothing, &text_cls, 3).unwrap();
    assert_ne!(bits(&marked.narrow(0, 0, 3).unwrap()), bits(&marked.narrow(0, 3, 3).unwrap()));
}
