//! Resuming: a resumed run sees what it would have seen; ranks share an epoch without loss.

use std::sync::Arc;

use aurora_data::{
    AffineAugment, Dataset, Error, Keywords, LastBatch, Loader, LoaderOptions, LoaderState,
    Padding, Shuffle,
};
use proptest::prelude::*;

use super::{Contents, contents, loader, shards, tokenizer};

fn drawn(dataset: &Dataset, options: LoaderOptions) -> Loader {
    Loader::new(dataset.clone(), Arc::new(AffineAugment::new(6)), tokenizer(), options).unwrap()
}

fn shuffle() -> impl Strategy<Value = Shuffle> {
    prop_oneof![
        Just(Shuffle::Sequential),
        Just(Shuffle::Full),
        (1usize..40).prop_map(Shuffle::Buffer)
    ]
}

fn last_batch() -> impl Strategy<Value = LastBatch> {
    prop_oneof![Just(LastBatch::Drop), Just(LastBatch::Pad)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Stopped after any batch and resumed from the serialized state with other threads, the
    /// remaining stream of every rank is bit-identical: indices, texts, tokens and pixels.
    #[test]
    fn a_resumed_stream_is_the_rest_of_the_stream(
        sizes in proptest::collection::vec(1usize..20, 1..5), shuffle in shuffle(), last_batch in last_batch(),
        batch in 1usize..5, world_size in 1usize..4, seed: u64, cut in 0u64..40, after in 1u64..12,
        num_workers in (0usize..4, 0usize..4), prefetch in (0usize..3, 0usize..3),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let dataset = shards(folder.path(), &sizes, |_| false);
        prop_assume!(last_batch == LastBatch::Pad || dataset.len() >= batch * world_size);
        for rank in 0..world_size {
            let options = |num_workers, prefetch| LoaderOptions {
                shuffle, last_batch, rank, world_size, num_workers, prefetch,
                ..LoaderOptions::training(batch, seed)
            };
            let whole = drawn(&dataset, options(0, 0));
            let expected: Vec<Contents> =
                whole.batches(0, Some(cut + after)).unwrap().map(|b| contents(&b.unwrap())).collect();

            let mut first = drawn(&dataset, options(num_workers.0, prefetch.0)).batches(0, None).unwrap();
            for expected in &expected[..cut as usize] {
                prop_assert_eq!(&contents(&first.next().unwrap().unwrap()), expected);
            }
            let saved = serde_json::to_string(&first.state()).unwrap();
            drop(first);

            let state: LoaderState = serde_json::from_str(&saved).unwrap();
            let second = drawn(&dataset, options(num_workers.1, prefetch.1));
            let step = second.resume(&state).unwrap();
            prop_assert_eq!(step, cut);
            let rest: Vec<Contents> = second
                .batches(step, Some(step + after)).unwrap().map(|b| contents(&b.unwrap())).collect();
            prop_assert_eq!(&rest, &expected[cut as usize..]);
        }
    }

    /// Over all ranks of an epoch every sample counts once (or, with the rest dropped, at most
    /// once), every rank has as many full batches, and the state is equal on each.
    #[test]
    fn ranks_share_an_epoch(
        sizes in proptest::collection::vec(1usize..20, 1..5), shuffle in shuffle(), last_batch in last_batch(),
        batch in 1usize..6, world_size in 1usize..6, seed: u64, epoch in 0u64..5,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let dataset = shards(folder.path(), &sizes, |_| false);
        prop_assume!(last_batch == LastBatch::Pad || dataset.len() >= batch * world_size);
        let mut seen = vec![0; dataset.len()];
        let mut states = Vec::new();
        for rank in 0..world_size {
            let options = LoaderOptions { shuffle, last_batch, rank, world_size, num_workers: 0, ..LoaderOptions::training(batch, seed) };
            let loader = loader(&dataset, 2, options);
            let mut batches = loader.epoch(epoch).unwrap();
            let mut count = 0;
            while let Some(made) = batches.next() {
                let made = made.unwrap();
                prop_assert_eq!(made.indices.len(), batch);
                made.indices.iter().zip(&made.valid).filter(|(_, valid)| **valid).for_each(|(&index, _)| seen[index] += 1);
                count += 1;
                states.push((count, batches.state()));
            }
            prop_assert_eq!(count, loader.steps_per_epoch());
        }
        let total: usize = seen.iter().sum();
        prop_assert!(seen.iter().all(|&times| times <= 1));
        let together = batch * world_size;
        prop_assert_eq!(total, if last_batch == LastBatch::Pad { dataset.len() } else { dataset.len() / together * together });
        for (count, state) in &states {
            prop_assert!(states.iter().filter(|(other, _)| other == count).all(|(_, other)| other == state));
        }
    }
}

#[test]
fn a_state_of_other_batches_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[9, 8], |_| false);
    let options = || LoaderOptions::training(4, 7);
    let state = loader(&dataset, 2, options()).state(6);
    assert_eq!((state.epoch, state.position, state.samples), (1, 8, 17));

    let refusal = |dataset: &Dataset, options: LoaderOptions| {
        let error = loader(dataset, 2, options).resume(&state).unwrap_err();
        assert!(matches!(error, Error::State { .. }));
        error.to_string()
    };
    let cases = [
        (LoaderOptions { seed: 8, ..options() }, "seed was 7 and is 8 now"),
        (LoaderOptions { batch_size: 5, ..options() }, "batch_size was 4 and is 5 now"),
        (LoaderOptions { world_size: 2, ..options() }, "world_size was 1 and is 2 now"),
        (
            LoaderOptions { shuffle: Shuffle::Buffer(4), ..options() },
            "shuffle was Full and is Buffer(4) now",
        ),
        (
            LoaderOptions { last_batch: LastBatch::Pad, ..options() },
            "last_batch was Drop and is Pad now",
        ),
        (
            LoaderOptions { keywords: Keywords::All, ..options() },
            "keywords was Sample and is All now",
        ),
    ];
    for (options, expected) in cases {
        let message = refusal(&dataset, options);
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("go on with what the run began with"), "{message}");
    }
    let smaller = dataset.filter(|sample| sample.key != "00003");
    assert!(refusal(&smaller, options()).contains("samples in the dataset was 17 and is 16 now"));
    let other = tempfile::tempdir().unwrap();
    let renamed = shards(other.path(), &[8, 9], |_| false).filter(|_| true);
    // The location of shards and their partition do not affect their contents.
    assert_eq!(loader(&renamed, 2, options()).resume(&state).unwrap(), 6);
    let swapped = {
        let (front, back) = (other.path().join("000.tar"), other.path().join("001.tar"));
        let paths = [back, front];
        Dataset::open(&paths, Default::default(), aurora_data::Decode::OnUse).unwrap()
    };
    assert!(refusal(&swapped, options()).contains("contents of the dataset was"));

    // Options that do not affect the samples of batches may change.
    let free = LoaderOptions {
        num_workers: 5,
        prefetch: 9,
        prefetch_bytes: 1,
        max_tokens: 9,
        padding: Padding::Fixed,
        ..options()
    };
    assert_eq!(loader(&dataset, 2, free).resume(&state).unwrap(), 6);
}

