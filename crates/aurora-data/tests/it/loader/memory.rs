//! Memory of a loader.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aurora_data::{
    AffineAugment, Dataset, Decode, EvalTransform, Image, Loader, LoaderOptions, Padding, Shuffle,
    Transform, embedded, shard,
};
use aurora_kernels::random::Stream;

use super::{shards, tokenizer};

/// Transform that counts its images.
struct Counting(AtomicUsize);

impl Transform for Counting {
    fn size(&self) -> usize {
        8
    }

    fn apply(
        &self,
        image: &Image,
        stream: &mut Stream,
        out: &mut [f32],
    ) -> aurora_data::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        EvalTransform { size: 8 }.apply(image, stream, out)
    }
}

/// With an idle consumer, no more images are made than the number and the bytes allow.
#[test]
fn batches_ahead_are_bounded_by_number_and_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[64], |_| false);
    let bytes = 2 * 3 * 8 * 8 * 4; // of a batch
    // Threads, prefetch, memory, and the expected limit of batches.
    for (num_workers, prefetch, prefetch_bytes, ahead) in
        [(2, 3, u64::MAX, 5), (4, 9, 3 * bytes, 3), (4, 9, 1, 1), (1, 0, u64::MAX, 1)]
    {
        let seen = Arc::new(Counting(AtomicUsize::new(0)));
        let options =
            LoaderOptions { num_workers, prefetch, prefetch_bytes, ..LoaderOptions::evaluation(2) };
        let loader = Loader::new(dataset.clone(), seen.clone(), tokenizer(), options).unwrap();
        let mut batches = loader.batches(0, None).unwrap();
        for taken in 1..=4 {
            batches.next().unwrap().unwrap();
            let made = || seen.0.load(Ordering::SeqCst);
            let start = Instant::now();
            while made() < 2 * (taken + ahead) && start.elapsed() < Duration::from_secs(30) {
                std::thread::yield_now();
            }
            // Long enough for unbounded threads to make far more.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(
                made(),
                2 * (taken + ahead),
                "{num_workers} threads, {prefetch_bytes} bytes"
            );
        }
    }
}

/// Resident memory in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// 100,000 images from shards on disk through a shuffle buffer: memory stays at its level after the
/// first tenth.
#[test]
#[ignore = "takes a minute in a release build: cargo test --release -p aurora-data --test it loader:: -- --ignored --nocapture"]
#[cfg(target_os = "linux")]
fn memory_is_flat_over_100_000_samples() {
    const SAMPLES: usize = 100_000;
    const SHARDS: usize = 20;
    let images: Vec<Vec<u8>> = embedded::noto()
        .unwrap()
        .iter()
        .map(|sample| sample.media.contents()[0].bytes().unwrap().into_owned())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut samples = Vec::new();
    for number in 0..SHARDS {
        let in_shard = number * SAMPLES / SHARDS..(number + 1) * SAMPLES / SHARDS;
        let names: Vec<[String; 3]> = in_shard
            .clone()
            .map(|i| [format!("{i:06}.webp"), format!("{i:06}.txt"), format!("image {i}")])
            .collect();
        let files: Vec<(&str, &[u8])> = in_shard
            .zip(&names)
            .flat_map(|(i, [image, text, words])| {
                let data = images[i % images.len()].as_slice();
                [(image.as_str(), data), (text.as_str(), words.as_bytes())]
            })
            .collect();
        let path = folder.path().join(format!("{number:03}.tar"));
        std::fs::write(&path, crate::common::tar(&files)).unwrap();
        samples.extend(shard::read(&path).unwrap());
    }
    drop(images);
    let dataset = Dataset::new(samples, Decode::OnUse).unwrap();
    let options = LoaderOptions {
        shuffle: Shuffle::Buffer(10_000),
        padding: Padding::Fixed,
        ..LoaderOptions::training(100, 1)
    };
    let loader =
        Loader::new(dataset, Arc::new(AffineAugment::new(96)), tokenizer(), options).unwrap();
    let (mut seen, mut readings) = (0, Vec::new());
    println!("{:>7} samples: {:5.1} MiB", 0, resident() as f64 / f64::from(1 << 20));
    for batch in loader.epoch(0).unwrap() {
        seen += batch.unwrap().indices.len();
        if seen % 10_000 == 0 {
            readings.push(resident());
            println!("{seen:>7} samples: {:5.1} MiB", resident() as f64 / f64::from(1 << 20));
        }
    }
    assert_eq!(readings.len(), 10);
    // A batch of pixels is 11 MB and a decoded image 12 KiB: a leak of a hundredth of the images
    // would show.
    let growth = readings.iter().max().unwrap().saturating_sub(readings[0]);
    assert!(growth < 8 << 20, "{growth} bytes more than after the first 10,000");
}
