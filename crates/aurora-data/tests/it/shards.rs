//! Shard and folder readers: accepted and refused input, and error messages.

use std::fs;
use std::io::Write;

use crate::common::{encoded_image, tar};
use aurora_data::{
    ByteSource, Captions, Dataset, Decode, Error, Media, OnError, QuestionId, SkipLog, Split,
    folder, shard,
};
use image::ImageFormat::{Jpeg, Png, WebP};
use proptest::prelude::*;

fn small() -> Vec<u8> {
    let (png, jpeg) = (encoded_image(4, 3, [9, 8, 7], Png), encoded_image(5, 5, [1, 2, 3], Jpeg));
    let json = br#"{"caption": "A (red) Fruit.", "keywords": ["Food"], "concept": "fruit", "split": "val", "extra": 1}"#;
    tar(&[("a.png", &png), ("b.jpg", &jpeg), ("a.json", json), ("b.txt", b"one\n\nTwo!\n")])
}

#[test]
fn a_shard_of_any_order_and_format() {
    let samples = shard::parse("s.tar", &small()).unwrap();
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].captions, ["a red fruit"]);
    assert_eq!(samples[0].keywords, ["food"]);
    assert_eq!(samples[0].split, Some(Split::Validation));
    assert_eq!(samples[1].captions, ["one", "two"]);
    assert_eq!(samples[1].concept, None);
    let dataset = Dataset::new(samples, Decode::AtLoad).unwrap();
    assert_eq!(dataset.image(0).unwrap().width(), 4);
    assert_eq!(dataset.concepts(), [0, 1]);
}

#[test]
fn a_gzipped_shard_is_the_same_and_is_checked_too() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&small()).unwrap();
    let gz = gz.finish().unwrap();
    let plain: Vec<String> =
        shard::parse("s", &small()).unwrap().into_iter().map(|s| s.key).collect();
    let keys: Vec<String> = shard::parse("s", &gz).unwrap().into_iter().map(|s| s.key).collect();
    assert_eq!(keys, plain);
    for cut in [3, gz.len() / 2, gz.len() - 1] {
        let error = shard::parse("s.tar.gz", &gz[..cut]).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{cut}: {error}");
    }
}

#[test]
fn a_shard_on_disk_keeps_places_and_reads_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    fs::write(&path, small()).unwrap();
    let (lazy, whole) = (shard::read(&path).unwrap(), shard::parse("s", &small()).unwrap());
    for (lazy, whole) in lazy.iter().zip(&whole) {
        let [lazy, whole] = [lazy, whole].map(|s| &s.media.contents()[0]);
        assert!(matches!(lazy, ByteSource::Part { .. }) && lazy.path() == Some(path.as_path()));
        assert_eq!(lazy.bytes().unwrap(), whole.bytes().unwrap());
        assert_eq!(lazy.head(8).unwrap(), whole.head(8).unwrap());
        assert_eq!(lazy.len(), whole.len());
    }
    // A shard replaced by a shorter one during a run.
    fs::write(&path, &small()[..700]).unwrap();
    let error = shard::read(&path).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    let error = lazy[1].media.contents()[0].bytes().unwrap_err().to_string();
    assert!(error.contains("has become shorter"), "{error}");
}

#[test]
fn clips_and_questions_in_a_shard() {
    let [a, b] = [1, 2].map(|c| encoded_image(2, 2, [c; 3], Png));
    let json =
        br#"{"question": "Who (is) it?", "question_id": 7, "answers": ["me", "me", "you", "me"]}"#;
    let bytes = tar(&[
        ("clip.010.png", &b),
        ("clip.9.png", &a),
        ("clip.txt", b"a walk"),
        ("moves.gif", b"GIF89a"),
        ("moves.json", json),
    ]);
    let samples = shard::parse("s.tar", &bytes).unwrap();
    let frames = [a, b.clone()].map(|data| ByteSource::Memory(data.into()));
    assert_eq!(samples[0].media, Media::Frames(frames.to_vec()));
    assert!(matches!(samples[1].media, Media::Video(_)));
    let question = samples[1].question.as_ref().unwrap();
    assert_eq!(question.text, "who is it?");
    assert_eq!(question.id, Some(QuestionId::Number(7)));
    assert_eq!(question.answers, [("me".to_string(), 0.75), ("you".to_string(), 0.25)]);
    for other in ["clip.png", "clip.9.jpg", "clip.mp4"] {
        let bytes = tar(&[("clip.txt", b"x"), ("clip.9.png", &b), (other, &b)]);
        let error = shard::parse("s.tar", &bytes).unwrap_err();
        assert!(matches!(error, Error::Duplicate { .. }), "{other}: {error}");
    }
}

