//! `aurora train` and `aurora eval` on tasks other than image retrieval, and over broken images.

use std::path::Path;

use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, Rgba, RgbaImage};

use crate::fixture::{backbone, images, refused, tiny_run, works};
use crate::snapshots::Transcript;

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path)).unwrap()
}

/// Eight images with a question about each, half of them answered by "yes" and half by ten annotators.
fn questions(folder: &Path) {
    images(folder);
    for index in 0..8 {
        std::fs::remove_file(folder.join(format!("p{index}.txt"))).unwrap();
        let answers = match index % 2 {
            0 => serde_json::json!(["yes"]),
            _ => serde_json::json!(["2", "2", "2", "two", "3", "3", "3", "3", "3", "3"]),
        };
        let record = serde_json::json!({
            "question": if index % 2 == 0 { "is it a cat?" } else { "how many?" },
            "question_id": 40 + index,
            "answers": answers,
        });
        std::fs::write(folder.join(format!("p{index}.json")), record.to_string()).unwrap();
    }
}

#[test]
fn questions_are_trained_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    questions(&path.join("data"));
    let settings =
        format!("{} --set task=vqa --set model.decoder=from_encoder", tiny_run("{}/data"));
    let mut said = Transcript::new(path);
    said.measures(&format!("train --out {{}}/run {settings}"));
    said.measures("inspect {}/run");
    said.matches("tables_of_answers");
    let run = path.join("run");
    let summary = json(&run.join("summary.json"));
    assert_eq!(summary["tuned"]["questions"], 8);
    assert_eq!(summary["tuned"]["reachable"], 100.0);
    assert_eq!(json(&run.join("answers.json"))[1]["question_id"], 41);
    let page = text(&run.join("report.html"));
    for part in ["Accuracy", "how many?", "Accuracy on validation", "Losses", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    works(path, &format!("eval --adapter {{}}/run/adapter --out {{}}/measured {settings}"));
    let measured = json(&path.join("measured/evaluation.json"));
    assert_eq!(measured["accuracy"], summary["tuned"]);
    assert_eq!(measured["candidates"], 4);
    assert_eq!(text(&path.join("measured/answers.json")), text(&run.join("answers.json")));
    // The resolved configuration repeats the run.
    works(path, "train --config {}/run/config.toml --out {}/again");
    let adapter =
        |run: &str| std::fs::read(path.join(run).join("adapter/adapter_model.safetensors"));
    assert_eq!(adapter("run").unwrap(), adapter("again").unwrap());
}

#[test]
fn clips_are_trained_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    std::fs::create_dir_all(path.join("clips")).unwrap();
    for clip in 0..6u8 {
        let frame = |shade: u8| {
            let image = RgbaImage::from_pixel(20, 20, Rgba([shade * 20, clip * 40, 200, 255]));
            Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(100, 1))
        };
        let file = std::fs::File::create(path.join(format!("clips/c{clip}.gif"))).unwrap();
        // Clips of different lengths, so that some are padded.
        GifEncoder::new(file).encode_frames((0..1 + clip).map(frame)).unwrap();
        std::fs::write(path.join(format!("clips/c{clip}.txt")), format!("shade {clip}")).unwrap();
    }
    let settings =
        format!("{} --set data.num_frames=3 --set adapter.frame_aware=true", tiny_run("{}/clips"));
    let said = works(path, &format!("train --out {{}}/run {settings}"));
    assert!(said.contains("R@10"), "{said}");
    works(path, &format!("eval --adapter {{}}/run/adapter --out {{}}/measured {settings}"));
    let (summary, measured) =
        (json(&path.join("run/summary.json")), json(&path.join("measured/evaluation.json")));
    assert_eq!(measured["recall"], summary["tuned"]);
}

#[test]
fn broken_images_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    backbone(&path.join("backbone"), 1);
    images(&path.join("data"));
    std::fs::write(path.join("data/p3.png"), b"\x89PNG\r\n\x1a\n and no more").unwrap();
    let settings = tiny_run("{}/data");
    let message = refused(path, &format!("train --out {{}}/run {settings}"));
    assert!(message.contains("p3"), "{message}");
    let settings = format!("{settings} --set data.on_error=skip");
    let said = works(path, &format!("train --out {{}}/run {settings}"));
    assert!(said.contains("1 image or row was left out"), "{said}");
    let listed = text(&path.join("run/skipped.jsonl"));
    assert!(listed.lines().count() == 1 && listed.contains("p3"), "{listed}");
    let summary = json(&path.join("run/summary.json"));
    assert_eq!(summary["skipped"], 1);
    assert_eq!(summary["test_pairs"], 7);
    assert!(works(path, "inspect {}/run").contains("left out"));
    let message =
        refused(path, &format!("train --out {{}}/none {settings} --set data.max_skipped=0"));
    assert!(message.contains("no more than 0"), "{message}");
    assert!(!path.join("none").exists(), "nothing is left behind");
}

#[test]
fn a_backbone_without_a_decoder_says_how_to_begin_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    questions(&path.join("data"));
    let settings = tiny_run("{}/data").replace("{}/backbone", "nano");
    let mut said = Transcript::new(path);
    for command in ["train --out {}/run", "eval"] {
        said.refused(&format!("{command} {settings} --set task=vqa"));
    }
    said.refused("search cat --set task=vqa");
    said.matches("refused_task");
}
