//! Shard writer: round trip, resuming, and independence of threads.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::encoded_image;
use aurora_data::caption::clean;
use aurora_data::video::Sampling;
use aurora_data::write::{Encoding, MANIFEST, Manifest, ShardOptions, WriteReport, verify, write};
use aurora_data::{
    AnswerSet, ByteSource, Error, Image, Media, OnError, Question, QuestionId, Sample, Split,
    WeightedAnswer, shard,
};
use image::ImageFormat::{Jpeg, Png, WebP};
use proptest::prelude::*;

fn memory(data: Vec<u8>) -> ByteSource {
    ByteSource::Memory(Arc::from(data))
}

fn video(name: &str) -> ByteSource {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos").join(name);
    memory(fs::read(path).unwrap())
}

fn sample(key: &str, media: Media) -> Sample {
    Sample {
        shard: Arc::from("set"),
        key: key.to_string(),
        media,
        captions: vec![clean(&format!("image {key}"), 30)],
        question: None,
        keywords: Vec::new(),
        concept: None,
        split: None,
        source: None,
    }
}

fn images(count: u8) -> Vec<Sample> {
    let make = |i: u8| {
        let data = encoded_image(
            20 + u32::from(i),
            30,
            [i, 100, 255 - i],
            [Jpeg, Png, WebP][i as usize % 3],
        );
        sample(&format!("a/{i}"), Media::Image(memory(data)))
    };
    (0..count).map(make).collect()
}

fn run(samples: &[Sample], out: &Path, options: &ShardOptions) -> aurora_data::Result<WriteReport> {
    write(samples, out, options, &mut |_, _| {})
}

fn read_all(out: &Path, manifest: &Manifest) -> Vec<Sample> {
    manifest.shards.iter().flat_map(|s| shard::read(&out.join(&s.file)).unwrap()).collect()
}

/// Bytes of every file of a folder, by name.
fn bytes_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Equality of samples except for the key in the shard.
fn same(a: &Sample, b: &Sample) -> bool {
    let contents = |sample: &Sample| -> Vec<Vec<u8>> {
        sample.media.contents().iter().map(|c| c.bytes().unwrap().into_owned()).collect()
    };
    let kind = |sample: &Sample| std::mem::discriminant(&sample.media);
    kind(a) == kind(b)
        && contents(a) == contents(b)
        && (&a.captions, &a.question, &a.keywords) == (&b.captions, &b.question, &b.keywords)
        && (&a.concept, a.split, &a.source) == (&b.concept, b.split, &b.source)
}

#[test]
fn every_kind_of_sample_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let frames = (0..12).map(|i| memory(encoded_image(8, 8, [i; 3], Png))).collect();
    let mut samples = images(3);
    samples.push(sample("frames", Media::Frames(frames)));
    for name in ["solid.gif", "clear.apng", "clear.webp", "reordered.mp4", "matroska.mkv"] {
        samples.push(sample(name, Media::Video(video(name))));
    }
    let answers = AnswerSet::Annotators(["red", "red", "blue"].map(String::from).to_vec());
    let question = Question::new(Some(QuestionId::Number(7)), "What color?", answers);
    samples[0].question =
        question.map(|question| question.with_answer_type(Some("other".to_string())));
    samples[1].concept = Some("../../etc".to_string());
    samples[1].split = Some(Split::Validation);
    samples[2].source = Some("somewhere\nelse".to_string());
    let written = run(&samples, folder.path(), &ShardOptions::default()).unwrap();
    assert_eq!((written.kept, written.replaced, written.manifest.shards.len()), (0, 0, 1));
    let back = read_all(folder.path(), &written.manifest);
    assert_eq!(back.len(), samples.len());
    for (a, b) in samples.iter().zip(&back) {
        assert!(same(a, b), "{} {}", a.key, b.key);
    }
    assert_eq!(back[1].key, "000001");
    assert_eq!(verify(folder.path()).unwrap(), written.manifest);
}

