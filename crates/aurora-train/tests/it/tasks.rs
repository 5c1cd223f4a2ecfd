//! Tuning of every task: the loss falls, every trained tensor gets a gradient, and the tuned model answers right.

use aurora_kernels::random::Stream;
use aurora_layers::{
    AdaptedParams, AdapterConfig, AdapterKind, Architecture, Backbone, Blip, BlipConfig,
    BoundModel, DecoderTokens, GenerationConfig, LoraInit, ParamGroup, TextConfig, Variant,
    VisionConfig,
};
use aurora_train::ema::MomentumModel;
use aurora_train::evaluation::GalleryBuilder;
use aurora_train::itm::HardNegatives;
use aurora_train::optimizer::{AdamW, AdamWOptions, Group, Parameter};
use aurora_train::progress::Silent;
use aurora_train::retrieval::{ImageBatch, ImageTextBatch, ItcContext, encode, itc, itm};
use aurora_train::vqa::{
    Answers, Texts, answer_loss, caption_loss, encode_questions, rank_answers,
};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

fn config(architecture: Architecture) -> BlipConfig {
    BlipConfig {
        vision: VisionConfig {
            image_size: 16,
            patch_size: 8,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            vocab_size: 24,
            hidden_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 48,
            max_position_embeddings: 12,
            layer_norm_eps: 1e-12,
            enc_token_id: 23,
        },
        projection_dim: 12,
        architecture,
    }
}

const TOKENS: DecoderTokens =
    DecoderTokens { start_token_id: 22, end_token_id: 3, pad_token_id: 0 };

/// Tuning under way, every tensor of it trained at one rate.
struct Tuning {
    blip: Arc<Blip>,
    online: AdaptedParams,
    optimizer: AdamW,
}

impl Tuning {
    fn new(architecture: Architecture, kind: AdapterKind) -> Self {
        let mut adapter_config = AdapterConfig::new(kind, Variant::Paper, 8);
        adapter_config.frame_aware = true;
        Self::of(architecture, adapter_config)
    }

    fn of(architecture: Architecture, adapter_config: AdapterConfig) -> Self {
        let mut backbone = Backbone::random(config(architecture), 1, &Device::Cpu).unwrap();
        for tensor in backbone.tensors.values_mut().filter(|tensor| tensor.rank() == 2) {
            *tensor = (&*tensor * 8.0).unwrap();
        }
        let start = AdaptedParams::init(adapter_config, &backbone, 2, &Device::Cpu).unwrap();
        let (online, variables) = start.into_variables().unwrap();
        let parameters: Vec<Parameter> = variables
            .into_iter()
            .filter(|(name, _)| AdaptedParams::param_group(name) != ParamGroup::Buffer)
            .map(|(name, var)| Parameter::new(&name, var, "all"))
            .collect();
        let groups = vec![Group::new("all", 0.01, 0.0)];
        let optimizer = AdamW::new(parameters, groups, AdamWOptions::default()).unwrap();
        let frozen = Arc::new(backbone.model().unwrap());
        Self { blip: online.model(&frozen).unwrap(), online, optimizer }
    }

    fn bound(&self) -> BoundModel {
        self.online.bind(&self.blip, None).unwrap()
    }

    /// Runs so many steps; returns the first and the last loss. A tensor without gradient is an error of the optimizer.
    fn run(&mut self, steps: usize, loss: impl Fn(&Blip, &BoundModel) -> Tensor) -> [f32; 2] {
        let mut ends = [f32::NAN; 2];
        for step in 0..steps {
            let loss = loss(&self.blip, &self.bound());
            ends[usize::from(step > 0)] = loss.to_scalar().unwrap();
            self.optimizer.step(&loss.backward().unwrap(), 1.0).unwrap();
        }
        ends
    }
}

/// With CP the loss of a random backbone falls; with all weights trained it all but vanishes, and that tuning is
/// returned.
fn learns(architecture: Architecture, loss: impl Fn(&Blip, &BoundModel) -> Tensor) -> Tuning {
    let [before, after] = Tuning::new(architecture, AdapterKind::Cp).run(40, &loss);
    assert!(after < 0.6 * before, "cp: {before} to {after}");
    let mut full = Tuning::new(architecture, AdapterKind::Full);
    let [before, after] = full.run(120, &loss);
    assert!(after < 0.05 * before, "full: {before} to {after}");
    full
}

fn random_images(shape: &[usize]) -> Tensor {
    Stream::new(3, "pictures", 0, 0).normal_tensor(shape, 1.0).unwrap()
}

