//! Custom tables: valid ones, error messages, and skipped rows.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::{answers, encoded_image};
use aurora_data::formats::vqa::answer_list;
use aurora_data::source::{self, ReadOptions};
use aurora_data::{
    ByteSource, Captions, Dataset, Decode, Error, Media, OnError, Sample, SkipLog, Split,
};
use image::ImageFormat::Png;
use proptest::prelude::*;

fn read(path: &Path, options: &ReadOptions) -> Vec<Sample> {
    source::read(path, options, &SkipLog::default()).unwrap()
}

fn refused(path: &Path) -> String {
    let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    source::read(path, &options, &SkipLog::default()).unwrap_err().to_string()
}

/// Folder with an image, `a.png`, a clip, `walk`, and a table.
fn own(name: &str, table: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), encoded_image(9, 9, [1; 3], Png)).unwrap();
    fs::create_dir(folder.path().join("walk")).unwrap();
    for number in ["2", "10"] {
        let path = folder.path().join(format!("walk/{number}.png"));
        fs::write(path, encoded_image(9, 9, [2; 3], Png)).unwrap();
    }
    fs::write(folder.path().join(name), table).unwrap();
    folder
}

#[test]
fn a_persons_own_table_in_three_forms() {
    let jsonl = br#"{"image": "a.png", "captions": ["one", "two"], "split": "val", "concept": "c"}
{"image": "a.png", "caption": "three", "split": "val", "concept": "c", "keywords": "k"}

{"clip": "walk", "caption": "a walk"}
{"image": "a.png", "question": "What?", "answers": ["this", "that"], "answer_type": "other"}
"#;
    let csv = "\u{feff}Image,Caption,Split,Concept,Keywords,Question,Answers,Answer_type\r\n\
               a.png,one|two,val,c,,,,\r\na.png,\"three\",val,c,k,,,\r\nwalk,a walk,,,,,,\r\n\
               a.png,,,,,What?,this|that,other\r\n";
    let tsv = csv.trim_start_matches('\u{feff}').replace("\"three\"", "three").replace(',', "\t");
    let forms = [
        ("captions.jsonl", &jsonl[..]),
        ("captions.csv", csv.as_bytes()),
        ("captions.tsv", tsv.as_bytes()),
    ];
    for (name, table) in forms {
        let folder = own(name, table);
        let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
        let samples = read(folder.path(), &options);
        assert_eq!(samples.len(), 3, "{name}");
        assert_eq!(samples[0].captions, ["one", "two", "three"], "{name}");
        assert_eq!(samples[0].keywords, ["k"]);
        assert_eq!(
            (samples[0].split, samples[0].concept.as_deref()),
            (Some(Split::Validation), Some("c"))
        );
        let Media::Frames(frames) = &samples[1].media else { panic!("{name}: frames") };
        assert!(frames[0].path().unwrap().ends_with("2.png"), "frames in the order of numbers");
        assert_eq!(answers(&samples[2]), [("this", 0.5), ("that", 0.5)]);
        assert_eq!(samples[2].question.as_ref().unwrap().answer_type.as_deref(), Some("other"));
        assert_eq!(samples[0].question, None, "an empty cell asks nothing");
    }
}

#[test]
fn a_video_that_a_row_names() {
    let folder = own("captions.csv", b"image,caption\nb.gif,it moves\n");
    fs::write(folder.path().join("b.gif"), b"GIF89a").unwrap();
    let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    assert!(matches!(read(folder.path(), &options)[0].media, Media::Video(_)));
}

/// MSR-VTT has captions; a custom table may ask about clips, and be named as a file.
#[test]
fn questions_about_clips() {
    let folder = own("asked.csv", b"clip,question,answer\nwalk,what is it?,a walk\n");
    let samples = read(&folder.path().join("asked.csv"), &ReadOptions::default());
    assert!(matches!(&samples[0].media, Media::Frames(frames) if frames.len() == 2));
    assert_eq!(samples[0].question.as_ref().unwrap().text, "what is it?");
    assert_eq!(answers(&samples[0]), [("a walk", 1.0)]);
}