#[test]
fn what_is_there_twice_is_left_out_and_the_rest_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    let [a, b] = [1, 2].map(|c| encoded_image(2, 2, [c; 3], Png));
    let words = br#"{"caption": "x"}"#;
    let files: [(&str, &[u8]); 9] = [
        ("1.png", &a),
        ("1.json", words),
        ("1.png", &b),
        ("1.png", &b),
        ("2.png", &a),
        ("2.json", words),
        ("3.jpg", &a),
        ("3.txt", b"one"),
        ("3.txt", b"another"),
    ];
    fs::write(&path, tar(&files)).unwrap();
    let skips = SkipLog::new(OnError::Skip, 9);
    let samples = shard::read_with(&path, &skips).unwrap();
    let keys: Vec<&str> = samples.iter().map(|sample| sample.key.as_str()).collect();
    assert_eq!(keys, ["2"]);
    let listed: Vec<String> = skips.list().into_iter().map(|skipped| skipped.reason).collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|reason| reason.contains("is there twice")), "{listed:?}");
}

#[test]
fn names_longer_than_a_header() {
    let png = encoded_image(2, 2, [0; 3], Png);
    let long = "folder/".repeat(30) + "name";
    let bytes =
        tar(&[(&format!("{long}.png"), &png), (&format!("{long}.json"), br#"{"caption":"x"}"#)]);
    assert_eq!(shard::parse("s", &bytes).unwrap()[0].key, long);
}

#[test]
fn missing_and_truncated_shards_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no.tar");
    let error = shard::read(&missing).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("no.tar"));

    let whole = small();
    let path = folder.path().join("cut.tar");
    // Cuts: in the first header, in the first image, after an entry, before the end of the archive.
    let cuts = [
        (100, "at its beginning"),
        (520, "in a.png: 8 of its"),
        (1024, "after a.png: no end of archive"),
        (whole.len() - 1024, "after b.txt: no end of archive"),
    ];
    for (cut, says) in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = shard::read(&path).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{cut}: {error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("cut.tar"), "{cut}: {text}");
    }
}

