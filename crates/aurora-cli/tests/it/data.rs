//! `aurora data shard`: shards of a user's own folder, and its errors.

use std::path::Path;

use image::codecs::gif::GifEncoder;
use image::{Delay, Frame, Rgba, RgbaImage};

use crate::fixture::{refused, works};
use crate::snapshots::Transcript;

/// Writes a folder of images with captions and one of clips.
fn folders(folder: &Path) {
    let (images, clips) = (folder.join("images"), folder.join("clips"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&clips).unwrap();
    for shade in 0..6u8 {
        let image = RgbaImage::from_pixel(40, 24, Rgba([shade * 40, 90, 10, 255]));
        image.save(images.join(format!("{shade}.png"))).unwrap();
        std::fs::write(images.join(format!("{shade}.txt")), format!("shade {shade}")).unwrap();
    }
    let frame = |shade: u8| {
        let image = RgbaImage::from_pixel(32, 32, Rgba([shade * 20, 10, 200, 255]));
        Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(100, 1))
    };
    let file = std::fs::File::create(clips.join("glow.gif")).unwrap();
    GifEncoder::new(file).encode_frames((0..10).map(frame)).unwrap();
    std::fs::write(clips.join("glow.txt"), "it glows").unwrap();
}

#[test]
fn images_and_clips_become_shards() {
    let folder = tempfile::tempdir().unwrap();
    folders(folder.path());
    let said = works(folder.path(), "data shard images --out shards --image-size 16");
    assert!(said.starts_with("shards: 6 samples in 1 shards"), "{said}");
    let samples = aurora_data::shard::read(&folder.path().join("shards/shard-000000.tar")).unwrap();
    assert_eq!(samples[5].captions, ["shade 5"]);
    let said = works(folder.path(), "data shard images --out shards --image-size 16 --threads 1");
    assert!(said.contains("1 of the shards were there already"), "{said}");

    works(
        folder.path(),
        "data shard clips --extract-frames --num-frames 4 --encoding webp --out videos",
    );
    let samples = aurora_data::shard::read(&folder.path().join("videos/shard-000000.tar")).unwrap();
    let aurora_data::Media::Frames(frames) = &samples[0].media else { panic!() };
    assert_eq!(frames.len(), 4);
    let frame = aurora_data::Image::decode(&frames[0].bytes().unwrap()).unwrap();
    assert_eq!(frame.rgb()[..3], [20, 10, 200]);
}

#[test]
fn what_cannot_be_sharded_is_said() {
    let folder = tempfile::tempdir().unwrap();
    folders(folder.path());
    let path = folder.path();
    assert!(refused(path, "data shard none --out shards").contains("none"));
    assert!(!path.join("shards").exists());
    assert!(refused(path, "data shard images --out clips").contains("empty"));
    std::fs::write(path.join("images/2.png"), b"no image").unwrap();
    let text = refused(path, "data shard images --out shards");
    assert!(text.contains("image 2 does not decode"), "{text}");
    let said = works(path, "data shard images --out skipped --on-error skip");
    assert!(said.contains("5 samples in") && said.contains("1 samples were left out"), "{said}");
    std::fs::write(path.join("clips/video.mp4"), b"\0\0\0\x10ftypisom\0\0\0\0").unwrap();
    std::fs::write(path.join("clips/video.txt"), "a video").unwrap();
    let text = refused(path, "data shard clips --extract-frames --out videos");
    assert!(text.contains("video does not decode"), "{text}");
}

#[test]
fn options_say_what_they_take() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Transcript::new(folder.path());
    said.refused("data shard x --extract-frames --frame-sampling middle --out y");
    said.refused("data shard x --encoding bmp --out y");
    said.matches("refused_shard_options");
}
