//! Checkpointed blocks give the outputs and gradients of kept ones, for every kind of adapter.

use crate::small::trained::{assert_same, backbone, gradients, loss, specs, trained};
use crate::small::{Inputs, answering, config, inputs};
use aurora_kernels::DeltaMode;
use aurora_layers::{
    AdapterKind, Blip, BlipConfig, BoundModel, CrossAttention, GradientCheckpointing,
};
use candle_core::{DType, Tensor};

/// Small inputs in the model's element type.
fn inputs_for(blip: &Blip) -> Inputs {
    inputs().of(blip.tensors()["visual_encoder.cls_token"].dtype())
}

/// Retrieval step: both towers, text and fusion encoder, `[CLS]` and all tokens.
fn retrieval(blip: &Blip, bound: &BoundModel) -> Tensor {
    let Inputs { images, ids, mask } = inputs_for(blip);
    let states = blip.encode_image(&images, bound).unwrap();
    let keys = blip.encode_kv(&states, bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([2, 0, 1]);
    let parts = [
        blip.encode_image_cls(&images, bound).unwrap(),
        blip.encode_text(&ids, &mask, bound).unwrap(),
        blip.encode_text_cls(&ids, &mask, bound).unwrap(),
        blip.fuse_tokens(&ids, &mask, &seen, bound).unwrap(),
        blip.fuse_cls(&ids, &mask, &seen, bound).unwrap(),
        states,
    ];
    parts.iter().map(loss).reduce(|sum, part| (sum + part).unwrap()).unwrap()
}

/// Question answering step: the decoder's cross-attention reads the encoder's question states.
fn answer(blip: &Blip, bound: &BoundModel) -> Tensor {
    let Inputs { images, ids, mask } = inputs_for(blip);
    let states = blip.encode_image(&images, bound).unwrap();
    let keys = blip.encode_kv(&states, bound).unwrap();
    let questions = blip.fuse_tokens(&ids, &mask, &CrossAttention::new(&keys), bound).unwrap();
    let keys = blip.encode_decoder_kv(&questions, Some(&mask), bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([1, 1, 0]);
    let states = blip.decode_tokens(&ids, &mask, &seen, bound).unwrap();
    loss(&blip.predict_words(&states).unwrap())
}

type Step = fn(&Blip, &BoundModel) -> Tensor;

/// Outputs equal to the bit, and gradients to `tolerance`: where sites share factors, their gradients are summed in
/// another order.
fn assert_segments_change_nothing(config: BlipConfig, step: Step, dtype: DType, tolerance: f64) {
    let backbone = backbone(config, dtype);
    // With heads alone nothing in a checkpointed block is trained.
    for adapter_config in
        specs().into_iter().filter(|adapter_config| adapter_config.kind != AdapterKind::Heads)
    {
        let (blip, tuned, variables) = trained(&backbone, adapter_config.clone());
        for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
            let run = |gradient_checkpointing| {
                let mut bound = tuned.bind(&blip, None).unwrap();
                (bound.mode, bound.gradient_checkpointing) = (mode, gradient_checkpointing);
                let loss = step(&blip, &bound);
                let value = loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
                (value, gradients(&loss, &variables))
            };
            let (found, wanted) =
                (run(GradientCheckpointing::Block), run(GradientCheckpointing::None));
            let what = format!(
                "{:?} {:?} {mode:?} {dtype:?}",
                adapter_config.kind, adapter_config.variant
            );
            assert_eq!(found.0, wanted.0, "{what}");
            // The set of tensors with a gradient is compared too: a missing gradient has to be found with gradient
            // checkpointing as well.
            assert_same(&what, &found.1, &wanted.1, tolerance);
        }
    }
}

#[test]
fn segments_of_retrieval_change_nothing() {
    assert_segments_change_nothing(config(), retrieval, DType::F32, 1e-6);
    assert_segments_change_nothing(config(), retrieval, DType::F64, 1e-13);
}

#[test]
fn segments_of_answering_change_nothing() {
    assert_segments_change_nothing(answering(), answer, DType::F32, 1e-6);
    assert_segments_change_nothing(answering(), answer, DType::F64, 1e-13);
}

/// Without the fused pass its layers, gates and bottlenecks get no gradient, with gradient checkpointing and without.
#[test]
fn what_a_pass_does_not_use_gets_no_gradient() {
    let backbone = backbone(config(), DType::F32);
    for adapter_config in specs() {
        let (blip, tuned, variables) = trained(&backbone, adapter_config.clone());
        let run = |gradient_checkpointing| {
            let mut bound = tuned.bind(&blip, None).unwrap();
            bound.gradient_checkpointing = gradient_checkpointing;
            let Inputs { ids, mask, .. } = inputs();
            let loss = loss(&blip.encode_text_cls(&ids, &mask, &bound).unwrap());
            gradients(&loss, &variables).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(
            run(GradientCheckpointing::Block),
            run(GradientCheckpointing::None),
            "{:?}",
            adapter_config.kind
        );
    }
}