#[test]
fn a_caption_or_an_image_alone() {
    let png = encoded_image(2, 2, [0; 3], Png);
    let text = |bytes: &[u8]| shard::parse("s.tar", bytes).unwrap_err().to_string();
    let lonely = text(&tar(&[("7.png", &png)]));
    assert!(lonely.contains("image 7 has no caption"), "{lonely}");
    let lonely = text(&tar(&[("7.png", &png), ("7.json", br#"{"caption": " . "}"#)]));
    assert!(lonely.contains("image 7 has no caption"), "{lonely}");
    let lonely = text(&tar(&[("7.png", &png), ("7.txt", b"x"), ("8.txt", b"a word")]));
    assert!(lonely.contains("caption 8 has no image"), "{lonely}");
    assert!(text(&tar(&[])).contains("holds no image"));
}

#[test]
fn bad_records_name_the_file() {
    let png = encoded_image(2, 2, [0; 3], Png);
    for json in [&b"{"[..], br#"{"caption": 3}"#, br#"{"caption": "x", "split": "all"}"#, b"\xff"] {
        let error = shard::parse("s.tar", &tar(&[("7.png", &png), ("7.json", json)])).unwrap_err();
        assert!(matches!(error, Error::Record { .. }), "{error}");
        assert!(error.to_string().contains("7.json"), "{error}");
    }
    let error = shard::parse("s.tar", &tar(&[("7.png", &png), ("7.txt", b"\xff")])).unwrap_err();
    assert!(error.to_string().contains("7.txt"), "{error}");
}

/// Text quoted from a record cannot move a terminal's cursor, and is truncated.
#[test]
fn bad_records_are_quoted_printably() {
    let png = encoded_image(2, 2, [0; 3], Png);
    let json = format!(r#"{{"caption": "x", "split": "\u001b[2J{}"}}"#, "y".repeat(9000));
    let bytes = tar(&[("7.png", &png), ("7.json", json.as_bytes())]);
    let error = shard::parse("s.tar", &bytes).unwrap_err().to_string();
    assert!(error.contains("7.json") && error.contains("\\u{1b}[2J"), "{error}");
    assert!(!error.contains(char::is_control) && error.len() < 1000, "{error}");
}

#[test]
fn images_that_do_not_decode_name_shard_and_key() {
    let mut cut = encoded_image(40, 40, [200, 10, 10], Png);
    cut.truncate(cut.len() / 2);
    for data in [&b"not an image"[..], b"", b"\x89PNG\r\n\x1a\n", &cut] {
        let samples = shard::parse("s.tar", &tar(&[("7.png", data), ("7.txt", b"x")])).unwrap();
        let error = Dataset::new(samples.clone(), Decode::AtLoad).unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("s.tar") && text.contains("image 7"), "{text}");
        let late = Dataset::new(samples, Decode::OnUse).unwrap();
        assert!(matches!(late.image(0), Err(Error::Decode { .. })));
    }
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let error = folder::read(path, Captions::Optional).unwrap_err();
    assert!(matches!(error, Error::EmptyFolder { .. }), "{error}");
    let error = folder::read(&path.join("none"), Captions::Optional).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");

    fs::create_dir(path.join("sub")).unwrap();
    fs::write(path.join("notes.md"), "nothing").unwrap();
    fs::write(path.join("a.png"), encoded_image(3, 3, [1; 3], WebP)).unwrap();
    fs::write(path.join("sub/b.jpeg"), encoded_image(3, 3, [1; 3], Jpeg)).unwrap();
    fs::write(path.join("sub/without-extension"), encoded_image(3, 3, [1; 3], Png)).unwrap();
    fs::write(path.join("a.txt"), "a Dot").unwrap();
    let samples = folder::read(path, Captions::Optional).unwrap();
    let keys: Vec<&str> = samples.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(keys, ["a", "sub/b", "sub/without-extension"]);
    assert_eq!(samples[0].captions, ["a dot"]);
    assert!(samples[1].captions.is_empty());
    Dataset::new(samples, Decode::AtLoad).unwrap();

    let error = folder::read(path, Captions::Required).unwrap_err();
    assert!(error.to_string().contains("sub/b has no caption"), "{error}");
    fs::write(path.join("sub/b.txt"), "b").unwrap();
    fs::write(path.join("sub/without-extension.txt"), "c").unwrap();
    assert_eq!(folder::read(path, Captions::Required).unwrap().len(), 3);
    fs::write(path.join("z.txt"), "no image").unwrap();
    let error = folder::read(path, Captions::Required).unwrap_err();
    assert!(error.to_string().contains("caption z has no image"), "{error}");
}

#[test]
fn folders_of_frames_with_words_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("walk.v2")).unwrap();
    for (number, color) in [(10, 3), (9, 2), (1, 1)] {
        let data = encoded_image(2, 2, [color; 3], Png);
        fs::write(path.join(format!("walk.v2/f{number}.png")), data).unwrap();
    }
    fs::write(path.join("walk.v2.txt"), "a walk").unwrap();
    fs::write(path.join("b.gif"), b"GIF89a").unwrap();
    let samples = folder::read(path, Captions::Required).unwrap();
    assert_eq!(samples.len(), 1, "a video without words is left alone");
    assert_eq!((samples[0].key.as_str(), &samples[0].captions[0][..]), ("walk.v2", "a walk"));
    let Media::Frames(frames) = &samples[0].media else { panic!("frames") };
    let names: Vec<String> = frames
        .iter()
        .map(|f| f.path().unwrap().file_name().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["f1.png", "f9.png", "f10.png"]);
    fs::write(path.join("b.txt"), "it moves").unwrap();
    let samples = folder::read(path, Captions::Required).unwrap();
    assert!(matches!(samples[0].media, Media::Video(_)));
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("sub")).unwrap();
    fs::write(path.join("sub/a.png"), encoded_image(2, 2, [0; 3], Png)).unwrap();
    std::os::unix::fs::symlink(path, path.join("sub/again")).unwrap();
    std::os::unix::fs::symlink(path.join("self"), path.join("self")).unwrap();
    assert_eq!(folder::read(path, Captions::Optional).unwrap().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No truncated shard is accepted as whole, and none panics.
    #[test]
    fn any_truncation_is_an_error(share in 0.0..1.0f64) {
        let whole = small();
        // One empty block of the two at the end is enough to know that nothing is missing.
        let cut = ((whole.len() - 1024) as f64 * share) as usize;
        prop_assert!(shard::parse("s", &whole[..cut]).is_err());
    }

    /// Damaged bytes may go unnoticed, but never panic.
    #[test]
    fn any_damage_is_survived(at in 0usize..4096, byte: u8, cut in 0usize..8192) {
        let mut bytes = small();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(samples) = shard::parse("s", &bytes) {
            let _ = Dataset::new(samples, Decode::AtLoad);
        }
    }

    /// Arbitrary bytes never panic, even if they claim to be gzip.
    #[test]
    fn arbitrary_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000), zip: bool) {
        if zip && bytes.len() > 2 {
            bytes[..2].copy_from_slice(&[0x1f, 0x8b]);
        }
        prop_assert!(shard::parse("s", &bytes).is_err() || bytes.iter().all(|&b| b == 0));
    }
}
