//! Fuzz target of annotation files. The first byte of the input chooses the file's name and its stated format.
//! Expected: an error that names the file, or samples with texts.

#![no_main]

use aurora_data::source::ReadOptions;
use aurora_data::{Format, OnError, SkipLog, formats};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 4] = ["some.json", "some.jsonl", "some.csv", "some.tsv"];
const FORMATS: [Format; 8] = [
    Format::Auto,
    Format::Coco,
    Format::Flickr30k,
    Format::Msrvtt,
    Format::Didemo,
    Format::Vqa,
    Format::MsrvttQa,
    Format::Table,
];

thread_local! {
    /// Folder with one image, which rows may name.
    static FOLDER: tempfile::TempDir = {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.jpg"), [0xff, 0xd8, 0xff]).expect("an image");
        folder
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    FOLDER.with(|folder| {
        let path = folder.path().join(NAMES[first as usize % NAMES.len()]);
        std::fs::write(&path, bytes).expect("a file");
        let format = FORMATS[first as usize / NAMES.len() % FORMATS.len()];
        let options = ReadOptions { format, ..ReadOptions::default() };
        let policy = if first & 0x80 == 0 { OnError::Stop } else { OnError::Skip };
        match formats::read(&path, &options, &SkipLog::new(policy, 1000)) {
            Ok(samples) => {
                for sample in samples {
                    assert!(!sample.captions.is_empty() || sample.question.is_some());
                }
            }
            Err(error) => {
                let message = error.to_string();
                let plain = !message.contains(char::is_control) && message.chars().count() < 1000;
                assert!(message.contains("some.") && plain, "{message:?}");
            }
        }
        std::fs::remove_file(&path).expect("the file");
    });
});