/// An animated GIF among images (in Parquet, or named .jpg) counts as its first frame, and so it
/// does in a shard.
#[test]
fn an_image_that_moves_stays_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["solid.gif", "clear.apng", "clear.webp"];
    let samples = names.map(|name| sample(name, Media::Image(video(name))));
    for (out, encoding) in [("jpg", Encoding::Jpeg), ("png", Encoding::Png)] {
        let out = folder.path().join(out);
        let options = ShardOptions { encoding, ..ShardOptions::default() };
        let written = run(&samples, &out, &options).unwrap();
        for (sample, back) in samples.iter().zip(read_all(&out, &written.manifest)) {
            assert!(matches!(back.media, Media::Image(_)), "{}", sample.key);
            if encoding == Encoding::Png {
                let [first, back] = [sample, &back].map(|sample| {
                    Image::decode(&sample.media.contents()[0].bytes().unwrap()).unwrap()
                });
                assert_eq!((first.width(), first.rgb()), (back.width(), back.rgb()));
            }
        }
    }
}

#[test]
fn videos_become_frames() {
    let folder = tempfile::tempdir().unwrap();
    let samples = [
        sample("a", Media::Video(video("solid.gif"))),
        sample("b", Media::Video(video("clear.webp"))),
        sample(
            "c",
            Media::Frames((0..9).map(|i| memory(encoded_image(8, 8, [i * 9; 3], Png))).collect()),
        ),
    ];
    let options = ShardOptions {
        video: Some(Sampling::Uniform(3)),
        size: Some(16),
        encoding: Encoding::Png,
        ..ShardOptions::default()
    };
    let written = run(&samples, folder.path(), &options).unwrap();
    let back = read_all(folder.path(), &written.manifest);
    for clip in &back {
        let Media::Frames(frames) = &clip.media else { panic!("{:?}", clip.media) };
        assert_eq!(frames.len(), 3);
        let side = if clip.key.ends_with('2') { 8 } else { 16 };
        for frame in frames {
            let frame = Image::decode(&frame.bytes().unwrap()).unwrap();
            assert_eq!((frame.width(), frame.height()), (side, side));
        }
    }
    let Media::Frames(frames) = &back[2].media else { panic!() };
    let shades: Vec<u8> =
        frames.iter().map(|f| Image::decode(&f.bytes().unwrap()).unwrap().rgb()[0]).collect();
    assert_eq!(shades, [9, 36, 63]);
}

#[test]
fn larger_images_are_scaled_and_smaller_ones_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (large, small) =
        (encoded_image(100, 40, [200, 0, 0], Png), encoded_image(32, 10, [0, 200, 0], Png));
    let samples = [
        sample("large", Media::Image(memory(large))),
        sample("small", Media::Image(memory(small.clone()))),
    ];
    let options = ShardOptions { size: Some(32), ..ShardOptions::default() };
    let written = run(&samples, folder.path(), &options).unwrap();
    let back = read_all(folder.path(), &written.manifest);
    let first = back[0].media.contents()[0].bytes().unwrap().into_owned();
    assert!(first.starts_with(&[0xff, 0xd8]));
    assert_eq!(Image::decode(&first).unwrap().width(), 32);
    assert_eq!(Image::decode(&first).unwrap().height(), 32);
    assert_eq!(back[1].media.contents()[0].bytes().unwrap(), small);
}

