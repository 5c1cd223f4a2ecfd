//! Benchmark annotations in their published form, on our own fixtures in `tests/formats`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{answers, encoded_image};
use aurora_data::formats::vqa::{VISUAL_GENOME_WEIGHT, answer_list};
use aurora_data::source::{self, ReadOptions};
use aurora_data::{Format, Media, QuestionId, Sample, SkipLog};
use image::ImageFormat::Jpeg;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn read(path: &Path, options: &ReadOptions) -> Vec<Sample> {
    source::read(path, options, &SkipLog::default()).unwrap()
}

/// Folder with every image and clip that the fixtures name.
fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = encoded_image(40, 40, [7; 3], Jpeg);
    for name in [
        "val2014/COCO_val2014_000000000042.jpg",
        "val2014/COCO_val2014_000000000073.jpg",
        "1000092795.jpg",
        "VG_100K/2.jpg",
        "video7/000.jpg",
        "video7/001.jpg",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &jpeg).unwrap();
    }
    fs::write(folder.path().join("video8.mp4"), b"\0\0\0\x18ftypisom").unwrap();
    fs::write(folder.path().join("1@N02_a.mov"), b"\0\0\0\x18ftypqt  ").unwrap();
    folder
}

fn options(folder: &tempfile::TempDir) -> ReadOptions {
    ReadOptions { image_roots: vec![folder.path().to_path_buf()], ..ReadOptions::default() }
}

#[test]
fn coco() {
    let folder = images();
    let train = read(&fixture("coco_karpathy_train.json"), &options(&folder));
    assert_eq!(train.len(), 3, "a training row is a sample");
    assert_eq!(train[0].captions, ["a dog runs, on the beach"]);
    assert_eq!(train[0].concept.as_deref(), Some("coco_42"));
    assert_eq!(train[0].concept, train[1].concept);
    assert!(matches!(&train[2].media, Media::Image(content) if content.len() > 100));
    let test = read(&fixture("coco_karpathy_test.json"), &options(&folder));
    assert_eq!(test.len(), 1);
    assert_eq!(test[0].captions.len(), 5);
    assert_eq!(test[0].key, "val2014/COCO_val2014_000000000073.jpg");
}

#[test]
fn flickr30k_takes_the_base_name() {
    let folder = images();
    for format in [Format::Auto, Format::Flickr30k] {
        let options = ReadOptions { format, ..options(&folder) };
        let samples = read(&fixture("flickr30k_train.json"), &options);
        assert_eq!(samples[0].key, "1000092795.jpg");
        assert_eq!(samples[0].concept.as_deref(), Some("0"));
        let samples = read(&fixture("flickr30k_test.json"), &options);
        assert_eq!(samples[0].captions.len(), 5);
    }
    // As COCO the path is taken whole, and the error lists the searched folders.
    let options = ReadOptions { format: Format::Coco, ..options(&folder) };
    let path = fixture("flickr30k_train.json");
    let error = source::read(&path, &options, &SkipLog::default()).unwrap_err().to_string();
    let looked = folder.path().join("flickr30k-images/1000092795.jpg");
    for part in ["flickr30k_train.json, row 1", &looked.display().to_string(), "data.image_root"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn clips_are_folders_of_frames_or_videos() {
    let folder = images();
    let samples = read(&fixture("msrvtt_train.jsonl"), &options(&folder));
    assert_eq!(samples.len(), 3, "a row is a sample");
    assert_eq!(samples[1].captions, ["somebody stirs a pot"]);
    assert_eq!(samples[0].concept, samples[1].concept);
    assert!(matches!(&samples[0].media, Media::Frames(frames) if frames.len() == 2));
    assert!(matches!(&samples[2].media, Media::Video(_)));
    let options = ReadOptions { format: Format::Didemo, ..options(&folder) };
    let samples = read(&fixture("didemo_test.jsonl"), &options);
    assert!(matches!(&samples[0].media, Media::Video(_)));
    assert_eq!(samples[0].captions[0].split(' ').count(), 40, "a paragraph keeps 40 words");
}

#[test]
fn vqa_weighs_answers() {
    let folder = images();
    let samples = read(&fixture("vqa_train.json"), &options(&folder));
    assert_eq!(samples.len(), 2);
    let question = samples[0].question.as_ref().unwrap();
    assert_eq!(
        (question.text.as_str(), &question.id),
        ("what colour is the dog?", &Some(QuestionId::Number(42001)))
    );
    let weights = answers(&samples[0]);
    assert_eq!(weights.iter().map(|(answer, _)| *answer).collect::<Vec<_>>(), ["brown", "tan"]);
    assert!((weights[0].1 - 0.7).abs() < 1e-6 && (weights[1].1 - 0.3).abs() < 1e-6);
    assert_eq!(answers(&samples[1]), [("a hat", VISUAL_GENOME_WEIGHT)]);
    let samples = read(&fixture("vqa_test.json"), &options(&folder));
    assert!(answers(&samples[0]).is_empty());
    assert_eq!(answer_list(&fixture("answer_list.json")).unwrap(), ["yes", "no", "brown"]);
}

#[test]
fn msrvtt_qa_in_both_layouts() {
    let folder = images();
    let first = read(&fixture("msrvtt_qa_train.json"), &options(&folder));
    let second = read(&fixture("msrvtt_qa_clipbert.jsonl"), &options(&folder));
    for samples in [&first, &second] {
        assert_eq!(samples[0].key, "video7");
        assert_eq!(samples[0].question.as_ref().unwrap().text, "what is a person doing?");
        assert_eq!(answers(&samples[0]), [("cook", 1.0)]);
    }
    let kind = |samples: &[Sample]| samples[0].question.as_ref().unwrap().answer_type.clone();
    assert_eq!((kind(&first), kind(&second)), (None, Some("what".to_string())));
    assert_eq!(first[0].question.as_ref().unwrap().id, Some(QuestionId::Number(5)));
}
