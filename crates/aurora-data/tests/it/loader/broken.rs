//! Broken samples during a run.

use std::collections::BTreeSet;
use std::sync::Arc;

use aurora_data::{Dataset, Decode, Error, LastBatch, LoaderOptions, OnError, SkipLog, shard};
use proptest::prelude::*;

use super::{Contents, contents, loader, shards};

fn skipping(limit: usize) -> Arc<SkipLog> {
    Arc::new(SkipLog::new(OnError::Skip, limit))
}

#[test]
fn stop_names_shard_image_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[4, 4], |number| number == 6);
    for num_workers in [0, 3] {
        let options = LoaderOptions { num_workers, ..LoaderOptions::evaluation(2) };
        let batches: Vec<_> = loader(&dataset, 2, options).epoch(0).unwrap().collect();
        assert_eq!(batches.len(), 4);
        let message = batches[3].as_ref().unwrap_err().to_string();
        assert!(message.contains("001.tar: image 00006 does not decode: "), "{message}");
    }
}

/// Saving the state after an error, repairing the image and resuming loses no sample.
#[test]
fn after_an_error_the_state_is_at_the_batch_that_could_not_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[4, 4], |number| number == 6);
    for num_workers in [0, 3] {
        let options = LoaderOptions { num_workers, ..LoaderOptions::evaluation(2) };
        let loader = loader(&dataset, 2, options);
        let mut batches = loader.batches(0, None).unwrap();
        assert_eq!(batches.by_ref().filter(Result::is_err).count(), 1);
        assert!(batches.next().is_none());
        assert_eq!(batches.next_step(), 3);
        assert_eq!(batches.state(), loader.state(3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// In training a good sample replaces a broken one: batches are full and equal for any number
    /// of threads, those without a broken sample are unchanged, and each broken sample is listed
    /// once over all epochs.
    #[test]
    fn in_training_another_takes_the_place(
        size in 8usize..40, broken in proptest::collection::btree_set(0usize..40, 0..6),
        batch in 1usize..5, seed: u64, num_workers in 1usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let broken: BTreeSet<usize> = broken.into_iter().filter(|&number| number < size).collect();
        prop_assume!(broken.len() < size);
        let dirty = shards(folder.path(), &[size], |number| broken.contains(&number));
        let clean_folder = tempfile::tempdir().unwrap();
        let clean = shards(clean_folder.path(), &[size], |_| false);
        let run = |dataset: &Dataset, num_workers, skips: &Arc<SkipLog>| -> Vec<Contents> {
            let options = LoaderOptions { num_workers, last_batch: LastBatch::Keep, ..LoaderOptions::training(batch, seed) };
            let loader = loader(dataset, 2, options).with_skips(Arc::clone(skips));
            let end = 3 * loader.steps_per_epoch();
            loader.batches(0, Some(end)).unwrap().map(|b| contents(&b.unwrap())).collect()
        };
        let (once, again) = (skipping(broken.len()), skipping(broken.len()));
        let found = run(&dirty, 0, &once);
        prop_assert_eq!(&run(&dirty, num_workers, &again), &found);
        let untouched = run(&clean, 0, &skipping(0));
        prop_assert_eq!(found.len(), untouched.len());
        for (found, untouched) in found.iter().zip(&untouched) {
            prop_assert_eq!(found.indices.len(), untouched.indices.len());
            prop_assert!(found.indices.iter().all(|index| !broken.contains(index)));
            prop_assert!(found.valid.iter().all(|&valid| valid));
            for (row, index) in untouched.indices.iter().enumerate() {
                if !broken.contains(index) {
                    prop_assert_eq!(found.indices[row], *index);
                    prop_assert_eq!(&found.texts[row], &untouched.texts[row]);
                }
            }
            if untouched.indices.iter().all(|index| !broken.contains(index)) {
                prop_assert_eq!(found, untouched);
            }
        }
        let listed: Vec<String> = once.list().into_iter().map(|skipped| skipped.what).collect();
        let expected: Vec<String> = broken.iter()
            .map(|number| format!("{}: {number:05}", folder.path().join("000.tar").display())).collect();
        prop_assert_eq!(&listed, &expected);
        prop_assert_eq!(again.list(), once.list());
    }
}

#[test]
fn in_evaluation_a_broken_sample_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[7], |number| number == 2 || number == 3);
    let skips = skipping(2);
    let loader = loader(&dataset, 2, LoaderOptions::evaluation(2)).with_skips(Arc::clone(&skips));
    let mut counted = Vec::new();
    for batch in loader.epoch(0).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.images.dims(), [batch.indices.len(), 3, 2, 2]);
        let rows = batch.indices.iter().zip(&batch.valid);
        counted.extend(rows.filter(|(_, valid)| **valid).map(|(&index, _)| index));
    }
    assert_eq!(counted, [0, 1, 4, 5, 6]);
    assert_eq!(skips.len(), 2);
    assert!(skips.list()[0].to_string().contains("000.tar: 00002: "));
}

#[test]
fn past_the_limit_the_run_stops() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[12], |number| number % 3 == 0);
    for num_workers in [0, 2] {
        let options = LoaderOptions { num_workers, ..LoaderOptions::evaluation(2) };
        let loader = loader(&dataset, 2, options).with_skips(skipping(3));
        let last = loader.epoch(0).unwrap().last().unwrap().unwrap_err();
        assert!(matches!(last, Error::TooManySkipped { skipped: 3, limit: 3, .. }), "{last}");
    }
}

#[test]
fn where_nothing_is_good_the_run_ends() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[5], |_| true);
    let loader = loader(&dataset, 2, LoaderOptions::training(2, 0)).with_skips(skipping(99));
    let message = loader.batch(0).unwrap_err().to_string();
    assert!(message.contains("every one is broken too"), "{message}");
}

/// A shard truncated while the run reads from it.
#[test]
fn a_file_that_becomes_shorter_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[3], |_| false);
    let path = folder.path().join("000.tar");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1024).unwrap();
    let loader =
        loader(&dataset, 2, LoaderOptions { num_workers: 0, ..LoaderOptions::evaluation(1) });
    assert!(loader.batch(0).is_ok());
    let message = loader.batch(2).unwrap_err().to_string();
    assert!(message.contains("000.tar") && message.contains("shorter"), "{message}");
}

#[test]
fn an_image_without_words_is_left_out_too() {
    let png = crate::common::encoded_image(2, 2, [9; 3], image::ImageFormat::Png);
    let files = [
        ("a.png", png.as_slice()),
        ("a.txt", b"red"),
        ("b.png", &png),
        ("b.json", br#"{"question": "what?", "answers": "red"}"#),
    ];
    let samples = shard::parse("s.tar", &crate::common::tar(&files)).unwrap();
    let dataset = Dataset::new(samples, Decode::AtLoad).unwrap();
    let skips = skipping(1);
    let options = LoaderOptions::training(2, 0);
    let loader = loader(&dataset, 2, options).with_skips(Arc::clone(&skips));
    assert_eq!(loader.batch(0).unwrap().indices, [0, 0]);
    assert!(skips.list()[0].reason.contains("image b has no caption"));
}