#[test]
fn an_interrupted_run_goes_on_and_a_damaged_shard_is_written_anew() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let samples = images(20);
    let options = ShardOptions { shard_bytes: 8000, ..ShardOptions::default() };
    let written = run(&samples, whole.path(), &options).unwrap();
    let shards = written.manifest.shards.len();
    assert!(shards > 3, "{shards}");

    // As if stopped within the third shard.
    run(&samples, broken.path(), &options).unwrap();
    let mut manifest = Manifest::read(broken.path()).unwrap();
    for gone in manifest.shards.drain(2..) {
        fs::remove_file(broken.path().join(gone.file)).unwrap();
    }
    manifest.complete = false;
    fs::write(broken.path().join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
    fs::write(broken.path().join(".shard-000002.tar.part"), b"half").unwrap();
    let mut least = u64::MAX;
    let again = write(&samples, broken.path(), &options, &mut |done, _| least = least.min(done));
    let again = again.unwrap();
    assert_eq!((again.kept, again.replaced), (2, 0));
    assert_eq!(least, manifest.shards[1].next);
    assert_eq!(bytes_of(broken.path()), bytes_of(whole.path()));

    // A complete run has nothing to do; a changed shard is noticed and written anew.
    assert_eq!(run(&samples, broken.path(), &options).unwrap().kept, shards);
    let path = broken.path().join("shard-000001.tar");
    let mut data = fs::read(&path).unwrap();
    data[600] ^= 1;
    fs::write(&path, &data).unwrap();
    let said = verify(broken.path()).unwrap_err().to_string();
    assert!(said.contains("shard-000001.tar: its bytes are not those"), "{said}");
    let again = run(&samples, broken.path(), &options).unwrap();
    assert_eq!((again.kept, again.replaced), (1, shards - 1));
    assert_eq!(bytes_of(broken.path()), bytes_of(whole.path()));
    fs::remove_file(path).unwrap();
    let said = verify(broken.path()).unwrap_err().to_string();
    assert!(said.contains("shard-000001.tar"), "{said}");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    fs::write(out.join("letter.txt"), "dear").unwrap();
    let said = run(&images(2), out, &ShardOptions::default()).unwrap_err().to_string();
    assert!(said.contains("letter.txt") && said.contains("empty"), "{said}");
    assert_eq!(bytes_of(out).len(), 1);

    let out = &out.join("shards");
    run(&images(2), out, &ShardOptions::default()).unwrap();
    let before = bytes_of(out);
    for (samples, options) in [
        (images(3), ShardOptions::default()),
        (images(2), ShardOptions { size: Some(16), ..ShardOptions::default() }),
        (images(2), ShardOptions { shard_bytes: 1, ..ShardOptions::default() }),
    ] {
        let said = run(&samples, out, &options).unwrap_err().to_string();
        assert!(said.contains("other samples, or made with other options"), "{said}");
    }
    assert_eq!(bytes_of(out), before);
    fs::write(out.join(MANIFEST), b"{}").unwrap();
    let said = run(&images(2), out, &ShardOptions::default()).unwrap_err().to_string();
    assert!(said.contains("it is no manifest"), "{said}");
}

/// A manifest names files in its own folder only.
#[test]
fn a_manifest_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("shards");
    run(&images(2), &out, &ShardOptions::default()).unwrap();
    fs::copy(out.join("shard-000000.tar"), folder.path().join("outside.tar")).unwrap();
    let text = fs::read_to_string(out.join(MANIFEST)).unwrap();
    fs::write(out.join(MANIFEST), text.replace("shard-000000.tar", "../outside.tar")).unwrap();
    let said = verify(&out).unwrap_err().to_string();
    assert!(said.contains("is no name of a shard"), "{said}");
}

#[test]
fn broken_samples_stop_a_run_or_are_left_out_and_listed() {
    let samples = || {
        let mut samples = images(6);
        samples[1].media = Media::Image(memory(b"no image".to_vec()));
        samples[4].captions.clear();
        samples[5].media = Media::Video(memory(b"GIF89a".to_vec()));
        samples
    };
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let video = Some(Sampling::Uniform(4));
    let stop = ShardOptions { video, ..ShardOptions::default() };
    let error = run(&samples(), &out("stop"), &stop).unwrap_err();
    assert!(matches!(&error, Error::Decode { key, .. } if key == "a/1"), "{error}");
    assert!(!out("stop").join("shard-000000.tar").exists());

    let skip = ShardOptions { on_error: OnError::Skip, limit: 3, shard_bytes: 3000, ..stop };
    let written = run(&samples(), &out("skip"), &skip).unwrap();
    let listed: Vec<String> = written.manifest.skipped().map(ToString::to_string).collect();
    assert_eq!(listed.len(), 3, "{listed:?}");
    for (line, words) in listed.iter().zip(["set: a/1", "set: a/4", "set: a/5"]) {
        assert!(line.starts_with(words), "{listed:?}");
    }
    let keys: Vec<String> =
        read_all(&out("skip"), &written.manifest).into_iter().map(|s| s.key).collect();
    assert_eq!(keys, ["000000", "000002", "000003"]);
    let again = run(&samples(), &out("skip"), &skip).unwrap();
    assert_eq!(again.manifest, written.manifest);

    let few = ShardOptions { limit: 2, ..skip };
    let error = run(&samples(), &out("few"), &few).unwrap_err();
    assert!(matches!(error, Error::TooManySkipped { .. }), "{error}");
    let none = ShardOptions { limit: 9, ..few };
    let error = run(&samples()[4..], &out("none"), &none).unwrap_err();
    assert!(error.to_string().contains("every one of 2 was left out"), "{error}");
    assert!(run(&[], &out("nothing"), &none).unwrap_err().to_string().contains("empty"));
}

