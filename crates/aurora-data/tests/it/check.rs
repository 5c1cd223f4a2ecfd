//! Data check: planted faults are found.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::common::encoded_image;
use aurora_data::check::{Report, check};
use aurora_data::source::ReadOptions;
use aurora_data::{Captions, embedded};
use image::ImageFormat::Png;

fn look(paths: &[PathBuf]) -> Report {
    let reading = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    let told = Mutex::new(Vec::new());
    let progress = |what: &str, done: u64, total: u64| {
        assert!(done <= total);
        told.lock().unwrap().push(what.to_string());
    };
    let tokenizer = embedded::vocabulary().unwrap();
    let checked = check(paths, &reading, (&tokenizer, 8), &progress).unwrap();
    assert!(told.lock().unwrap().iter().any(|what| what == "counting words"));
    assert_eq!(checked.samples.len(), checked.report.samples);
    checked.report
}

/// Table with every kind of fault.
fn dirty() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, data: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    };
    let [a, b, c] = [1, 2, 3].map(|color| encoded_image(70, 60, [color; 3], Png));
    write("a.png", &a);
    write("again.png", &a);
    write("b.png", &b);
    write("c.png", &c);
    write("tiny.png", &encoded_image(64, 8, [9; 3], Png));
    write("cut.png", &c[..c.len() / 2]);
    write("empty.png", b"");
    write("walk/0.png", &a);
    write("walk/1.png", &b);
    let rows = "image,caption,split\n\
                a.png,a red apple,train\n\
                a.png,one two three four five six seven eight nine,train\n\
                again.png,a red apple,test\n\
                b.png,a red apple,train\n\
                c.png,\u{5c0f}\u{72ac} \u{43a}\u{43e}\u{442},validation\n\
                tiny.png,a line,train\n\
                cut.png,half an image,train\n\
                empty.png,nothing,train\n\
                gone.png,gone,train\n\
                walk,a walk,train\n";
    write("captions.csv", rows.as_bytes());
    folder
}

#[test]
fn everything_is_found() {
    let folder = dirty();
    let report = look(&[folder.path().to_path_buf()]);
    assert!(report.stops());
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for part in ["cut.png", "empty.png is empty", "gone.png is not there"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
    assert!(problems.iter().any(|p| p.contains("captions.csv, line 10")), "{problems:?}");
    assert_eq!((report.images, report.clips, report.frames), (6, 1, 2));
    assert_eq!((report.samples, report.captions, report.questions), (7, 8, 0));
    assert_eq!((report.parts["train"].samples, report.parts["test"].samples), (5, 1));

    assert_eq!(report.tiny.len(), 1);
    assert_eq!((report.tiny[0].width, report.tiny[0].height), (64, 8));
    assert_eq!(report.sizes.smallest, 8);
    assert_eq!(report.sizes.largest, 70);
    assert_eq!(report.sizes.shorter_side[0].count, 1);
    // Five images that decode, and two frames.
    assert_eq!(report.sizes.shorter_side.iter().map(|bin| bin.count).sum::<usize>(), 7);

    assert_eq!(report.same_image.duplicates.len(), 1);
    assert_eq!(report.same_image.leaks.len(), 1);
    let members = report.same_image.leaks[0].members.join(" ");
    assert!(members.contains("train: ") && members.contains("again.png"), "{members}");
    assert_eq!(report.same_caption.leaks.len(), 1);
    assert_eq!(report.same_caption.leaks[0].shared, "a red apple");
    assert_eq!(report.same_caption.duplicates[0].members.len(), 3);
}

#[test]
fn words_are_counted_as_the_tokenizer_counts() {
    let folder = dirty();
    let report = look(&[folder.path().to_path_buf()]);
    let tokenizer = embedded::vocabulary().unwrap();
    let length = |text: &str| tokenizer.encode(text, 1000).unwrap().len();
    let long = length("one two three four five six seven eight nine");
    assert!(long > 8);
    assert_eq!(report.lengths.longest(), long);
    assert_eq!(report.lengths.texts(), 8);
    assert!(report.lengths.histogram[&length("a walk")] >= 1);
    assert_eq!(
        report.lengths.cut,
        report.lengths.histogram.range(9..).map(|(_, n)| n).sum::<usize>()
    );
    let script = |name: &str| {
        report.unknown.scripts.iter().find(|s| s.script == name).unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!(script("Latin").unknown, 0);
    let han = script("Han");
    // The tokenizer splits CJK characters: two tokens, both unknown to this vocabulary.
    assert_eq!((han.words, han.tokens, han.unknown), (1, 2, 2));
    assert_eq!(script("Cyrillic").unknown, script("Cyrillic").tokens);
    assert!(report.unknown.unknown >= 3);
}

#[test]
fn the_embedded_images_are_clean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noto.tar.gz");
    fs::write(&path, embedded::NOTO).unwrap();
    let report = look(std::slice::from_ref(&path));
    assert!(!report.stops(), "{:?}", report.problems);
    assert_eq!(report.images, 1585);
    assert!(report.same_image.leaks.is_empty() && report.same_caption.leaks.is_empty());
    assert_eq!(report.unknown.unknown, 0);
    // Given beside another file, a shard without splits is a part of its own; truncated, it is a
    // problem.
    let cut = folder.path().join("cut.tar.gz");
    fs::write(&cut, &embedded::NOTO[..9999]).unwrap();
    let report = look(&[path, cut]);
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].to_string().contains("truncated"), "{:?}", report.problems);
}

#[test]
fn files_without_splits_are_parts_and_paths_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let png = encoded_image(40, 40, [5; 3], Png);
    let mut paths = Vec::new();
    for name in ["one", "two"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("p.png"), &png).unwrap();
        fs::write(folder.path().join(name).join("p.txt"), name).unwrap();
        paths.push(folder.path().join(name));
    }
    let report = look(&paths);
    assert_eq!(report.parts.len(), 2);
    assert_eq!(report.same_image.leaks.len(), 1);
    let missing = [folder.path().join("three")];
    let tokenizer = embedded::vocabulary().unwrap();
    let error =
        check(&missing, &ReadOptions::default(), (&tokenizer, 8), &|_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("three"), "{error}");
}
