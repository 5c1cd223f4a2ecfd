//! Parquet with embedded images: files by Hugging Face's datasets and by pyarrow (`make.py`), and
//! files of every layout by the crate's writer.

mod broken;
mod columns;
mod made;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use aurora_data::check::{Report, check};
use aurora_data::source;
use aurora_data::write::{ShardOptions, write};
use aurora_data::{
    Dataset, Decode, EvalTransform, Loader, LoaderOptions, OnError, QuestionId, SkipLog, Split,
    embedded, shard,
};
use made::{Row, at, bytes, options, parquet, plain, read, rows};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parquet").join(name)
}

#[test]
fn a_dataset_as_hugging_face_writes_it() {
    let samples = read(&fixture("datasets")).unwrap();
    assert_eq!(samples.len(), 6);
    for (number, sample) in samples.iter().enumerate() {
        let file = fixture("images").join(format!("{number}.png"));
        assert_eq!(bytes(sample).unwrap(), fs::read(file).unwrap());
        assert_eq!(sample.captions, [format!("picture number {number}")]);
        let split = if number < 5 { Split::Train } else { Split::Validation };
        assert_eq!(sample.split, Some(split));
    }
    assert!(samples[2].shard.ends_with("train-00001-of-00002.parquet"), "{}", samples[2].shard);
    assert_eq!(samples[2].key, "row 1 (2.png)");
    // A single file is a dataset too, and its name tells its split.
    let alone = read(&fixture("datasets/data/validation-00000-of-00001.parquet")).unwrap();
    assert_eq!(alone, samples[5..]);
}

#[test]
fn a_file_with_questions_lists_and_nulls() {
    let path = fixture("pyarrow/rows.parquet");
    let skips = SkipLog::new(OnError::Skip, 9);
    let samples = source::read(&path, &options(), &skips).unwrap();
    let left_out = skips.list();
    assert_eq!(left_out.len(), 0, "{left_out:?}");
    let captions: Vec<&[String]> = samples.iter().map(|s| s.captions.as_slice()).collect();
    let none: &[&str] = &[];
    assert_eq!(captions, [&["one", "uno"][..], none, &["one again"], none, &["nothing"], &["two"]]);
    let question = samples[0].question.as_ref().unwrap();
    assert_eq!((question.text.as_str(), &question.id), ("what?", &Some(QuestionId::Number(11))));
    assert_eq!(question.answers, [("a".to_string(), 0.5), ("b".to_string(), 0.5)]);
    assert!(samples[1].question.as_ref().unwrap().answers.is_empty());
    assert_eq!(samples[2].question, None);
    let splits: Vec<Split> = samples.iter().map(|s| s.split.unwrap()).collect();
    assert_eq!(splits[1..4], [Split::Train, Split::Validation, Split::Test]);
    assert_eq!(samples[0].concept, samples[2].concept);
    assert_ne!(samples[0].concept, samples[1].concept);
    for (sample, number) in samples.iter().zip([Some(0), Some(1), Some(0), Some(2), None, Some(1)])
    {
        match number {
            Some(number) => {
                let file = fixture("images").join(format!("{number}.png"));
                assert_eq!(bytes(sample).unwrap(), fs::read(file).unwrap());
            }
            None => {
                let error = bytes(sample).unwrap_err().to_string();
                for part in ["rows.parquet", "row 5 holds no image", "embedded"] {
                    assert!(error.contains(part), "{error}");
                }
            }
        }
    }
}

/// Every layout that writers choose: compression, dictionaries or none, pages of a few images or
/// one for all, row groups of any size.
#[test]
fn every_layout_gives_the_same_in_any_order() {
    let rows = rows(60);
    let folder = tempfile::tempdir().unwrap();
    let codecs =
        [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())];
    for codec in codecs {
        for (dictionary, version, page, in_group) in [
            (false, WriterVersion::PARQUET_1_0, 1 << 20, 60),
            (false, WriterVersion::PARQUET_2_0, 300, 25),
            (false, WriterVersion::PARQUET_1_0, 300, 25),
            (true, WriterVersion::PARQUET_1_0, 1 << 20, 60),
            (true, WriterVersion::PARQUET_2_0, 300, 7),
        ] {
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_dictionary_enabled(dictionary)
                .set_dictionary_page_size_limit(page)
                .set_writer_version(version)
                .set_data_page_size_limit(page)
                .set_write_batch_size(if page == 300 { 3 } else { 1024 });
            let path = at(&folder, "a.parquet", &parquet(&rows, in_group, properties));
            let samples = read(&path).unwrap();
            assert_eq!(samples.len(), rows.len());
            // Twice, since a page already read may take another path.
            for number in (0..60).map(|n| n * 37 % 60).chain((0..60).map(|n| n * 23 % 60)) {
                let (sample, row) = (&samples[number], &rows[number]);
                let what = format!("{codec} {dictionary} {version:?} {page} {in_group}: {number}");
                assert_eq!(Some(bytes(sample).unwrap()), row.image, "{what}");
                assert_eq!(sample.captions, row.captions, "{what}");
                assert_eq!(sample.split, None);
            }
        }
    }
}

/// Folder of files with the rows' images and texts.
fn as_folder(rows: &[Row]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, row) in rows.iter().enumerate() {
        at(&folder, &format!("{number:03}.png"), row.image.as_ref().unwrap());
        at(&folder, &format!("{number:03}.txt"), row.captions.join("\n").as_bytes());
    }
    folder
}

