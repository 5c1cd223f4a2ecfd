//! Tokens, captions, transforms and the loader.

use std::sync::Arc;
use std::time::Instant;

use crate::common::{encoded_image, tar};
use aurora_data::caption::{clean, clean_question, compose};
use aurora_data::transform::{MEAN, STD};
use aurora_data::{
    AffineAugment, Batch, Dataset, Decode, Error, EvalTransform, Image, Keywords, LastBatch,
    Loader, LoaderOptions, Padding, RandAugmentTransform, Split, Tokenizer, Transform, embedded,
    shard,
};
use aurora_kernels::random::Stream;
use proptest::prelude::*;

fn noto() -> Dataset {
    Dataset::new(embedded::noto().unwrap(), Decode::AtLoad).unwrap()
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(embedded::vocabulary().unwrap())
}

/// Everything of a batch that could differ.
fn contents(batch: &Batch) -> (u64, u64, Vec<usize>, Vec<String>, Vec<u32>, Vec<u32>) {
    let bits = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let ids = batch.input_ids.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let bits = bits.iter().map(|v| v.to_bits()).collect();
    (batch.step, batch.epoch, batch.indices.clone(), batch.texts.clone(), ids, bits)
}

#[test]
fn captions_are_cleaned_as_blip_does() {
    assert_eq!(clean("A man, \"running\"!  (Fast):\n home~", 30), "a man, running fast home");
    assert_eq!(clean("one two three four", 3), "one two three");
    assert_eq!(clean("...", 30), "");
    assert_eq!(clean_question("Is it (really) 3:30?", 50), "is it really 330?");
}

#[test]
fn keywords_follow_the_caption() {
    let keywords: Vec<String> = ["fruit", "red", "food"].map(String::from).to_vec();
    let stream = || Stream::new(1, "caption", 0, 0);
    assert_eq!(compose("apple", &keywords, Keywords::Never, &mut stream()), "apple");
    let all = compose("apple", &keywords, Keywords::All, &mut stream());
    assert_eq!(all, "apple, fruit, red, food");
    let mut seen = std::collections::HashSet::new();
    for index in 0..2000 {
        let mut stream = Stream::new(1, "caption", 0, index);
        let text = compose("apple", &keywords, Keywords::Sample, &mut stream);
        assert!(text.starts_with("apple"));
        seen.insert(text);
    }
    // 1 + 3 + 6 + 6 ordered subsets.
    assert_eq!(seen.len(), 16);
}

#[test]
fn tokens_are_framed_cut_and_padded() {
    let tokenizer =
        Tokenizer::new("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\napple\n##s\n,\n[DEC]\n[ENC]\n");
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.encode("Red äpple, APPLES", 20).unwrap(), [2, 5, 6, 8, 6, 7, 3]);
    assert_eq!(tokenizer.encode("red green apples", 5).unwrap(), [2, 5, 1, 6, 3]);
    let (ids, mask) = tokenizer.encode_batch(&["red", "red apples"], 9, Padding::Longest).unwrap();
    assert_eq!(ids.to_vec2::<u32>().unwrap(), [[2, 5, 3, 0, 0], [2, 5, 6, 7, 3]]);
    assert_eq!(mask.to_vec2::<f32>().unwrap()[0], [1., 1., 1., 0., 0.]);
    let (ids, _) = tokenizer.encode_batch(&["red"], 9, Padding::Fixed).unwrap();
    assert_eq!(ids.dims(), [1, 9]);
    assert_eq!(tokenizer.decode(&[2, 5, 6, 7, 3, 0]), "red apples");
    assert!(matches!(tokenizer.encode("red", 2), Err(Error::TooShort { .. })));
    assert!(matches!(Tokenizer::new("[PAD]\nred"), Err(Error::Vocabulary { .. })));
    let nothing: [&str; 0] = [];
    assert!(matches!(
        tokenizer.encode_batch(&nothing, 9, Padding::Longest),
        Err(Error::Empty { .. })
    ));
}

#[test]
fn evaluation_normalizes_and_scales() {
    let flat = Image::new(50, 30, [255, 0, 128].repeat(1500)).unwrap();
    let mut out = vec![0f32; 3 * 64];
    let mut stream = Stream::new(0, "augment", 0, 0);
    EvalTransform { size: 8 }.apply(&flat, &mut stream, &mut out).unwrap();
    for (channel, value) in [1.0, 0.0, 128.0 / 255.0].into_iter().enumerate() {
        let expected = (value - MEAN[channel]) / STD[channel];
        for found in &out[channel * 64..(channel + 1) * 64] {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
    assert!(EvalTransform { size: 9 }.apply(&flat, &mut stream, &mut out).is_err());
    assert!(EvalTransform { size: 0 }.apply(&flat, &mut stream, &mut []).is_err());
}

/// Pillow 13's `resize((3, 3), BICUBIC)` of the 6 x 6 image with value (37 x + 59 y) mod 256.
#[test]
fn scaling_is_pils_bicubic() {
    let value = |x: usize, y: usize| ((37 * x + 59 * y) % 256) as u8;
    let rgb = (0..36).flat_map(|i| [value(i % 6, i / 6); 3]).collect();
    let small = Image::new(6, 6, rgb).unwrap().resize(3, None).unwrap();
    let found: Vec<u8> = small.rgb().chunks(3).map(|p| p[0]).collect();
    let expected: [u8; 9] = [54, 131, 182, 168, 157, 78, 102, 99, 166];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.abs_diff(expected) <= 1, "{found} {expected}");
    }
}