/// Samples partitioned into other shards: only the order of a shuffle buffer over shards
/// depends on it.
#[test]
fn a_window_goes_on_over_shards_of_the_same_sizes_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = shards(folder.path(), &[9, 8], |_| false);
    let options = || LoaderOptions { shuffle: Shuffle::Buffer(3), ..LoaderOptions::training(4, 7) };
    let state = loader(&dataset, 2, options()).state(6);
    let cut = shards(other.path(), &[8, 9], |_| false);
    let message = loader(&cut, 2, options()).resume(&state).unwrap_err().to_string();
    assert!(message.contains("sizes of the shards was"), "{message}");
    let moved = shards(other.path(), &[9, 8], |_| false);
    assert_eq!(loader(&moved, 2, options()).resume(&state).unwrap(), 6);
}

/// Concepts define which pairs are positives of each other.
#[test]
fn other_concepts_are_another_dataset() {
    let dataset = |concept: &str| {
        let json = format!(r#"{{"caption": "red", "concept": "{concept}"}}"#);
        let png = crate::common::encoded_image(2, 2, [9; 3], image::ImageFormat::Png);
        let files = [("a.png", png.as_slice()), ("a.json", json.as_bytes())];
        let samples = aurora_data::shard::parse("s.tar", &crate::common::tar(&files)).unwrap();
        Dataset::new(samples, aurora_data::Decode::OnUse).unwrap()
    };
    let options = || LoaderOptions::training(1, 0);
    let state = loader(&dataset("color"), 2, options()).state(1);
    assert_eq!(loader(&dataset("color"), 2, options()).resume(&state).unwrap(), 1);
    let error = loader(&dataset("shape"), 2, options()).resume(&state).unwrap_err();
    assert!(error.to_string().contains("contents of the dataset was"), "{error}");
}

#[test]
fn a_damaged_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[9], |_| false);
    let loader = loader(&dataset, 2, LoaderOptions::training(4, 7));
    let state = loader.state(3);
    assert_eq!((state.epoch, state.position), (1, 4));
    for (epoch, position) in [(1, 3), (1, 8), (0, usize::MAX), (u64::MAX, 4)] {
        let damaged = LoaderState { epoch, position, ..state.clone() };
        let message = loader.resume(&damaged).unwrap_err().to_string();
        assert!(message.contains("position was") && message.contains("batches of 4"), "{message}");
    }
    let json = serde_json::to_string(&state).unwrap();
    let unknown = json.replacen("\"seed\"", "\"sead\"", 1);
    assert!(serde_json::from_str::<LoaderState>(&unknown).is_err());
    assert_eq!(serde_json::from_str::<LoaderState>(&json).unwrap(), state);
}

#[test]
fn options_of_ranks_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = shards(folder.path(), &[9], |_| false);
    let refusal = |options: LoaderOptions| {
        let transform = Arc::new(AffineAugment::new(4));
        let made = Loader::new(dataset.clone(), transform, tokenizer(), options);
        made.err().unwrap().to_string()
    };
    let training = || LoaderOptions::training(4, 0);
    let cases = [
        (LoaderOptions { rank: 2, world_size: 2, ..training() }, "rank = 2 of 2 ranks"),
        (LoaderOptions { world_size: 0, ..training() }, "rank = 0 of 0 ranks"),
        (
            LoaderOptions { world_size: 3, ..training() },
            "9 samples do not fill one batch of 4 on each of 3 ranks",
        ),
        (
            LoaderOptions { world_size: 2, ..LoaderOptions::evaluation(4) },
            "last_batch = keep, with 2 ranks",
        ),
        (LoaderOptions { world_size: usize::MAX, ..training() }, "fits in memory"),
        (LoaderOptions { shuffle: Shuffle::Buffer(0), ..training() }, "a buffer of 0"),
        (LoaderOptions { batch_size: 0, ..training() }, "batch_size = 0: 1 to 1048576"),
        (
            LoaderOptions { batch_size: usize::MAX, ..LoaderOptions::evaluation(1) },
            "batch_size = 18446744073709551615: 1 to 1048576",
        ),
    ];
    for (options, expected) in cases {
        let message = refusal(options);
        assert!(message.contains(expected), "{message}");
    }
}
