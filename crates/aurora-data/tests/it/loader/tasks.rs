//! Batches of clips and of questions.

use std::sync::Arc;

use aurora_data::caption::{MAX_IMAGE_WORDS, MAX_QUESTION_WORDS, MAX_VIDEO_WORDS};
use aurora_data::video::Sampling;
use aurora_data::{
    AffineAugment, Dataset, Decode, Loader, LoaderOptions, Mode, OnError, SkipLog, TextField, shard,
};
use image::ImageFormat;

use super::{loader, tokenizer};
use crate::common;

/// Dataset of a shard of these files.
fn dataset(files: &[(&str, Vec<u8>)]) -> Dataset {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (*n, d.as_slice())).collect();
    Dataset::new(shard::parse("s.tar", &common::tar(&files)).unwrap(), Decode::OnUse).unwrap()
}

fn gray(value: u8) -> Vec<u8> {
    common::encoded_image(2, 2, [value; 3], ImageFormat::Png)
}

/// GIF with gray frames of these values, a tenth of a second each.
fn gif(values: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut out);
    for &value in values {
        let image = image::RgbaImage::from_pixel(2, 2, image::Rgba([value, value, value, 255]));
        let delay = image::Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(image::Frame::from_parts(image, 0, 0, delay)).unwrap();
    }
    drop(encoder);
    out
}

/// A clip of five frames, one of three, a still image and a video of four.
fn clips() -> Dataset {
    let mut files = Vec::new();
    for (name, value) in [
        ("a.000.png", 10),
        ("a.001.png", 20),
        ("a.002.png", 30),
        ("a.003.png", 40),
        ("a.004.png", 50),
    ] {
        files.push((name, gray(value)));
    }
    files.push(("a.txt", b"going up".to_vec()));
    for (name, value) in [("b.000.png", 110), ("b.001.png", 100), ("b.002.png", 90)] {
        files.push((name, gray(value)));
    }
    files.push(("b.txt", b"going down".to_vec()));
    files.extend([("c.png", gray(70)), ("c.txt", b"still".to_vec())]);
    files.extend([("d.gif", gif(&[60, 61, 62, 63])), ("d.txt", b"a video".to_vec())]);
    dataset(&files)
}

/// Gray value of every frame of every clip, and the frame mask.
fn grays(batch: &aurora_data::Batch) -> (Vec<Vec<u8>>, Vec<Vec<f32>>) {
    let (clips, frames, channels, height, width) = batch.images.dims5().unwrap();
    assert_eq!((channels, height, width), (3, 2, 2));
    let (mean, std) = (aurora_data::transform::MEAN[0], aurora_data::transform::STD[0]);
    let red = batch.images.reshape((clips, frames, 12)).unwrap().narrow(2, 0, 1).unwrap();
    let red: Vec<Vec<f32>> = red.squeeze(2).unwrap().to_vec2().unwrap();
    let mask: Vec<Vec<f32>> = batch.frame_mask.as_ref().unwrap().to_vec2().unwrap();
    let gray = |value: &f32| ((value * std + mean) * 255.0).round() as u8;
    let there = |(row, mask): (&Vec<f32>, &Vec<f32>)| -> Vec<u8> {
        row.iter().zip(mask).filter(|(_, there)| **there == 1.0).map(|(v, _)| gray(v)).collect()
    };
    // Padding frames are exactly zero.
    let padding = red.iter().flatten().zip(mask.iter().flatten()).filter(|(_, m)| **m == 0.0);
    assert!(padding.into_iter().all(|(value, _)| *value == 0.0));
    (red.iter().zip(&mask).map(there).collect(), mask)
}

#[test]
fn clips_are_sampled_padded_and_masked() {
    let dataset = clips();
    let options =
        LoaderOptions { video: Some(Sampling::Uniform(4)), ..LoaderOptions::evaluation(4) };
    let batch = loader(&dataset, 2, options).batch(0).unwrap();
    assert_eq!(batch.images.dims(), [4, 4, 3, 2, 2]);
    let (values, mask) = grays(&batch);
    assert_eq!(values[0], [10, 20, 40, 50]);
    assert_eq!(values[1], [110, 100, 90]);
    assert_eq!(values[2], [70]);
    assert_eq!(values[3], [60, 61, 62, 63]);
    assert_eq!(mask, [[1., 1., 1., 1.], [1., 1., 1., 0.], [1., 0., 0., 0.], [1., 1., 1., 1.]]);
    assert_eq!(batch.texts, ["going up", "going down", "still", "a video"]);

    // Stored frames are assumed to be at the rate already; a video's have timestamps.
    let rate = Sampling::Rate { fps: 5.0, most: 4 };
    let options = LoaderOptions { video: Some(rate), ..LoaderOptions::evaluation(4) };
    let (values, _) = grays(&loader(&dataset, 2, options).batch(0).unwrap());
    assert_eq!(values, [vec![10, 20, 40, 50], vec![110, 100, 90], vec![70], vec![60, 62]]);
}

