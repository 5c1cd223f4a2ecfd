//! Before its first step a tuning of flavour aurora changes nothing, and its parts are fair.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use aurora_kernels::Mode;
use aurora_kernels::random::Stream;
use aurora_layers::{
    AdapterKind, Backbone, BlipConfig, Flavour, Form, Prepared, Seen, TextConfig, TuneSpec, Tuned,
    VisionConfig, cls,
};
use candle_core::{DType, Device, Tensor};

fn config() -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 32,
            patch_size: 8,
            hidden_size: 48,
            layers: 2,
            heads: 3,
            mlp_size: 192,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 40,
            hidden_size: 32,
            layers: 2,
            heads: 2,
            mlp_size: 128,
            max_positions: 16,
            layer_norm_eps: 1e-12,
            enc_token_id: 39,
        },
        projection_size: 16,
        form: Form::Retrieval,
    }
}

struct Inputs {
    images: Tensor,
    ids: Tensor,
    mask: Tensor,
}

fn inputs() -> Inputs {
    let device = Device::Cpu;
    let mut stream = Stream::new(5, "test inputs", 0, 0);
    let ids: Vec<u32> = (0..3 * 7).map(|_| stream.below(38) as u32).collect();
    let mask: Vec<f32> = (0..3 * 7).map(|n| if n % 7 < 4 + n / 7 { 1.0 } else { 0.0 }).collect();
    Inputs {
        images: stream.normal_tensor((3, 3, 32, 32), 1.0).unwrap(),
        ids: Tensor::from_vec(ids, (3, 7), &device).unwrap(),
        mask: Tensor::from_vec(mask, (3, 7), &device).unwrap(),
    }
}

/// Every output of the model, with the context term as evaluation adds it.
fn outputs(backbone: &Backbone, prepared: &Prepared) -> Vec<Tensor> {
    let (blip, inputs) = (backbone.model().unwrap(), inputs());
    let images = blip.encode_image(&inputs.images, prepared).unwrap();
    let texts = blip.encode_text(&inputs.ids, &inputs.mask, prepared).unwrap();
    let keys = blip.cross_keys(&images, prepared).unwrap();
    let seen = Seen::new(&keys).rows([2, 0, 1]);
    let fused = blip.fuse(&inputs.ids, &inputs.mask, &seen, prepared).unwrap();
    let enhanced = prepared.add_context(&cls(&fused).unwrap(), &cls(&texts).unwrap(), 0).unwrap();
    vec![
        prepared.image_features(&images).unwrap(),
        prepared.text_features(&texts).unwrap(),
        prepared.match_logits(&enhanced).unwrap(),
        images,
        texts,
        fused,
    ]
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// A tuning whose every tensor has moved away from its start.
fn moved(backbone: &Backbone, kind: AdapterKind) -> Tuned {
    let spec = TuneSpec::new(kind, Flavour::Aurora, 4);
    let mut tuned = Tuned::start(spec, backbone, 3, &Device::Cpu).unwrap();
    for (name, tensor) in &mut tuned.tensors {
        let shift = Stream::new(9, name, 0, 0).normal_tensor(tensor.shape(), 0.3).unwrap();
        *tensor = (&*tensor + shift).unwrap();
    }
    tuned
}

/// Every kind that adds a delta to frozen weights.
const EVERY_DELTA: [AdapterKind; 5] = [
    AdapterKind::Cp,
    AdapterKind::Tucker,
    AdapterKind::TensorTrain,
    AdapterKind::Lora,
    AdapterKind::Vera,
];

#[test]
fn the_adapted_model_equals_the_backbone_bit_for_bit() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let blip = backbone.model().unwrap();
    let wanted = outputs(&backbone, &blip.bare().unwrap());
    for kind in EVERY_DELTA.into_iter().chain([AdapterKind::Heads]) {
        let tuned =
            Tuned::start(TuneSpec::new(kind, Flavour::Aurora, 4), &backbone, 3, &Device::Cpu)
                .unwrap();
        for mode in [Mode::Apply, Mode::Reconstruct, Mode::Auto] {
            let mut prepared = tuned.prepare(&blip, None).unwrap();
            prepared.mode = mode;
            for (found, wanted) in outputs(&backbone, &prepared).iter().zip(&wanted) {
                assert_eq!(bits(found), bits(wanted), "{kind:?} {mode:?}");
            }
        }
    }
}

#[test]
fn a_moved_adapter_gives_the_same_in_both_modes() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let blip = backbone.model().unwrap();
    for kind in EVERY_DELTA {
        let tuned = moved(&backbone, kind);
        let run = |mode| {
            let mut prepared = tuned.prepare(&blip, None).unwrap();
            prepared.mode = mode;
            outputs(&backbone, &prepared)
        };
        let (apply, reconstruct) = (run(Mode::Apply), run(Mode::Reconstruct));
        let bare = outputs(&backbone, &blip.bare().unwrap());
        for ((a, b), bare) in apply.iter().zip(&reconstruct).zip(&bare) {
            let off = |x: &Tensor, y: &Tensor| {
                (x - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
            };
            assert!(off(a, b) < 1e-4, "{kind:?}: modes differ by {}", off(a, b));
            assert!(off(a, bare) > 1e-2, "{kind:?}: the adapter does something");
        }
    }
}

/// With the fused states left out, the matching head sees only the context term. The same texts stand in right and in
/// wrong pairs, so what it sees of a right pair it sees of a wrong one too: no threshold on it can be better than chance.
#[test]
fn the_context_term_alone_does_not_tell_right_pairs_from_wrong_ones() {
    let backbone = Backbone::random(config(), 1, &Device::Cpu).unwrap();
    let blip = backbone.model().unwrap();
    let tuned = moved(&backbone, AdapterKind::Cp);
    let prepared = tuned.prepare(&blip, None).unwrap();
    let inputs = inputs();
    let own = cls(&blip.encode_text(&inputs.ids, &inputs.mask, &prepared).unwrap()).unwrap();
    // Right pairs of texts 0, 1, 2; wrong pairs of the same texts with other pictures.
    let rows = Tensor::new(&[0u32, 1, 2, 0, 1, 2], &Device::Cpu).unwrap();
    let text_cls = own.index_select(&rows, 0).unwrap();
    let nothing = Tensor::zeros((6, 32), DType::F32, &Device::Cpu).unwrap();
    for positives in [0, 3] {
        let logits = prepared
            .match_logits(&prepared.add_context(&nothing, &text_cls, positives).unwrap())
            .unwrap();
        let (right, wrong) = (logits.narrow(0, 0, 3).unwrap(), logits.narrow(0, 3, 3).unwrap());
        assert_eq!(bits(&right), bits(&wrong));
    }
    // The released rule does tell them apart: it marks the first pairs of a training step.
    let spec = TuneSpec::new(AdapterKind::Tucker, Flavour::Released, 4);
    let released =
        Tuned::start(spec, &backbone, 3, &Device::Cpu).unwrap().prepare(&blip, None).unwrap();
    let marked = released.add_context(&nothing, &text_cls, 3).unwrap();
    assert_ne!(bits(&marked.narrow(0, 0, 3).unwrap()), bits(&marked.narrow(0, 3, 3).unwrap()));
}
