//! Transforms compared with Pillow and torchvision: fixtures of `tests/transform/make.py`.

use std::collections::BTreeMap;
use std::io::Read;

use aurora_data::{Crop, EvalTransform, Image, Operation, Transform};
use aurora_kernels::random::Stream;

/// Name and image of every case.
fn cases() -> Vec<(String, Image)> {
    let packed = flate2::read::GzDecoder::new(&include_bytes!("../transform/cases.tar.gz")[..]);
    let mut archive = tar::Archive::new(packed);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name =
            entry.path().unwrap().to_str().unwrap().strip_suffix(".webp").unwrap().to_string();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        (name, Image::decode(&data).unwrap())
    });
    entries.collect()
}

/// Our output for `source`, or for its 96 x 96 version, for a case of this name.
fn made(words: &[&str], source: &Image, scaled: &Image) -> Image {
    let number = |at: usize| -> f32 { words[at].parse().unwrap() };
    let whole = |at: usize| -> usize { words[at].parse().unwrap() };
    let operation = match words[0] {
        "resize" => return source.resize(whole(1), None).unwrap(),
        "crop" => {
            let crop = Crop { left: whole(1), top: whole(2), width: whole(3), height: whole(4) };
            return source.resize(whole(5), Some(crop)).unwrap();
        }
        "flip" => {
            let mut image = scaled.clone();
            image.mirror();
            return image;
        }
        "auto_contrast" => Operation::AutoContrast,
        "equalize" => Operation::Equalize,
        "brightness" => Operation::Brightness(number(1)),
        "sharpness" => Operation::Sharpness(number(1)),
        "shear_x" => Operation::ShearX(number(1)),
        "shear_y" => Operation::ShearY(number(1)),
        "translate_x" => Operation::TranslateX(number(1)),
        "translate_y" => Operation::TranslateY(number(1)),
        "rotate" => Operation::Rotate(number(1)),
        other => panic!("no transform is called {other}"),
    };
    let mut image = scaled.clone();
    operation.apply(&mut image);
    image
}

#[test]
fn scaling_and_operations_give_what_pillow_gives() {
    let cases = cases();
    let named = |name: &str| &cases.iter().find(|(n, _)| n == name).unwrap().1;
    // Per transform: images, values compared, values that differ, maximum difference.
    let mut seen: BTreeMap<&str, (usize, usize, usize, u8)> = BTreeMap::new();
    for (name, expected) in cases.iter().filter(|(name, _)| !name.ends_with("/source")) {
        let (number, rest) = name.split_once('/').unwrap();
        let (what, step) = rest.split_once(" every ").unwrap_or((rest, "1"));
        let words: Vec<&str> = what.split(' ').collect();
        let source = named(&format!("{number}/source"));
        let found = made(&words, source, named(&format!("{number}/resize 96")));
        let found: Vec<u8> =
            found.rgb().chunks_exact(3).step_by(step.parse().unwrap()).flatten().copied().collect();
        assert_eq!(found.len(), expected.rgb().len(), "{name}");
        let row = seen.entry(words[0]).or_default();
        row.0 += 1;
        for (found, expected) in found.iter().zip(expected.rgb()) {
            let gap = found.abs_diff(*expected);
            *row = (row.0, row.1 + 1, row.2 + usize::from(gap > 0), row.3.max(gap));
        }
    }
    for (name, (images, values, differ, largest)) in &seen {
        println!(
            "{name:14} {images:4} images {values:8} values, {differ:5} differ, at most {largest}/255"
        );
    }
    for (name, (images, _, _, largest)) in seen {
        assert!(images >= 20, "{name}");
        let allowed = match name {
            // Pillow truncates sampled values, we round.
            "shear_x" | "shear_y" | "rotate" => 1,
            _ => 0,
        };
        assert!(largest <= allowed, "{name} differs by {largest}");
    }
}

#[test]
fn normalization_gives_what_torchvision_gives() {
    let expected: Vec<Vec<f32>> =
        serde_json::from_str(include_str!("../transform/normalized.json")).unwrap();
    let rgb = (0..=255).flat_map(|value| [value; 3]).collect();
    let image = Image::new(16, 16, rgb).unwrap();
    let mut out = vec![0f32; 3 * 256];
    EvalTransform { size: 16 }.apply(&image, &mut Stream::new(0, "none", 0, 0), &mut out).unwrap();
    assert_eq!(out, expected.concat());
}

#[test]
fn a_crop_has_to_lie_inside() {
    let image = Image::new(6, 4, vec![9; 72]).unwrap();
    let crop = |left, top, width, height| Some(Crop { left, top, width, height });
    assert!(image.resize(3, crop(2, 1, 4, 3)).is_ok());
    for outside in [
        crop(3, 0, 4, 4),
        crop(0, 1, 6, 4),
        crop(0, 0, 0, 4),
        crop(0, 0, 6, 0),
        crop(usize::MAX, 0, 2, 2),
    ] {
        let message = image.resize(3, outside).unwrap_err().to_string();
        assert!(message.contains("6 x 4") && message.contains("not inside"), "{message}");
    }
    let message = image.resize(1 << 20, None).unwrap_err().to_string();
    assert!(message.contains("1 to 16384"), "{message}");
}