#[test]
fn random_frames_are_drawn_in_training_alone_and_are_functions_of_the_epoch() {
    let dataset = clips();
    let options = |mode, seed, num_workers| LoaderOptions {
        mode,
        num_workers,
        video: Some(Sampling::Random(2)),
        ..LoaderOptions { seed, ..LoaderOptions::evaluation(1) }
    };
    let run = |mode, seed, num_workers| -> Vec<Vec<u8>> {
        let loader = loader(&dataset, 2, options(mode, seed, num_workers));
        // The first clip of each of eight epochs.
        let batches = loader.batches(0, Some(32)).unwrap().step_by(4);
        batches.map(|batch| grays(&batch.unwrap()).0.remove(0)).collect()
    };
    let training = run(Mode::Train, 1, 0);
    assert!(training.iter().all(|frames| frames.len() == 2 && frames[0] < frames[1]));
    assert!(training.iter().any(|frames| frames != &training[0]));
    assert_eq!(training, run(Mode::Train, 1, 3));
    assert_ne!(training, run(Mode::Train, 2, 3));
    assert_eq!(run(Mode::Eval, 1, 0), vec![vec![20, 40]; 8]);
}

/// All frames of a clip share one draw of the augmentation.
#[test]
fn a_clip_is_augmented_as_one() {
    let png = {
        let image =
            image::RgbImage::from_fn(9, 9, |x, y| image::Rgb([(x * 28) as u8, (y * 28) as u8, 7]));
        let mut out = std::io::Cursor::new(Vec::new());
        image.write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    };
    let dataset =
        dataset(&[("a.000.png", png.clone()), ("a.001.png", png), ("a.txt", b"same".to_vec())]);
    let options =
        LoaderOptions { video: Some(Sampling::Uniform(2)), ..LoaderOptions::training(1, 3) };
    let loader =
        Loader::new(dataset, Arc::new(AffineAugment::new(8)), tokenizer(), options).unwrap();
    let frames = |step| -> Vec<Vec<f32>> {
        loader.batch(step).unwrap().images.reshape((2, 192)).unwrap().to_vec2().unwrap()
    };
    let (first, second) = (frames(0), frames(1));
    assert_eq!(first[0], first[1]);
    assert_ne!(first[0], second[0]);
}

#[test]
fn a_broken_frame_is_named_and_its_clip_left_out() {
    let dataset = dataset(&[
        ("a.000.png", gray(1)),
        ("a.001.png", b"\x89PNG\r\n\x1a\ncut".to_vec()),
        ("a.txt", b"one".to_vec()),
        ("b.png", gray(5)),
        ("b.txt", b"two".to_vec()),
    ]);
    let options =
        LoaderOptions { video: Some(Sampling::Uniform(2)), ..LoaderOptions::training(2, 0) };
    let stops = loader(&dataset, 2, options.clone());
    let message = stops.batch(0).unwrap_err().to_string();
    assert!(message.contains("image a does not decode: frame 1: "), "{message}");
    let skips = Arc::new(SkipLog::new(OnError::Skip, 1));
    let batch = loader(&dataset, 2, options).with_skips(skips).batch(0).unwrap();
    // The frame written before the broken one is cleared.
    assert_eq!(grays(&batch).0, [[5], [5]]);
}

