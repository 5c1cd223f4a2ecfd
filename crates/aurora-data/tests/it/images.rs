//! Image decoding on the fixtures of `tests/images/make.py`, whole and broken.

use std::collections::BTreeMap;
use std::io::Read;

use aurora_data::{DecodeErrorKind, Image};

/// Every fixture by its name.
fn files() -> BTreeMap<String, Vec<u8>> {
    let packed = flate2::read::GzDecoder::new(&include_bytes!("../images/images.tar.gz")[..]);
    let mut archive = tar::Archive::new(packed);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_string(), data)
    });
    entries.collect()
}

/// Fixtures that are not the expected result of another.
fn images() -> impl Iterator<Item = (String, Vec<u8>)> {
    files().into_iter().filter(|(name, _)| !name.ends_with(".expected.webp"))
}

#[test]
fn every_kind_decodes_to_what_pillow_makes_of_it() {
    let files = files();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, data) in images() {
        count += 1;
        let expected = Image::decode(&files[&format!("{name}.expected.webp")]).unwrap();
        let found = Image::decode(&data).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (found.width(), found.height()),
            (expected.width(), expected.height()),
            "{name}"
        );
        let gaps = found.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b));
        let largest = gaps.clone().max().unwrap();
        let differ = gaps.filter(|&gap| gap > 0).count();
        println!(
            "{name:24} {differ:5} of {} values differ, at most {largest}/255",
            found.rgb().len()
        );
        // Two decoders of lossy formats may round the inverse transform and the color conversion
        // differently; alpha is blended with one rounding by us and two by Pillow, and of 16 bits
        // Pillow takes the upper 8, which we round.
        let lossy = name.ends_with(".jpg") || name.starts_with("lossy");
        let rounded = ["alpha", "rgba", "16"].iter().any(|part| name.contains(part));
        // With subsampled chroma, libjpeg rounds once when upsampling and zune-jpeg twice.
        let halved = ["420", "restart"].iter().any(|part| name.contains(part));
        let allowed = if halved {
            3
        } else if lossy {
            2
        } else {
            u8::from(rounded)
        };
        if largest > allowed {
            wrong.push((name, largest));
        }
    }
    assert!(count >= 40);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Small files of all formats, broken at every byte.
const BROKEN: [&str; 17] = [
    "420.jpg",
    "progressive-422.jpg",
    "restart.jpg",
    "grey.jpg",
    "ycck.jpg",
    "orientation-6.jpg",
    "rgba.png",
    "rgb-16.png",
    "palette-alpha.png",
    "interlaced.png",
    "orientation-6.png",
    "lossy.webp",
    "lossless.webp",
    "lossy-alpha.webp",
    "animated.webp",
    "one.gif",
    "animated.gif",
];

#[test]
fn an_image_that_is_cut_anywhere_is_an_error_or_whole() {
    let files = files();
    for name in BROKEN {
        let data = &files[name];
        let whole = Image::decode(data).unwrap();
        let mut decoded = 0;
        for length in 0..data.len() {
            match Image::decode(&data[..length]) {
                Ok(image) => {
                    assert_eq!(image, whole, "{name} cut to {length} of {} bytes", data.len());
                    decoded += 1;
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(!message.is_empty() && !message.contains('\n'), "{name}: {message}")
                }
            }
        }
        println!("{name:24} cut to 0..{} bytes: {decoded} times whole all the same", data.len());
    }
}

#[test]
fn no_flipped_byte_causes_a_panic() {
    let files = files();
    for name in BROKEN {
        let mut data = files[name].clone();
        let (mut decoded, mut refused) = (0, 0);
        for at in 0..data.len() {
            for flip in [0xff, 1 << (at % 8)] {
                data[at] ^= flip;
                match Image::decode(&data) {
                    Ok(image) => {
                        assert_eq!(image.rgb().len(), 3 * image.width() * image.height());
                        decoded += 1;
                    }
                    Err(error) => {
                        let message = error.to_string();
                        assert!(
                            !message.is_empty() && !message.contains('\n'),
                            "{name}: {message}"
                        );
                        refused += 1;
                    }
                }
                data[at] ^= flip;
            }
        }
        println!("{name:24} {decoded} decoded, {refused} refused");
    }
}

#[test]
fn what_is_no_image_is_named() {
    let error = |data: &[u8]| Image::decode(data).unwrap_err();
    assert_eq!(error(b"").kind(), DecodeErrorKind::Empty);
    assert_eq!(error(b"").to_string(), "the file has 0 bytes");
    for data in [&b"<svg/>"[..], b"\0", &[0xff; 2], b"RIFF\0\0\0\0WAVEfmt "] {
        assert_eq!(error(data).kind(), DecodeErrorKind::UnknownFormat);
        assert_eq!(error(data).to_string(), "its first bytes are none of JPEG, PNG, WebP or GIF");
    }
}

/// A truncated file is reported as such, in every format.
#[test]
fn a_cut_image_is_called_cut() {
    let files = files();
    for name in
        ["420.jpg", "progressive-420.jpg", "rgb.png", "interlaced.png", "lossless.webp", "one.gif"]
    {
        let data = &files[name];
        let message = Image::decode(&data[..data.len() / 2]).unwrap_err().to_string();
        println!("{name}: {message}");
        assert!(message.contains("cut off"), "{name}: {message}");
    }
}