fn texts(rows: &[&[u32]]) -> (Tensor, Tensor) {
    let length = rows.iter().map(|row| row.len()).max().unwrap();
    let pad = |row: &&[u32]| -> Vec<u32> {
        row.iter().copied().chain(std::iter::repeat(0)).take(length).collect()
    };
    let ids = Tensor::new(rows.iter().map(pad).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let mask = ids.ne(0u32).unwrap().to_dtype(DType::F32).unwrap();
    (ids, mask)
}

#[test]
fn questions_are_answered() {
    let images = random_images(&[4, 3, 16, 16]);
    // Two questions, each about two images: the answer depends on both.
    let (ids, mask) = texts(&[&[2, 5, 6, 3], &[2, 7, 8, 9, 3], &[2, 5, 6, 3], &[2, 7, 8, 9, 3]]);
    let questions = Texts { token_ids: &ids, mask: &mask };
    let (ids, mask) = texts(&[&[22, 10, 3], &[22, 11, 12, 3], &[22, 13, 3], &[22, 14, 15, 16, 3]]);
    let answers = Texts { token_ids: &ids, mask: &mask };
    let tuning = learns(Architecture::QuestionAnswering(TOKENS), |blip, bound| {
        let keys = encode_questions(blip, bound, &images, &questions).unwrap();
        let weights = [1.0, 0.6, 1.0, 1.0];
        let answers = Answers { texts: answers, questions: &[0, 1, 2, 3], weights: &weights };
        answer_loss((blip, bound), &keys, &answers).unwrap()
    });
    let (blip, bound) = (&*tuning.blip, tuning.bound());
    let keys = encode_questions(blip, &bound, &images, &questions).unwrap();
    for k in [1, 4, 9] {
        assert_eq!(rank_answers((blip, &bound), &keys, &answers, k).unwrap(), [0, 1, 2, 3]);
    }
    let written = blip.generate(&[], &keys, &GenerationConfig::greedy(6), &bound).unwrap();
    assert_eq!(written, [vec![10], vec![11, 12], vec![13], vec![14, 15, 16]]);
}

#[test]
fn images_are_captioned() {
    let images = random_images(&[3, 3, 16, 16]);
    let (ids, mask) = texts(&[&[22, 5, 6, 10, 3], &[22, 5, 6, 11, 12, 3], &[22, 5, 6, 13, 3]]);
    let captions = Texts { token_ids: &ids, mask: &mask };
    let tuning = learns(Architecture::Captioning(TOKENS), |blip, bound| {
        caption_loss((blip, bound), &images, &captions, 0.0).unwrap()
    });
    let (blip, bound) = (&*tuning.blip, tuning.bound());
    let keys = blip.encode_decoder_kv(&blip.encode_image(&images, &bound).unwrap(), None, &bound);
    let keys = keys.unwrap();
    for how in [
        GenerationConfig::greedy(6),
        GenerationConfig { num_beams: 3, ..GenerationConfig::greedy(6) },
    ] {
        let written = blip.generate(&[5, 6], &keys, &how, &bound).unwrap();
        assert_eq!(written, [vec![10], vec![11, 12], vec![13]]);
    }
}

#[test]
fn clips_are_found_and_ranks_share_a_batch() {
    let mut tuning = Tuning::new(Architecture::Retrieval, AdapterKind::Cp);
    let clips = random_images(&[4, 3, 3, 16, 16]);
    let (ids, mask) = texts(&[&[2, 5, 3], &[2, 6, 7, 3], &[2, 8, 3], &[2, 9, 10, 11, 3]]);
    let pairs = ImageTextBatch {
        images: (&clips).into(),
        token_ids: &ids,
        mask: &mask,
        ids: &[0, 1, 2, 3],
    };
    let temperature = Tensor::new(&[0.07f32], &Device::Cpu).unwrap();
    let context = ItcContext { momentum: None, queue: None, alpha: 0.0, temperature: &temperature };
    let [before, after] = tuning.run(60, |blip, bound| {
        let encoded = encode(blip, bound, &pairs).unwrap();
        let (itc, similarity) = itc(&encoded, pairs.ids, &context).unwrap();
        let negatives = HardNegatives::draw(&similarity.detach(), pairs.ids, 1, 0).unwrap();
        (itc + itm(blip, bound, &pairs, &encoded, &negatives).unwrap()).unwrap()
    });
    assert!(after < 0.5 * before, "{before} to {after}");

    let (blip, bound) = (&*tuning.blip, tuning.bound());
    let encoded = encode(blip, &bound, &pairs).unwrap();
    let (_, similarity) = itc(&encoded, pairs.ids, &context).unwrap();
    // In the paper variant a pair has one score, in training and in evaluation; and two ranks that draw their
    // negatives from all pairs have, on average, the loss of one.
    let loss = |own| {
        let drawn = HardNegatives::draw_rows(&similarity.detach(), pairs.ids, own, 1, 0).unwrap();
        itm(blip, &bound, &pairs, &encoded, &drawn).unwrap().to_scalar::<f32>().unwrap()
    };
    assert!((loss(0..4) - 0.5 * (loss(0..2) + loss(2..4))).abs() < 1e-5);

    let mut gallery = GalleryBuilder::default();
    gallery.images(blip, &bound, &clips).unwrap();
    gallery.texts(blip, &bound, &ids, &mask).unwrap();
    let gallery = gallery.finish().unwrap();
    let report = gallery
        .rerank(blip, &bound, 2, &mut Silent)
        .unwrap()
        .report(0.0, pairs.ids, pairs.ids)
        .unwrap();
    assert!(report.mean() > 99.0, "{report:?}");
}

/// Largest absolute difference of two tensors.
fn gap(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Padding frames are inert: a clip of two frames and the same clip padded to three have one feature, one loss with one
/// gradient, one score and one answer.
#[test]
fn what_fills_a_short_clip_up_changes_nothing() {
    let short = random_images(&[3, 2, 3, 16, 16]);
    let rest = Stream::new(8, "rest", 0, 0).normal_tensor((3, 1, 3, 16, 16), 1.0).unwrap();
    let filled = Tensor::cat(&[&short, &rest], 1).unwrap();
    let mask = Tensor::new(&[[1f32, 1.0, 0.0]; 3], &Device::Cpu).unwrap();
    let views = [
        ImageBatch::from(&short),
        ImageBatch { pixels: &filled, frame_mask: Some(&mask) },
        (&filled).into(),
    ];
    let (ids, text_mask) = texts(&[&[2, 5, 3], &[2, 6, 7, 3], &[2, 8, 3]]);
    let temperature = Tensor::new(&[0.07f32], &Device::Cpu).unwrap();
    let context = ItcContext { momentum: None, queue: None, alpha: 0.0, temperature: &temperature };
    let negatives =
        HardNegatives { first: 0, image_for_text: vec![1, 2, 0], text_for_image: vec![2, 0, 1] };
    let tuning = Tuning::new(Architecture::Retrieval, AdapterKind::Full);
    let [short_view, filled_view, unmasked_view] = views.map(|images| {
        let (blip, bound) = (&*tuning.blip, tuning.bound());
        let pairs = ImageTextBatch { images, token_ids: &ids, mask: &text_mask, ids: &[0, 1, 2] };
        let encoded = encode(blip, &bound, &pairs).unwrap();
        let (itc, _) = itc(&encoded, pairs.ids, &context).unwrap();
        let itm = itm(blip, &bound, &pairs, &encoded, &negatives).unwrap();
        let grads = (itc + itm).unwrap().backward().unwrap();
        let name = "visual_encoder.blocks.0.attn.qkv.weight";
        let gradient = grads.get(&tuning.online.tensors[name]).unwrap().clone();
        let mut gallery = GalleryBuilder::default();
        gallery.images(blip, &bound, images).unwrap();
        gallery.texts(blip, &bound, &ids, &text_mask).unwrap();
        let scores = gallery.finish().unwrap().rerank(blip, &bound, 3, &mut Silent).unwrap();
        [encoded.image.detach(), gradient, scores.scores(1.0).unwrap().t2i]
    });
    for (what, (short, filled)) in
        ["features", "gradient", "scores"].iter().zip(short_view.iter().zip(&filled_view))
    {
        let largest = gap(short, &short.zeros_like().unwrap());
        let off = gap(short, filled);
        assert!(off <= 1e-5 * largest.max(1.0), "{what}: off by {off:e} of {largest:e}");
    }
    // Without the mask the padding would show.
    assert!(gap(&short_view[0], &unmasked_view[0]) > 1e-3);

    let tuning = Tuning::new(Architecture::QuestionAnswering(TOKENS), AdapterKind::Cp);
    let questions = Texts { token_ids: &ids, mask: &text_mask };
    let [short_loss, filled_loss, unmasked_loss] = views.map(|images| {
        let (blip, bound) = (&*tuning.blip, tuning.bound());
        let keys = encode_questions(blip, &bound, images, &questions).unwrap();
        let answers = Answers { texts: questions, questions: &[0, 1, 2], weights: &[1.0; 3] };
        answer_loss((blip, &bound), &keys, &answers).unwrap().to_scalar::<f32>().unwrap()
    });
    assert!((short_loss / filled_loss - 1.0).abs() < 1e-5, "{short_loss} {filled_loss}");
    assert!((short_loss / unmasked_loss - 1.0).abs() > 1e-4, "{short_loss} {unmasked_loss}");
}

/// Every kind lowers the loss by its own tensors: ITC + ITM with frozen heads, and VQA.
#[test]
fn every_kind_learns() {
    let images = random_images(&[4, 3, 16, 16]);
    let (ids, mask) = texts(&[&[2, 5, 3], &[2, 6, 7, 3], &[2, 8, 3], &[2, 9, 10, 11, 3]]);
    let pairs = ImageTextBatch {
        images: (&images).into(),
        token_ids: &ids,
        mask: &mask,
        ids: &[0, 1, 2, 3],
    };
    let temperature = Tensor::new(&[0.07f32], &Device::Cpu).unwrap();
    let context = ItcContext { momentum: None, queue: None, alpha: 0.0, temperature: &temperature };
    let matches = |blip: &Blip, bound: &BoundModel| {
        let encoded = encode(blip, bound, &pairs).unwrap();
        let (itc, similarity) = itc(&encoded, pairs.ids, &context).unwrap();
        let negatives = HardNegatives::draw(&similarity.detach(), pairs.ids, 1, 0).unwrap();
        (itc + itm(blip, bound, &pairs, &encoded, &negatives).unwrap()).unwrap()
    };
    let answers = |blip: &Blip, bound: &BoundModel| {
        let texts = Texts { token_ids: &ids, mask: &mask };
        let keys = encode_questions(blip, bound, &images, &texts).unwrap();
        let answers = Answers { texts, questions: &[1, 2, 3, 0], weights: &[1.0; 4] };
        answer_loss((blip, bound), &keys, &answers).unwrap()
    };
    let mut specs: Vec<AdapterConfig> =
        AdapterKind::ALL.map(|kind| AdapterConfig::new(kind, Variant::Paper, 4)).into();
    let lora = AdapterConfig::new(AdapterKind::Lora, Variant::Paper, 4);
    specs.push(AdapterConfig { init: LoraInit::Pissa, ..lora });
    for mut adapter_config in specs {
        let heads = adapter_config.kind == AdapterKind::Heads;
        if !heads {
            adapter_config.modules_to_save.clear();
        }
        let what = format!("{:?} {:?}", adapter_config.kind, adapter_config.init);
        let [before, after] =
            Tuning::of(Architecture::Retrieval, adapter_config.clone()).run(40, matches);
        assert!(after < 0.75 * before, "{what}, matching: {before} to {after}");
        if !heads {
            let architecture = Architecture::QuestionAnswering(TOKENS);
            let [before, after] = Tuning::of(architecture, adapter_config).run(40, answers);
            assert!(after < 0.75 * before, "{what}, answering: {before} to {after}");
        }
    }
}

#[test]
fn the_momentum_model_has_no_backbone_of_its_own() {
    let backbone = Backbone::random(config(Architecture::Retrieval), 1, &Device::Cpu).unwrap();
    let frozen = Arc::new(backbone.model().unwrap());
    for kind in AdapterKind::ALL {
        let adapter_config = AdapterConfig::new(kind, Variant::Paper, 4);
        let start = AdaptedParams::init(adapter_config, &backbone, 2, &Device::Cpu).unwrap();
        let (online, _) = start.into_variables().unwrap();
        let momentum = MomentumModel::new(&online, &frozen, 0.9).unwrap();
        let (blip, _) = momentum.step().unwrap();
        for (name, tensor) in blip.tensors() {
            let tuned = AdaptedParams::param_group(name) == ParamGroup::Backbone
                && online.tensors.contains_key(name);
            let shared = tensor.id() == backbone.tensors[name].id();
            assert_eq!(shared, !tuned, "{kind:?}: {name}");
        }
        let own = [AdapterKind::Norms, AdapterKind::Biases, AdapterKind::Full];
        assert_eq!(Arc::ptr_eq(&blip, &frozen), !own.contains(&kind), "{kind:?}");
    }
}
