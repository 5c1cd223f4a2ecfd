//! Videos: frames equal those of ffmpeg and Pillow (`videos/make.py` stores both), and every fault
//! is reported.

#![allow(clippy::print_stdout, reason = "how far off frames are, and what was not run")]

use std::path::{Path, PathBuf};

use aurora_data::video::{Decoder, Sampling, Video};
use aurora_data::{DecodeError, DecodeErrorKind, Image};
use aurora_kernels::random::Stream;
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos")
}

fn video(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// Expected frames of a video and their timestamps.
fn expected(name: &str) -> (Vec<Image>, Vec<f64>) {
    let said = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let times: Vec<f64> = said["times"].as_array().unwrap().iter().map(number).collect();
    let strip = image::open(folder().join(format!("{name}.png"))).unwrap().into_rgb8();
    let height = strip.height() / times.len() as u32;
    let frames = said["sizes"].as_array().unwrap().iter().enumerate().map(|(index, size)| {
        let size = [0, 1].map(|side| size[side].as_u64().unwrap() as u32);
        let cell = image::imageops::crop_imm(&strip, 0, index as u32 * height, size[0], size[1]);
        Image::new(size[0] as usize, size[1] as usize, cell.to_image().into_raw()).unwrap()
    });
    (frames.collect(), times)
}

/// Maximum absolute difference of two images of one size.
fn difference(a: &Image, b: &Image) -> u8 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    a.rgb().iter().zip(b.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn decode(video: &Video<'_>, wanted: &[usize]) -> Result<Vec<(usize, Image)>, String> {
    let mut out = Vec::new();
    video.frames(wanted, &mut |place, image| {
        out.push((place, image));
        Ok(())
    })?;
    Ok(out)
}

/// Every frame alone, all of them, and every third are as expected, within `most` of 255.
fn check(name: &str, like: &str, decoder: Decoder, most: u8) {
    let data = video(name);
    let video = Video::open_with(&data, decoder).unwrap();
    let (frames, times) = expected(like);
    let video_index = video.index();
    assert_eq!(video_index.times.len(), times.len(), "{name}");
    for (found, time) in video_index.times.iter().zip(&times) {
        assert!((found - time).abs() < 1e-4, "{name}: {found} {time}");
    }
    assert!(video_index.end > *video_index.times.last().unwrap(), "{name}");
    let mut worst = 0;
    let wholes: Vec<Vec<usize>> =
        vec![(0..times.len()).collect(), (0..times.len()).step_by(3).collect()];
    for wanted in wholes.into_iter().chain((0..times.len()).map(|index| vec![index])) {
        let seen = decode(&video, &wanted).unwrap();
        assert_eq!(seen.len(), wanted.len(), "{name}");
        for ((place, image), (at, index)) in seen.iter().zip(wanted.iter().enumerate()) {
            assert_eq!(*place, at);
            let off = difference(image, &frames[*index]);
            assert!(off <= most, "{name}: frame {index} is off by {off}");
            worst = worst.max(off);
        }
    }
    println!("{name}: off by at most {worst} of 255 in {} frames", times.len());
}

fn refused(data: &[u8]) -> String {
    // Animated images have one decoder; ffmpeg is not asked about files that are none.
    let video = match Video::open_with(data, Decoder::H264) {
        Err(error) => return error.to_string(),
        Ok(video) => video,
    };
    let all: Vec<usize> = (0..video.index().times.len()).collect();
    decode(&video, &all).unwrap_err()
}

const ANIMATIONS: [&str; 6] =
    ["solid.gif", "clear.gif", "clear.apng", "over.apng", "solid.webp", "clear.webp"];

#[test]
fn animated_images_are_what_pillow_sees() {
    for name in ANIMATIONS {
        // At most a rounding of the blend; GIF has none.
        let most = if name.ends_with("gif") { 0 } else { 1 };
        check(name, &name.replace('.', "_"), Decoder::Any, most);
    }
}

#[test]
fn a_sampled_video_gives_as_many_frames_as_it_has() {
    let data = video("solid.gif");
    let video = Video::open(&data).unwrap();
    let mut stream = Stream::new(1, "frames", 0, 0);
    assert_eq!(video.sample(Sampling::Uniform(2), &mut stream).unwrap().len(), 2);
    assert_eq!(video.sample(Sampling::Random(8), &mut stream).unwrap().len(), 5);
    let (frames, _) = expected("solid_gif");
    assert_eq!(video.sample(Sampling::Uniform(1), &mut stream).unwrap(), [frames[2].clone()]);
}

#[test]
fn frames_out_of_order_or_past_the_end_are_refused() {
    let data = video("solid.gif");
    let video = Video::open(&data).unwrap();
    for wanted in [&[1, 1][..], &[2, 1], &[5]] {
        assert!(decode(&video, wanted).unwrap_err().contains("the last"), "{wanted:?}");
    }
    assert!(decode(&video, &[]).unwrap().is_empty());
    let refused = video.frames(&[0, 9], &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(refused.kind(), DecodeErrorKind::FrameOutOfRange);
    let enough = DecodeError::new(DecodeErrorKind::Sink, "enough");
    let said = video.frames(&[0], &mut |_, _| Err(enough.clone())).unwrap_err();
    assert_eq!(said, enough);
}

#[test]
fn what_is_no_video_is_said() {
    assert_eq!(refused(b""), "it has no bytes");
    assert!(refused(b"GIF89a").contains("it is cut"), "{}", refused(b"GIF89a"));
    let text = Video::open_with(b"not a video at all", Decoder::H264).err().unwrap().to_string();
    assert!(text.starts_with("no decoder in this build reads it"), "{text}");
}

/// Headers that claim more than any video has are refused before anything is allocated.
#[test]
fn bombs_are_refused_by_their_headers() {
    let mut gif = video("solid.gif");
    gif[6..10].copy_from_slice(&[0xff; 4]);
    assert!(refused(&gif).contains("65535 x 65535"), "{}", refused(&gif));
    // A frame larger than the screen.
    let mut gif = video("solid.gif");
    let frame = gif.windows(9).position(|w| w == [b',', 0, 0, 0, 0, 40, 0, 30, 0]).unwrap();
    gif[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert!(refused(&gif).contains("65535 x 65535"), "{}", refused(&gif));
    let mut png = video("over.apng");
    png[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    assert!(refused(&png).contains("50000 x 50000"), "{}", refused(&png));
    let mut webp = video("solid.webp");
    webp[24..30].copy_from_slice(&[0x4f, 0xc3, 0, 0x4f, 0xc3, 0]);
    assert!(refused(&webp).contains("50000 x 50000"), "{}", refused(&webp));
    // Few bytes per frame, and any number of frames.
    let mut gif = b"GIF89a\x00\x10\x00\x10\x00\x00\x00".to_vec();
    for _ in 0..3000 {
        gif.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0");
    }
    gif.push(b';');
    assert!(refused(&gif).contains("3000 frames of 4096 x 4096"), "{}", refused(&gif));
    // Frames that are declared and missing.
    let mut png = video("over.apng");
    let control = png.windows(4).position(|w| w == b"acTL").unwrap();
    png[control + 4..control + 8].copy_from_slice(&[0xff; 4]);
    assert!(refused(&png).contains("4294967295 frames and has 5"), "{}", refused(&png));
}

/// A cut of an animated image is noticed at any place.
#[test]
fn cut_animations_are_noticed() {
    for name in ANIMATIONS {
        let whole = video(name);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let said = refused(cut);
            // A PNG is a still image up to the chunk that declares it animated.
            let told = ["cut", "no frame", "no bytes", "no decoder"]
                .iter()
                .any(|word| said.contains(word));
            assert!(told, "{name} {length}: {said}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damaged videos may go unnoticed, but never panic.
    #[test]
    fn damaged_animations_are_survived(
        which in 0..ANIMATIONS.len(), at: prop::sample::Index, bit in 0..8u32, more: prop::sample::Index,
    ) {
        let mut data = video(ANIMATIONS[which]);
        for at in [at, more] {
            let at = at.index(data.len());
            data[at] ^= 1u8 << bit;
        }
        if let Ok(video) = Video::open_with(&data, Decoder::H264) {
            let all: Vec<usize> = (0..video.index().times.len()).collect();
            let _ = decode(&video, &all);
        }
    }
}

#[cfg(feature = "video-h264")]
mod h264 {
    use super::*;

    const VIDEOS: [&str; 7] =
        ["reordered", "turned", "bt709", "full", "full601", "trimmed", "sizes"];

    #[test]
    fn frames_are_those_of_ffmpeg() {
        for name in VIDEOS {
            // Frames keep their own sizes; ffmpeg scales them to the first's.
            let like = if name == "sizes" { "sizes_own" } else { name };
            check(&format!("{name}.mp4"), like, Decoder::H264, 2);
        }
    }

    fn said(data: &[u8]) -> String {
        let video = match Video::open_with(data, Decoder::H264) {
            Err(error) => return error.to_string(),
            Ok(video) => video,
        };
        let all: Vec<usize> = (0..video.index().times.len()).collect();
        decode(&video, &all).err().unwrap_or_else(|| "nothing".to_string())
    }

    /// Overwrites the bytes after the first occurrence of `mark`.
    fn put(data: &mut [u8], mark: &[u8], skip: usize, bytes: &[u8]) {
        let at = data.windows(mark.len()).position(|window| window == mark).unwrap();
        let at = at + mark.len() + skip;
        data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn what_is_wrong_with_a_video_is_said() {
        let whole = video("reordered.mp4");
        let changed = |mark: &[u8], skip: usize, bytes: &[u8]| {
            let mut data = whole.clone();
            put(&mut data, mark, skip, bytes);
            said(&data)
        };
        assert!(said(&video("mpeg4.mp4")).contains("not H.264"), "{}", said(&video("mpeg4.mp4")));
        // Sample tables: a frame past the end of the file, more frames than bytes, missing chunks.
        let text = changed(b"stco", 8, &[0x7f, 0xff, 0xff, 0xff]);
        assert!(text.contains("past the end of the file"), "{text}");
        let text = changed(b"stsz", 4, &[0, 0, 0x10, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(text.contains("more than the file") || text.contains("moov"), "{text}");
        let text = changed(b"stsc", 8, &[0, 0, 0, 2]);
        assert!(text.contains("table of chunks is not in order"), "{text}");
        let text = changed(b"stts", 8, &[0, 0, 0, 3]);
        assert!(text.contains("time is not given"), "{text}");
        // No IDR frame: every IDR slice is relabeled as an ordinary one.
        let mut data = whole.clone();
        for at in 0..data.len() - 5 {
            let length = u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
            if data[at + 4] == 0x65 && (length as usize) < data.len() {
                data[at + 4] = 0x41;
            }
        }
        assert!(said(&data).contains("no key frame"), "{}", said(&data));
        // A size that no decoder accepts.
        let text = changed(b"avcC", 0, &[1, 100, 0, 10, 0xff, 0xe1, 0, 1]);
        assert!(text.contains("parameter set") || text.contains("moov"), "{text}");
    }

    /// The moov box is at the end of these files, so a cut at any place removes it.
    #[test]
    fn cut_videos_are_noticed() {
        let whole = video("reordered.mp4");
        for length in 0..whole.len() {
            let text = said(&whole[..length]);
            assert_ne!(text, "nothing", "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_videos_are_survived(
            which in 0..VIDEOS.len(), at: prop::sample::Index, bit in 0..8u32, more: prop::sample::Index,
        ) {
            let mut data = video(&format!("{}.mp4", VIDEOS[which]));
            for at in [at, more] {
                let at = at.index(data.len());
                data[at] ^= 1u8 << bit;
            }
            let _ = said(&data);
        }
    }
}

/// Tests that need ffmpeg and ffprobe; skipped with a message where they are missing.
#[cfg(feature = "video-ffmpeg")]
mod ffmpeg {
    use super::*;

    /// True if ffmpeg is installed. CI, which has it, sets `AURORA_FFMPEG=required`.
    fn is_there() -> bool {
        let there = std::process::Command::new("ffprobe").arg("-version").output().is_ok();
        let required = std::env::var_os("AURORA_FFMPEG").is_some_and(|value| value == "required");
        assert!(there || !required, "ffmpeg is required and not on PATH");
        if !there {
            println!("not run: ffmpeg is not installed");
        }
        there
    }

    #[test]
    fn frames_are_those_of_ffmpeg() {
        if !is_there() {
            return;
        }
        for name in
            ["reordered.mp4", "turned.mp4", "trimmed.mp4", "sizes.mp4", "mpeg4.mp4", "matroska.mkv"]
        {
            // Another version of ffmpeg may round differently.
            check(name, name.split('.').next().unwrap(), Decoder::Ffmpeg, 2);
        }
    }

    /// Long groups of pictures, three kinds of reordering, both decoders compared.
    #[cfg(feature = "video-h264")]
    #[test]
    fn long_videos_are_the_same_by_both() {
        if !is_there() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, options) in [
            ("long.mp4", "-bf 3 -g 250 -b_strategy 2"),
            ("pyramid.mp4", "-bf 8 -g 90 -x264-params b-pyramid=normal:ref=5"),
            ("open.mp4", "-bf 2 -g 20 -x264-params open-gop=1"),
        ] {
            let path = folder.path().join(name);
            let input = "-v error -nostdin -f lavfi -i testsrc2=size=64x48:rate=25 -t 11";
            let output = "-c:v libx264 -pix_fmt yuv420p";
            let made = std::process::Command::new("ffmpeg")
                .args([input, output, options].iter().flat_map(|words| words.split(' ')))
                .arg(&path)
                .status();
            if !made.unwrap().success() {
                println!("not run: this ffmpeg has no libx264");
                return;
            }
            let data = std::fs::read(path).unwrap();
            let videos =
                [Decoder::H264, Decoder::Ffmpeg].map(|d| Video::open_with(&data, d).unwrap());
            let count = videos[0].index().times.len();
            assert_eq!((count, videos[1].index().times.len()), (275, 275), "{name}");
            let wanted: Vec<usize> = (0..count).collect();
            let [ours, theirs] = videos.map(|video| decode(&video, &wanted).unwrap());
            for ((index, ours), (_, theirs)) in ours.iter().zip(&theirs) {
                let off = difference(ours, theirs);
                assert!(off <= 2, "{name}: frame {index} is off by {off}");
            }
        }
    }

    #[test]
    fn what_ffmpeg_does_not_read_is_said_in_its_words() {
        if !is_there() {
            return;
        }
        let open = |data: &[u8]| Video::open_with(data, Decoder::Ffmpeg).err().unwrap().to_string();
        let text = open(b"not a video at all");
        assert!(text.starts_with("ffprobe: ") && text.contains("Invalid data"), "{text}");
        let whole = video("reordered.mp4");
        let text = open(&whole[..whole.len() / 2]);
        assert!(text.contains("moov atom not found"), "{text}");
        // A playlist must not lead anywhere.
        let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n";
        assert!(!open(playlist).is_empty());
    }
}
