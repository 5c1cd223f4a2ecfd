//! Column selection.

use aurora_data::SkipLog;
use aurora_data::source::{self, ReadOptions};
use image::ImageFormat::Png;

use super::made::{at, bytes, columns, read};
use crate::common::encoded_image;

#[test]
fn columns_are_found_by_type_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let png = encoded_image(40, 40, [7; 3], Png);
    let group = |name: &str| format!("required group {name} {{ required binary bytes; }}");
    let text = |name: &str| format!("required binary {name} (STRING);");
    let open = |schema: &[String], cells: &[&[u8]]| {
        read(&at(&folder, "a.parquet", &columns(&schema.concat(), cells)))
    };
    // Any name if it is the only image column; the canonical name if there are several.
    let samples = open(&[text("text"), group("photo")], &[b"a dog", &png]).unwrap();
    assert_eq!(
        (samples[0].captions[0].as_str(), bytes(&samples[0]).unwrap()),
        ("a dog", png.clone())
    );
    let samples =
        open(&[group("mask"), group("image"), text("caption")], &[b"m", &png, b"x"]).unwrap();
    assert_eq!(bytes(&samples[0]).unwrap(), png);
    // Plain bytes under an image name.
    let plain = "required binary picture;".to_string();
    let samples = open(&[plain, text("caption")], &[&png, b"x"]).unwrap();
    assert_eq!(bytes(&samples[0]).unwrap(), png);
    // The canonical name of a field takes precedence, and a text column is no image.
    let samples =
        open(&[text("text"), group("p"), text("caption")], &[b"second", &png, b"first"]).unwrap();
    assert_eq!(samples[0].captions, ["first"]);

    for (schema, cells, says) in [
        (
            vec![group("one"), group("two"), text("text")],
            vec![&b"a"[..], b"b", b"c"],
            vec!["several columns hold images: one, two", "`image`"],
        ),
        (
            vec![text("image"), text("text")],
            vec![&b"a.png"[..], b"c"],
            vec!["it has no images", "{bytes, path}", "it has image, text"],
        ),
        (
            vec![group("image"), text("words")],
            vec![&png, &b"c"[..]],
            vec!["caption or captions or text or question", "it has image, words"],
        ),
        (
            vec![group("image"), text("text"), text("split")],
            vec![&png, &b"c"[..], b"all"],
            vec!["a.parquet, row 1", "unknown variant `all`", "`train`"],
        ),
        (
            vec![group("image"), text("text")],
            vec![&png, &b"\xff\xfe"[..]],
            vec!["a.parquet, row 1", "caption: a text is not UTF-8"],
        ),
    ] {
        let error = open(&schema, &cells).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    // Search needs no captions.
    let path = at(&folder, "a.parquet", &columns(&group("image"), &[&png]));
    assert_eq!(source::read(&path, &ReadOptions::default(), &SkipLog::default()).unwrap().len(), 1);
}