#[test]
fn transforms_depend_on_their_stream_alone() {
    let dataset = noto();
    let image = dataset.image(3).unwrap();
    let transforms: [Box<dyn Transform>; 2] =
        [Box::new(AffineAugment::new(96)), Box::new(RandAugmentTransform::new(96))];
    for transform in transforms {
        let run = |index: u64| {
            let mut out = vec![0f32; 3 * 96 * 96];
            let mut stream = Stream::new(5, "augment", 2, index);
            transform.apply(&image, &mut stream, &mut out).unwrap();
            assert!(out.iter().all(|v| v.is_finite() && v.abs() < 4.0));
            out
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}

#[test]
fn without_randomness_augmentation_is_the_image() {
    let still = AffineAugment {
        size: 64,
        scale: (1.0, 1.0),
        shift: 0.0,
        rotation: 0.0,
        flip: 0.0,
        color: 0.0,
        gray: 0.0,
    };
    let dataset = noto();
    let image = dataset.image(10).unwrap();
    let (mut found, mut expected) = (vec![0f32; 3 * 64 * 64], vec![0f32; 3 * 64 * 64]);
    let mut stream = Stream::new(0, "augment", 0, 0);
    still.apply(&image, &mut stream, &mut found).unwrap();
    EvalTransform { size: 64 }.apply(&image, &mut stream, &mut expected).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    // An image of one color stays one color where it is not white outside; grayscale has equal
    // channels.
    let gray = AffineAugment { gray: 1.0, ..still };
    gray.apply(&image, &mut stream, &mut found).unwrap();
    for i in 0..64 * 64 {
        let [r, g, b] = [0, 1, 2].map(|c| found[c * 4096 + i] * STD[c] + MEAN[c]);
        assert!((r - g).abs() < 1e-4 && (g - b).abs() < 1e-4);
    }
}

#[test]
fn augmentation_is_fast() {
    let dataset = noto().resized(96).unwrap();
    let (augment, mut out) = (AffineAugment::new(96), vec![0f32; 3 * 96 * 96]);
    let start = Instant::now();
    for index in 0..128 {
        let mut stream = Stream::new(0, "augment", 0, index);
        augment.apply(&dataset.image(index as usize).unwrap(), &mut stream, &mut out).unwrap();
    }
    println!("128 images of 96 pixels: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
}

#[test]
fn training_epochs_cover_everything_in_another_order() {
    let options = LoaderOptions { last_batch: LastBatch::Keep, ..LoaderOptions::training(200, 3) };
    let train = noto().split(Split::Train);
    let loader =
        Loader::new(train.clone(), Arc::new(EvalTransform { size: 8 }), tokenizer(), options)
            .unwrap();
    let epoch = |number: u64| -> Vec<usize> {
        loader.epoch(number).unwrap().flat_map(|b| b.unwrap().indices).collect()
    };
    let (first, second) = (epoch(0), epoch(1));
    assert_ne!(first, second);
    for mut order in [first, second] {
        order.sort_unstable();
        assert_eq!(order, (0..train.len()).collect::<Vec<_>>());
    }
    assert_eq!(loader.steps_per_epoch(), 6);
    assert_eq!(loader.epoch(1).unwrap().next().unwrap().unwrap().step, 6);
}

#[test]
fn evaluation_keeps_the_order_and_the_last_batch() {
    let test = noto().split(Split::Test);
    let options = LoaderOptions::evaluation(100);
    let loader =
        Loader::new(test, Arc::new(EvalTransform { size: 8 }), tokenizer(), options).unwrap();
    let indices: Vec<usize> = loader.epoch(0).unwrap().flat_map(|b| b.unwrap().indices).collect();
    assert_eq!(indices, (0..353).collect::<Vec<_>>());
    let one = loader.dataset().images(&[7], &EvalTransform { size: 8 }).unwrap();
    let same = loader.batch(0).unwrap().images.get(7).unwrap();
    let difference = (one.get(0).unwrap() - same).unwrap().abs().unwrap().max_all().unwrap();
    assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn an_error_of_a_thread_comes_in_its_place() {
    let png = encoded_image(2, 2, [0; 3], image::ImageFormat::Png);
    let files: Vec<(String, Vec<u8>)> = (0..10)
        .flat_map(|i| {
            let data = if i == 5 { b"broken".to_vec() } else { png.clone() };
            [(format!("{i}.png"), data), (format!("{i}.txt"), b"word".to_vec())]
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let samples = shard::parse("s.tar", &tar(&files)).unwrap();
    for num_workers in [0, 1, 3] {
        let dataset = Dataset::new(samples.clone(), Decode::OnUse).unwrap();
        let options = LoaderOptions { num_workers, ..LoaderOptions::evaluation(2) };
        let loader =
            Loader::new(dataset, Arc::new(EvalTransform { size: 4 }), tokenizer(), options)
                .unwrap();
        let batches: Vec<_> = loader.epoch(0).unwrap().collect();
        assert_eq!(batches.len(), 3, "two batches, then the error, then nothing");
        let error = batches[2].as_ref().unwrap_err();
        assert!(error.to_string().contains("image 5 does not decode"), "{error}");
    }
}

/// Transform that panics.
struct Bomb;

impl Transform for Bomb {
    fn size(&self) -> usize {
        4
    }

    fn apply(&self, _: &Image, _: &mut Stream, _: &mut [f32]) -> aurora_data::Result<()> {
        panic!("a transform of the test panics")
    }
}

#[test]
fn a_panic_of_a_thread_is_an_error_not_a_wait() {
    let options = LoaderOptions::evaluation(2);
    let loader = Loader::new(noto(), Arc::new(Bomb), tokenizer(), options).unwrap();
    let error = loader.epoch(0).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Worker { step: 0, .. }), "{error}");
}

#[test]
fn dropping_early_ends_the_threads() {
    for num_workers in [1, 4] {
        let options = LoaderOptions { num_workers, prefetch: 1, ..LoaderOptions::training(8, 0) };
        let loader =
            Loader::new(noto(), Arc::new(AffineAugment::new(16)), tokenizer(), options).unwrap();
        let mut endless = loader.batches(0, None).unwrap();
        assert_eq!(endless.next().unwrap().unwrap().step, 0);
        drop(endless);
    }
}

#[test]
fn options_that_cannot_work() {
    let make = |dataset: Dataset, options: LoaderOptions| {
        let made = Loader::new(dataset, Arc::new(EvalTransform { size: 8 }), tokenizer(), options);
        made.err().unwrap().to_string()
    };
    assert!(make(noto(), LoaderOptions::training(0, 0)).contains("batch_size = 0"));
    assert!(make(noto(), LoaderOptions::training(9999, 0)).contains("lower batch_size"));
    let nothing = Arc::new(EvalTransform { size: 0 });
    let made = Loader::new(noto(), nothing, tokenizer(), LoaderOptions::evaluation(4));
    assert!(made.err().unwrap().to_string().contains("size = 0"));
    let empty = noto().filter(|_| false);
    assert!(make(empty, LoaderOptions::evaluation(4)).contains("is empty"));
    assert!(matches!(Dataset::new(Vec::new(), Decode::AtLoad), Err(Error::Empty { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Batches do not depend on threads, prefetch or the first step.
    #[test]
    fn any_number_of_threads_gives_the_same_batches(
        num_workers in 1usize..6, prefetch in 0usize..4, seed: u64, first in 0u64..20, batch in 1usize..9,
    ) {
        let dataset = noto().filter(|s| s.key.ends_with('7'));
        let run = |num_workers, prefetch, first| -> Vec<_> {
            let options = LoaderOptions { num_workers, prefetch, ..LoaderOptions::training(batch, seed) };
            let augment = Arc::new(AffineAugment::new(12));
            let loader = Loader::new(dataset.clone(), augment, tokenizer(), options).unwrap();
            loader.batches(first, Some(24)).unwrap().map(|b| contents(&b.unwrap())).collect()
        };
        let expected = run(0, 0, 0);
        prop_assert_eq!(expected.len(), 24);
        prop_assert_eq!(&run(num_workers, prefetch, first), &expected[first as usize..]);
    }

    /// Clean-up is idempotent and leaves no removed character.
    #[test]
    fn cleaning_is_idempotent(text in "\\PC{0,80}", words in 1usize..40) {
        let once = clean(&text, words);
        prop_assert_eq!(clean(&once, words), once.clone());
        prop_assert!(once.split(' ').count() <= words);
        prop_assert!(!once.contains(['.', '!', '"', '(', ')', '*', '#', ':', ';', '~', '\n']));
        let question = clean_question(&text, words);
        prop_assert_eq!(clean_question(&question, words), question);
    }

    /// Every transform accepts images of any size.
    #[test]
    fn any_size_is_transformed(width in 1usize..80, height in 1usize..80, size in 1usize..40, seed: u64) {
        let image = Image::new(width, height, vec![77; width * height * 3]).unwrap();
        let mut out = vec![0f32; 3 * size * size];
        let transforms: [&dyn Transform; 3] =
            [&EvalTransform { size }, &AffineAugment::new(size), &RandAugmentTransform::new(size)];
        for transform in transforms {
            transform.apply(&image, &mut Stream::new(seed, "augment", 0, 0), &mut out).unwrap();
            prop_assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}