#[test]
fn batches_are_those_of_a_folder() {
    let rows = rows(40);
    let (files, folder) = (as_folder(&rows), tempfile::tempdir().unwrap());
    let properties = plain().set_compression(Compression::SNAPPY);
    at(&folder, "train.parquet", &parquet(&rows, 9, properties));
    let tokenizer = Arc::new(embedded::vocabulary().unwrap());
    let batches = |path: &Path| {
        let dataset = Dataset::new(read(path).unwrap(), Decode::OnUse).unwrap();
        let options = LoaderOptions { num_workers: 3, ..LoaderOptions::training(8, 3) };
        let transform = Arc::new(EvalTransform { size: 32 });
        let loader = Loader::new(dataset, transform, Arc::clone(&tokenizer), options).unwrap();
        let batches = loader.epoch(1).unwrap().map(|batch| {
            let batch = batch.unwrap();
            let images = batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (images, batch.input_ids.to_vec2::<u32>().unwrap(), batch.indices)
        });
        batches.collect::<Vec<_>>()
    };
    let found = batches(folder.path());
    assert_eq!(found.len(), 5);
    assert_eq!(found, batches(files.path()));
}

fn look(path: &Path) -> Report {
    let tokenizer = embedded::vocabulary().unwrap();
    check(&[path.to_path_buf()], &options(), (&tokenizer, 35), &|_, _, _| {}).unwrap().report
}

#[test]
fn a_look_finds_what_it_finds_in_a_folder() {
    let rows = rows(30);
    let (files, folder) = (as_folder(&rows), tempfile::tempdir().unwrap());
    at(&folder, "a.parquet", &parquet(&rows, 8, plain()));
    let (found, known) = (look(folder.path()), look(files.path()));
    assert!(!found.stops(), "{:?}", found.problems);
    assert_eq!((found.samples, found.images, found.captions), (30, 30, 36));
    assert_eq!((known.samples, known.images, known.captions), (30, 30, 36));
    assert_eq!(found.same_image.duplicates.len(), known.same_image.duplicates.len());
    assert_eq!(found.same_image.duplicates.len(), 4);
    assert_eq!((found.sizes, found.lengths), (known.sizes, known.lengths));

    // A broken row is reported by file and row, and the rest is read.
    let mut broken = rows;
    broken[3].image = Some(b"no image".to_vec());
    broken[4].image = None;
    broken[5].captions.clear();
    at(&folder, "a.parquet", &parquet(&broken, 8, plain()));
    let report = look(folder.path());
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!((problems.len(), report.samples), (3, 29), "{problems:?}");
    for part in ["row 4", "row 5 (4.png)", "a.parquet, row 6"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
}

#[test]
fn the_name_of_a_row_is_printable() {
    let mut rows = rows(1);
    rows[0].path = Some(format!("\u{1b}[2J\n{}.png", "x".repeat(9000)));
    let folder = tempfile::tempdir().unwrap();
    let samples = read(&at(&folder, "a.parquet", &parquet(&rows, 4, plain()))).unwrap();
    let key = &samples[0].key;
    assert!(key.starts_with("row 1 (\\u{1b}[2J\\nxx") && key.len() < 1000, "{key}");
}

/// A whole row group without images counts as that many rows without one.
#[test]
fn rows_without_images_are_left_out_wherever_they_stand() {
    let mut rows = rows(12);
    for row in &mut rows[4..8] {
        row.image = None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder, "a.parquet", &parquet(&rows, 4, plain()));
    let samples = read(&path).unwrap();
    assert_eq!(samples.len(), 12);
    let error = bytes(&samples[5]).unwrap_err().to_string();
    assert!(error.contains("row 6 holds no image"), "{error}");
    let skips = SkipLog::new(OnError::Skip, 4);
    let kept = Dataset::new_with(samples.clone(), Decode::AtLoad, &skips).unwrap();
    assert_eq!((kept.len(), skips.len()), (8, 4), "{:?}", skips.list());
    assert!(Dataset::new(samples, Decode::AtLoad).is_err());
}

#[test]
fn shards_are_made_of_it() {
    let rows = rows(20);
    let folder = tempfile::tempdir().unwrap();
    at(&folder, "data/test-00000-of-00001.parquet", &parquet(&rows, 6, plain()));
    let samples = read(folder.path()).unwrap();
    let out = folder.path().join("shards");
    let written = write(&samples, &out, &ShardOptions::default(), &mut |_, _| {}).unwrap();
    assert_eq!(written.manifest.written(), 20);
    let back = shard::read(&out.join("shard-000000.tar")).unwrap();
    for (sample, row) in back.iter().zip(&rows) {
        assert_eq!(Some(bytes(sample).unwrap()), row.image);
        assert_eq!((&sample.captions, sample.split), (&row.captions, Some(Split::Test)));
    }
}

#[test]
fn splits_come_from_names_of_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let file = parquet(&rows(1), 9, plain());
    for name in ["train/0000.parquet", "val/0000.parquet", "my_test.parquet", ".hidden.parquet"] {
        at(&folder, name, &file);
    }
    at(&folder, "other/0000.parquet", b"not looked at");
    let samples = read(folder.path()).unwrap();
    let splits: Vec<Option<Split>> = samples.iter().map(|s| s.split).collect();
    assert_eq!(splits, [Split::Test, Split::Train, Split::Validation].map(Some));
}