fn words() -> impl Strategy<Value = String> {
    // Texts as the clean-up leaves them: lower case, single spaces, none of its characters.
    proptest::collection::vec("[a-z0-9äßж'\\\\/,-]{1,9}", 1..6).prop_map(|words| words.join(" "))
}

prop_compose! {
    fn any_sample()(
        kind in 0..3u8, shade: u8, width in 1u32..40, frames in 1usize..5, key in "[^\0]{0,30}",
        captions in proptest::collection::vec(words(), 0..4),
        keywords in proptest::collection::vec(words(), 0..3),
        question in proptest::option::of(words()),
        weights in proptest::collection::vec((words(), 0.0f32..2.0), 0..3),
        concept in proptest::option::of(any::<String>()), split in 0..4usize,
        source in proptest::option::of(any::<String>()),
    ) -> Sample {
        let format = [Jpeg, Png, WebP][shade as usize % 3];
        let data = |more: u8| memory(encoded_image(width, 9, [shade, more, 7], format));
        let media = match kind {
            0 => Media::Image(data(0)),
            1 => Media::Frames((0..frames as u8).map(data).collect()),
            _ => Media::Video(video("solid.gif")),
        };
        let answers = weights.into_iter().map(|(answer, weight)| WeightedAnswer { answer, weight });
        let question = question.and_then(|text| {
            Question::new(Some(QuestionId::Name(text.clone())), &text, AnswerSet::Weighted(answers.collect()))
        });
        let mut captions = captions;
        if captions.is_empty() && question.is_none() {
            captions.push("something".to_string());
        }
        let split = [None, Some(Split::Train), Some(Split::Validation), Some(Split::Test)][split];
        Sample { captions, keywords, question, concept, split, source, ..sample(&key, media) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Written samples are read back in order, and neither the number of threads nor an
    /// interruption changes a byte.
    #[test]
    fn what_is_written_is_read_back(
        samples in proptest::collection::vec(any_sample(), 1..24), shard_bytes in 1u64..40_000,
        cut: prop::sample::Index,
    ) {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let options = |threads| ShardOptions { shard_bytes, threads, ..ShardOptions::default() };
        let written = run(&samples, folders[0].path(), &options(1)).unwrap();
        let back = read_all(folders[0].path(), &written.manifest);
        prop_assert_eq!(back.len(), samples.len());
        for (a, b) in samples.iter().zip(&back) {
            prop_assert!(same(a, b), "{:?} {:?}", a, b);
        }
        for entry in &written.manifest.shards {
            let length = fs::metadata(folders[0].path().join(&entry.file)).unwrap().len();
            prop_assert_eq!(length, entry.bytes);
            prop_assert!(length <= shard_bytes || entry.samples == 1, "{:?}", entry);
        }
        run(&samples, folders[1].path(), &options(3)).unwrap();
        prop_assert_eq!(bytes_of(folders[1].path()), bytes_of(folders[0].path()));

        // An unreadable sample stops the run; once repaired, it resumes.
        let mut broken = samples.clone();
        broken[cut.index(samples.len())].media = Media::Image(ByteSource::default());
        run(&broken, folders[2].path(), &options(2)).unwrap_err();
        let path = folders[2].path().join(MANIFEST);
        let mut manifest = Manifest::read(folders[2].path()).unwrap();
        manifest.work.clone_from(&written.manifest.work);
        fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
        let again = run(&samples, folders[2].path(), &options(2)).unwrap();
        prop_assert_eq!(again.kept, manifest.shards.len());
        prop_assert_eq!(bytes_of(folders[2].path()), bytes_of(folders[0].path()));
    }
}