fn questions() -> Dataset {
    let json = |text: &str| text.as_bytes().to_vec();
    dataset(&[
        ("a.png", gray(10)),
        (
            "a.json",
            json(
                r#"{"question": "What color?", "question_id": 7, "answers": ["red", "blue", "red", "red"]}"#,
            ),
        ),
        ("b.png", gray(20)),
        (
            "b.json",
            json(r#"{"question": "Is it a dog?", "answers": [{"answer": "yes", "weight": 0.2}]}"#),
        ),
        ("c.png", gray(30)),
        ("c.json", json(r#"{"question": "Who?", "answers": []}"#)),
    ])
}

#[test]
fn questions_come_with_their_answers() {
    let asked = |mode| LoaderOptions {
        text_field: TextField::Questions,
        mode,
        ..LoaderOptions::evaluation(3)
    };
    let dataset = questions();
    let batch = loader(&dataset, 2, asked(Mode::Eval)).batch(0).unwrap();
    assert_eq!(batch.texts, ["what color?", "is it a dog?", "who?"]);
    assert_eq!(batch.images.dims(), [3, 3, 2, 2]);
    assert_eq!(batch.input_ids.dims(), batch.attention_mask.dims());
    let answers = batch.answers.unwrap();
    assert_eq!(answers.texts, ["red", "blue", "yes"]);
    assert_eq!((answers.questions, answers.counts), (vec![0, 0, 1], vec![2, 1, 0]));
    assert_eq!(answers.weights, [0.75, 0.25, 0.2]);
    let ids: Vec<Vec<u32>> = answers.input_ids.to_vec2().unwrap();
    let mask: Vec<Vec<f32>> = answers.attention_mask.to_vec2().unwrap();
    let tokenizer = tokenizer();
    for ((ids, mask), text) in ids.iter().zip(&mask).zip(["red", "blue", "yes"]) {
        let mut expected = tokenizer.encode(text, 35).unwrap();
        expected[0] = tokenizer.special().dec;
        let there = mask.iter().filter(|value| **value == 1.0).count();
        assert_eq!(ids[..there], expected);
        assert!(ids[there..].iter().all(|id| *id == tokenizer.special().pad));
    }

    // Training requires answers, and a caption is no question.
    let message = loader(&dataset, 2, asked(Mode::Train)).batch(0).unwrap_err().to_string();
    assert!(message.contains("image c has no answer"), "{message}");
    let captioned =
        LoaderOptions { text_field: TextField::Questions, ..LoaderOptions::evaluation(1) };
    let message = loader(&clips(), 2, captioned).batch(0).unwrap_err().to_string();
    assert!(message.contains("has no question; put \"question\""), "{message}");
}

#[test]
fn answers_of_rows_that_do_not_count_weigh_nothing() {
    let options = LoaderOptions {
        text_field: TextField::Questions,
        last_batch: aurora_data::LastBatch::Pad,
        ..LoaderOptions::evaluation(2)
    };
    let batch = loader(&questions(), 2, options).batch(1).unwrap();
    assert_eq!((batch.indices, batch.valid), (vec![2, 0], vec![true, false]));
    let answers = batch.answers.unwrap();
    assert_eq!(answers.counts, [0, 2]);
    assert_eq!(answers.weights, [0.0, 0.0]);
}

#[test]
fn a_question_about_a_clip() {
    let dataset = dataset(&[
        ("a.gif", gif(&[1, 2, 3])),
        ("a.json", br#"{"question": "what happens?", "answers": "it brightens"}"#.to_vec()),
    ]);
    let options = LoaderOptions {
        text_field: TextField::Questions,
        video: Some(Sampling::Uniform(8)),
        ..LoaderOptions::training(1, 0)
    };
    let batch = loader(&dataset, 2, options).batch(0).unwrap();
    assert_eq!(batch.images.dims(), [1, 8, 3, 2, 2]);
    assert_eq!(grays(&batch).0, [[1, 2, 3]]);
    assert_eq!(batch.answers.unwrap().texts, ["it brightens"]);
}

/// Each task truncates texts where BLIP's datasets do.
#[test]
fn words_are_cut_by_task() {
    let long: String = (0..60).map(|n| format!("w{n} ")).collect();
    let question = format!(r#"{{"question": "{long}?", "answers": "yes", "caption": "{long}"}}"#);
    let dataset = dataset(&[
        ("a.png", gray(1)),
        ("a.json", question.into_bytes()),
        ("b.000.png", gray(2)),
        ("b.001.png", gray(3)),
        ("b.txt", long.into_bytes()),
    ]);
    let words = |words| {
        let options = LoaderOptions { text_field: words, ..LoaderOptions::evaluation(1) };
        let loader = loader(&dataset, 2, options);
        move |step| loader.batch(step).unwrap().texts[0].split(' ').count()
    };
    let captions = words(TextField::Captions);
    assert_eq!((captions(0), captions(1)), (MAX_IMAGE_WORDS, MAX_VIDEO_WORDS));
    assert_eq!((words(TextField::Questions)(0), MAX_QUESTION_WORDS), (50, 50));
}