#[test]
fn long_captions_are_cut_and_quotes_in_tsv_are_letters() {
    let long = "word ".repeat(100_000);
    let folder = own("captions.tsv", format!("image\tcaption\na.png\ta 5\" {long}\n").as_bytes());
    let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    let samples = read(folder.path(), &options);
    assert!(samples[0].captions[0].starts_with("a 5 word word"));
    assert_eq!(samples[0].captions[0].split(' ').count(), 30);
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let cases: &[(&str, &[u8], &[&str])] = &[
        (
            "captions.csv",
            b"image,caption\n../a.png,x\n",
            &["captions.csv, line 2", "leads out of its folder"],
        ),
        ("captions.csv", b"image,caption\n/etc/passwd,x\n", &["line 2", "is absolute"]),
        ("captions.csv", b"image,caption\n,x\n", &["line 2", "names no image"]),
        (
            "captions.csv",
            b"image,caption\nb.png,x\n",
            &["line 2", "b.png is not there", "data.image_root"],
        ),
        ("captions.csv", b"image,caption\na.png,\n", &["line 2", "nothing is said about a.png"]),
        ("captions.csv", b"image,caption\na.png,...\n", &["line 2", "no word is left"]),
        ("captions.csv", b"image,caption\na.png,x,y\n", &["line 2", "3 fields", "2 columns"]),
        (
            "captions.csv",
            b"image,caption\na.png,x\na.png,a 5\" pipe\n",
            &["line 3", "in the middle of a field"],
        ),
        ("captions.csv", b"image,caption\na.png,\"x\na.png,y\n", &["line 2", "never closed"]),
        ("captions.csv", b"image,caption\na.png,x\na.png,\xff\n", &["line 3", "not UTF-8"]),
        ("captions.csv", b"\xff\xfei\0", &["UTF-16"]),
        ("captions.csv", b"image;caption\na.png;x\n", &["line 1", "image;caption", "commas"]),
        (
            "captions.csv",
            b"image,words\na.png,x\n",
            &["line 1", "caption or captions or text or question"],
        ),
        ("captions.csv", b"image,image,caption\na.png,a.png,x\n", &["line 2", "duplicate field"]),
        (
            "captions.csv",
            b"image,caption,split\na.png,x,all\n",
            &["line 2", "train, validation, test"],
        ),
        ("captions.csv", b"image,caption\n", &["no row"]),
        ("captions.csv", b"", &["line 1", "names no column"]),
        (
            "captions.jsonl",
            br#"{"image": "a.png", "caption": "x", "caption": "y"}"#,
            &["line 1", "duplicate field `caption`"],
        ),
        ("captions.jsonl", b"\n{\"image\": \"a.png\"\n", &["captions.jsonl, line 2", "EOF"]),
        (
            "captions.jsonl",
            br#"{"image": "a.png", "caption": 3}"#,
            &["line 1", "a text or a list of texts"],
        ),
        ("captions.jsonl", br#"{"image": "a.png"}"#, &["line 1", "nothing is said about a.png"]),
        ("captions.jsonl", br#"{"caption": "x"}"#, &["line 1", "names no image"]),
        (
            "captions.jsonl",
            br#"{"image": "captions.jsonl", "caption": "x"}"#,
            &["is no image or video"],
        ),
        ("captions.jsonl", br#"{"clip": "a.png", "caption": "x"}"#, &["an image, not a clip"]),
        (
            "captions.jsonl",
            b"[{\"image\": \"a.png\",\n\"caption\": 3}]",
            &["captions.jsonl, row 1", "line 2, column", "a text or a list of texts"],
        ),
        (
            "captions.jsonl",
            b"[{\"image\": \"a.png\",\n\"caption\": 3}\n{}]",
            &["captions.jsonl, line 3", "expected `,` or `]`"],
        ),
    ];
    for (name, table, says) in cases {
        let folder = own(name, table);
        let error = refused(folder.path());
        for part in *says {
            assert!(error.contains(part), "{}: {error}", String::from_utf8_lossy(table));
        }
    }
    let two = own("captions.csv", b"image,caption\na.png,x\n");
    fs::write(two.path().join("captions.tsv"), "").unwrap();
    assert!(refused(two.path()).contains("is there too"));
    let empty = own("answers.json", b"[\"yes\", \"\"]");
    let error = answer_list(&empty.path().join("answers.json")).unwrap_err().to_string();
    assert!(error.contains("answer 2 is empty"), "{error}");
}

#[test]
fn skipping_lists_and_stops_past_the_limit() {
    let table = b"image,caption\na.png,x\nb.png,y\n../c.png,z\na.png,x,y\nwalk,w\n";
    let folder = own("captions.csv", table);
    let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    let skips = SkipLog::new(OnError::Skip, 3);
    let samples = source::read(folder.path(), &options, &skips).unwrap();
    assert_eq!(samples.len(), 2);
    let lines: Vec<String> =
        skips.list().iter().map(|s| s.what.rsplit(' ').next().unwrap().to_string()).collect();
    assert_eq!(lines, ["3", "4", "5"]);
    let skips = SkipLog::new(OnError::Skip, 2);
    let error = source::read(folder.path(), &options, &skips).unwrap_err();
    assert!(matches!(error, Error::TooManySkipped { .. }), "{error}");
    // A table without a readable part is an error under any policy.
    let folder = own("captions.csv", b"image,caption\nb.png,x\n");
    let error = source::read(folder.path(), &options, &SkipLog::new(OnError::Skip, 9)).unwrap_err();
    assert!(error.to_string().contains("no row of it can be used"), "{error}");
}

/// JSON lists of the benchmarks: an unreadable row is skipped as a line would be.
#[test]
fn skipping_rows_of_a_json_list() {
    let row = r#"{"image": "a.png", "caption": "a, [\"red\"] {apple}", "image_id": 1}"#;
    let list = format!(
        " [{row},\n {{\"image\": \"a.png\", \"caption\": 5}} , {row},\r\n\t7,          {{\"image\": \"a.png\",\n\"caption\": \"ö\", \"caption\": \"x\"}}, null, {row}\n] "
    );
    let folder = own("list.json", list.as_bytes());
    let path = folder.path().join("list.json");
    let skips = SkipLog::new(OnError::Skip, 9);
    let samples = source::read(&path, &ReadOptions::default(), &skips).unwrap();
    assert_eq!(samples.len(), 3);
    assert!(samples.iter().all(|sample| sample.captions == ["a, [ red ] {apple}"]));
    let listed: Vec<String> = skips.list().iter().map(ToString::to_string).collect();
    let says = [
        "row 2: a text or a list of texts was expected at line 2, column 33",
        "row 4: invalid type: integer `7`",
        "row 5: duplicate field `caption` at line 4, column 26",
        "row 6: invalid type: null",
    ];
    assert_eq!(listed.len(), says.len(), "{listed:?}");
    for (line, part) in listed.iter().zip(says) {
        assert!(line.contains(part), "{line}");
    }
    let error = source::read(&path, &ReadOptions::default(), &SkipLog::default()).unwrap_err();
    assert!(matches!(&error, Error::Row { place, .. } if place == "row 2"), "{error}");
}

#[test]
fn skipping_in_folders_and_shards() {
    let folder = own("none.txt", b"a caption alone");
    fs::write(folder.path().join("walk.txt"), b"w").unwrap();
    let options = ReadOptions { captions: Captions::Required, ..ReadOptions::default() };
    let skips = SkipLog::new(OnError::Skip, 9);
    let samples = source::read(folder.path(), &options, &skips).unwrap();
    assert_eq!(samples.len(), 1);
    assert_eq!(skips.len(), 2, "{:?}", skips.list());

    let png = encoded_image(2, 2, [0; 3], Png);
    let files: [(&str, &[u8]); 4] =
        [("1.png", &png), ("1.txt", b"x"), ("2.png", &png), ("3.txt", b"y")];
    let path = folder.path().join("s.tar");
    fs::write(&path, crate::common::tar(&files)).unwrap();
    let skips = SkipLog::new(OnError::Skip, 9);
    let samples = source::read(&path, &options, &skips).unwrap();
    assert_eq!(samples.len(), 1);
    assert_eq!(skips.len(), 2, "{:?}", skips.list());

    // Images that do not decode are skipped when the dataset is opened with decoding at load.
    let mut broken = samples[0].clone();
    broken.media = Media::Image(ByteSource::Memory(Arc::from(*b"no image")));
    broken.key = "4".to_string();
    let both = vec![broken.clone(), samples[0].clone()];
    assert_eq!(Dataset::new_with(both, Decode::AtLoad, &skips).unwrap().len(), 1);
    assert!(skips.list().iter().any(|s| s.what.ends_with(": 4")), "{:?}", skips.list());
    let error = Dataset::new_with(vec![broken], Decode::AtLoad, &skips).unwrap_err();
    assert!(error.to_string().contains("no image of it decodes"), "{error}");
}

#[test]
#[cfg(not(feature = "parquet"))]
fn parquet_without_its_feature_says_how_to_get_it() {
    let folder = own("data.txt", b"");
    fs::create_dir(folder.path().join("data")).unwrap();
    let file = folder.path().join("data/train-00000-of-00001.parquet");
    fs::write(&file, b"PAR1").unwrap();
    for path in [folder.path(), &file] {
        let error = refused(path);
        for part in ["train-00000-of-00001.parquet", "cargo build --release --features parquet"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Arbitrary bytes, and tables with some bytes changed, are read or refused.
    #[test]
    fn damaged_tables_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        start in 0usize..5,
        extension in prop::sample::select(vec!["json", "jsonl", "csv", "tsv"]),
        skip: bool,
    ) {
        let tables = [
            "[{\"image\": \"a.png\", \"caption\": [\"x\"], \"image_id\": 1}]",
            "{\"image\": \"a.png\", \"question\": \"x\", \"answer\": \"y\"}\n",
            "image,caption\n\"a.png\",\"x \"\"y\"\" z\"\n",
            "image\tcaption\na.png\tx\n",
            "",
        ];
        let mut bytes = tables[start].as_bytes().to_vec();
        if bytes.is_empty() {
            bytes = noise;
        }
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let folder = own("a.txt", b"x");
        let path = folder.path().join(format!("t.{extension}"));
        fs::write(&path, &bytes).unwrap();
        let skips = SkipLog::new(if skip { OnError::Skip } else { OnError::Stop }, 5);
        if let Ok(samples) = source::read(&path, &ReadOptions::default(), &skips) {
            prop_assert!(!samples.is_empty());
            for sample in samples {
                for content in sample.media.contents() {
                    prop_assert!(content.path().unwrap().starts_with(folder.path()));
                }
            }
        }
    }
}
