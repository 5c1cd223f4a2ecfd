//! Pooled passes equal the full passes: `[CLS]` only, and without padding.

use crate::small::trained::{
    assert_same, backbone, gradients, largest, loss, normal, specs, trained,
};
use crate::small::{Inputs, answering, config, inputs};
use aurora_kernels::DeltaMode;
use aurora_kernels::random::Stream;
use aurora_layers::{AdapterConfig, AdapterKind, Blip, BoundModel, CrossAttention, Variant, cls};
use candle_core::{D, DType, Device, Tensor, Var};
use proptest::prelude::*;

/// Rounding of f64 over two layers, of gradients too.
const ROUNDING: f64 = 1e-11;

/// Outputs of the `[CLS]` passes, (rows, width): images, texts, pairs.
fn short(blip: &Blip, bound: &BoundModel, inputs: &Inputs) -> [Tensor; 3] {
    let Inputs { images, ids, mask } = inputs;
    let keys = blip.encode_kv(&blip.encode_image(images, bound).unwrap(), bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([2, 0, 1]);
    [
        blip.encode_image_cls(images, bound).unwrap(),
        blip.encode_text_cls(ids, mask, bound).unwrap(),
        blip.fuse_cls(ids, mask, &seen, bound).unwrap(),
    ]
}

/// `[CLS]` states of the full passes.
fn full(blip: &Blip, bound: &BoundModel, inputs: &Inputs) -> [Tensor; 3] {
    let Inputs { images, ids, mask } = inputs;
    let states = blip.encode_image(images, bound).unwrap();
    let keys = blip.encode_kv(&states, bound).unwrap();
    let seen = CrossAttention::new(&keys).rows([2, 0, 1]);
    [
        states,
        blip.encode_text(ids, mask, bound).unwrap(),
        blip.fuse(ids, mask, &seen, bound).unwrap(),
    ]
    .map(|states| cls(&states).unwrap())
}

#[test]
fn passes_to_cls_equal_full_passes_gradients_too() {
    let backbone = backbone(config(), DType::F64);
    let inputs = inputs().of(DType::F64);
    for adapter_config in specs() {
        let (blip, tuned, variables) = trained(&backbone, adapter_config.clone());
        for mode in [DeltaMode::Apply, DeltaMode::Reconstruct] {
            let mut bound = tuned.bind(&blip, None).unwrap();
            bound.mode = mode;
            let found = short(&blip, &bound, &inputs);
            let wanted = full(&blip, &bound, &inputs);
            for (part, (found, wanted)) in
                ["image", "text", "pair"].iter().zip(found.iter().zip(&wanted))
            {
                let what = format!(
                    "{:?} {:?} {mode:?} {part}",
                    adapter_config.kind, adapter_config.variant
                );
                assert_eq!(found.dims(), wanted.dims());
                assert_near(&what, found, wanted);
                if adapter_config.kind == AdapterKind::Heads {
                    continue; // no gradient below the heads
                }
                let found = gradients(&loss(found), &variables);
                assert_same(&what, &found, &gradients(&loss(wanted), &variables), ROUNDING);
            }
        }
    }
}

/// Texts of these lengths, padded to `length` with random tokens, and their mask.
fn padded(lengths: &[usize], length: usize) -> Inputs {
    let mut stream = Stream::new(lengths.len() as u64, "padded", length as u64, 0);
    let (mut ids, mut mask) = (vec![], vec![]);
    for &own in lengths {
        ids.extend((0..length).map(|_| stream.below(38) as u32));
        mask.extend((0..length).map(|column| if column < own { 1f32 } else { 0.0 }));
    }
    let shape = (lengths.len(), length);
    Inputs {
        images: normal("images", (lengths.len(), 3, 32, 32), DType::F64),
        ids: Tensor::from_vec(ids, shape, &Device::Cpu).unwrap(),
        mask: Tensor::from_vec(mask, shape, &Device::Cpu).unwrap(),
    }
}

/// Text `row` of a batch at its own length, with a mask of ones.
fn alone(inputs: &Inputs, row: usize, length: usize) -> (Tensor, Tensor) {
    let ids = inputs.ids.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
    (ids.contiguous().unwrap(), Tensor::ones((1, length), DType::F32, &Device::Cpu).unwrap())
}

fn assert_near(what: &str, found: &Tensor, wanted: &Tensor) {
    let (off, scale) = (largest(&(found - wanted).unwrap()), largest(wanted));
    assert!(off <= ROUNDING * scale, "{what}: {off:e} of {scale:e}");
}

fn padding_changes_nothing(kind: AdapterKind, lengths: &[usize]) {
    let backbone = backbone(answering(), DType::F64);
    let (blip, tuned, variables) = trained(&backbone, AdapterConfig::new(kind, Variant::Paper, 4));
    let inputs = padded(lengths, 9);
    let bound = tuned.bind(&blip, None).unwrap();
    let states = blip.encode_image(&inputs.images, &bound).unwrap();
    let keys = blip.encode_kv(&states, &bound).unwrap();
    let questions = normal("questions", (lengths.len(), 17, 32), DType::F64);
    let decoder_kv = blip.encode_decoder_kv(&questions, None, &bound).unwrap();
    let rows: Vec<u32> = (0..lengths.len() as u32).rev().collect();
    // Each text has key weights of its own.
    let scale = normal("key scale", (lengths.len(), 17), DType::F64);

    let seen =
        |keys| CrossAttention::new(keys).rows(rows.as_slice()).with_key_scale(Some(scale.clone()));
    let (ids, mask) = (&inputs.ids, &inputs.mask);
    let batch = [
        blip.encode_text_cls(ids, mask, &bound).unwrap(),
        blip.fuse_cls(ids, mask, &seen(&keys), &bound).unwrap(),
        blip.fuse_tokens(ids, mask, &seen(&keys), &bound).unwrap(),
        blip.decode_tokens(ids, mask, &seen(&decoder_kv), &bound).unwrap(),
    ];
    let one_by_one = lengths.iter().enumerate().map(|(row, &length)| {
        let (ids, mask) = alone(&inputs, row, length);
        let one = scale.narrow(0, row, 1).unwrap();
        let seen =
            |keys| CrossAttention::new(keys).rows([rows[row]]).with_key_scale(Some(one.clone()));
        let long = |states: Tensor| states.pad_with_zeros(1, 0, 9 - length).unwrap();
        [
            cls(&blip.encode_text(&ids, &mask, &bound).unwrap()).unwrap(),
            cls(&blip.fuse(&ids, &mask, &seen(&keys), &bound).unwrap()).unwrap(),
            long(blip.fuse(&ids, &mask, &seen(&keys), &bound).unwrap()),
            long(blip.decode(&ids, &mask, &seen(&decoder_kv), &bound).unwrap()),
        ]
    });
    let one_by_one: Vec<[Tensor; 4]> = one_by_one.collect();
    for (pass, found) in batch.iter().enumerate() {
        let parts: Vec<&Tensor> = one_by_one.iter().map(|passes| &passes[pass]).collect();
        let wanted = Tensor::cat(&parts, 0).unwrap();
        assert_eq!(found.dims(), wanted.dims());
        // States at padding are exactly zero.
        if found.rank() == 3 {
            let padding =
                (1.0 - mask).unwrap().unsqueeze(D::Minus1).unwrap().to_dtype(DType::F64).unwrap();
            assert_eq!(largest(&found.broadcast_mul(&padding).unwrap()), 0.0);
        }
        let what = format!("{kind:?} {lengths:?} pass {pass}");
        assert_near(&what, found, &wanted);
        let found = gradients(&loss(found), &variables);
        assert_same(&what, &found, &gradients(&loss(&wanted), &variables), ROUNDING);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn padding_changes_nothing_beyond_rounding(
        lengths in prop::collection::vec(1usize..=9, 1..5),
        kind in prop::sample::select(vec![
            AdapterKind::Cp, AdapterKind::Bottleneck, AdapterKind::Ia3, AdapterKind::Full,
        ]),
    ) {
        padding_changes_nothing(kind, &lengths);
    }
}

/// Tokens after padding are tokens: a mask is no length.
#[test]
fn a_mask_may_have_holes() {
    let backbone = backbone(config(), DType::F64);
    let (blip, tuned, _) =
        trained(&backbone, AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 4));
    let bound = tuned.bind(&blip, None).unwrap();
    let Inputs { ids, images, .. } = inputs().of(DType::F64);
    let states = blip.encode_image(&images, &bound).unwrap();
    let keys = blip.encode_kv(&states, &bound).unwrap();
    for first in [1f32, 0.0] {
        // With padding in the first position nothing is left out; that has to work all the same.
        let mask = [first, 0., 1., 1., 0., 1., 0.].repeat(3);
        let mask = Tensor::from_vec(mask, (3, 7), &Device::Cpu).unwrap();
        let found = blip.fuse_cls(&ids, &mask, &CrossAttention::new(&keys), &bound).unwrap();
        let wanted =
            cls(&blip.fuse(&ids, &mask, &CrossAttention::new(&keys), &bound).unwrap()).unwrap();
        assert_near("holes", &found, &wanted);
    }
}

/// A mask of another shape is an error, so that no token is lost silently.
#[test]
fn a_mask_of_another_shape_is_refused() {
    let backbone = backbone(config(), DType::F32);
    let (blip, inputs) = (backbone.model().unwrap(), inputs());
    let bare = blip.bind_frozen().unwrap();
    for mask in [inputs.mask.narrow(1, 0, 5), inputs.mask.narrow(0, 0, 2)] {
        let error = blip.encode_text_cls(&inputs.ids, &mask.unwrap(), &bare).unwrap_err();
        assert!(error.to_string().contains("has to be [3, 7]"), "{error}");
    }
}

/// Absorbed attention with the deltas of every kind of adapter on the key and value projections.
#[test]
fn maps_folded_into_queries_give_what_keys_and_values_give() {
    let backbone = backbone(config(), DType::F64);
    let Inputs { images, ids, mask } = inputs().of(DType::F64);
    for adapter_config in specs() {
        let (blip, tuned, _) = trained(&backbone, adapter_config.clone());
        let tuned = tuned.detached();
        let blip = tuned.model(&blip).unwrap();
        let bound = tuned.bind(&blip, None).unwrap();
        let states = blip.encode_image(&images, &bound).unwrap();
        let keys = blip.encode_kv(&states, &bound).unwrap();
        let folded = blip.lazy_kv(&states).unwrap();
        let fuse = |keys| {
            let seen = CrossAttention::new(keys).rows([2, 0, 1]);
            blip.fuse_cls(&ids, &mask, &seen, &bound).unwrap()
        };
        let what = format!("{:?} {:?}", adapter_config.kind, adapter_config.variant);
        let (found, wanted) = (fuse(&folded), fuse(&keys));
        let off = largest(&(&found - &wanted).unwrap());
        assert!(off <= ROUNDING * largest(&wanted), "{what}: {off:e}");
        assert_eq!(folded.images(), keys.images());
    }
}

/// An absorbed layer has no gradient, so absorption refuses trained tensors.
#[test]
fn folding_refuses_what_is_trained() {
    let backbone = backbone(config(), DType::F32);
    let Inputs { images, ids, mask } = inputs().of(DType::F32);
    // Trained: the backbone's own tensors; all sites; the value projections of cross-attention alone.
    let whole = AdapterConfig::new(AdapterKind::Full, Variant::Paper, 4);
    let cp = AdapterConfig::new(AdapterKind::Cp, Variant::Paper, 4);
    let mut values = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 4);
    values.targets.target_modules = vec!["crossattention.self.value".to_owned()];
    for adapter_config in [whole, cp, values] {
        let (blip, tuned, _) = trained(&backbone, adapter_config.clone());
        let bound = tuned.bind(&blip, None).unwrap();
        let bare = backbone.model().unwrap();
        let states = bare.encode_image(&images, &bare.bind_frozen().unwrap()).unwrap();
        let keys = blip.lazy_kv(&states).unwrap();
        let error = blip.fuse_cls(&ids, &mask, &CrossAttention::new(&keys), &bound).unwrap_err();
        assert!(error.to_string().contains("gradient"), "{:?}: {error}", adapter_config.kind);
    }
    // States that want a gradient are refused too.
    let blip = backbone.model().unwrap();
    let bare = blip.bind_frozen().unwrap();
    let states = Var::from_tensor(&blip.encode_image(&images, &bare).unwrap()).unwrap();
    let keys = blip.lazy_kv(&states).unwrap();
    let error = blip.fuse_cls(&ids, &mask, &CrossAttention::new(&keys), &bare).unwrap_err();
    assert!(error.to_string().contains("absorbed_attention"), "{error}");
}
