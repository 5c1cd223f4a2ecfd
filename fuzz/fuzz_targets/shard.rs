//! Fuzz target of a shard, gzipped or not. Expected: an error in one line, or samples with texts and with names that
//! stay inside.

#![no_main]

use aurora_data::shard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match shard::parse("some.tar", bytes) {
        Ok(samples) => {
            for sample in samples {
                assert!(!sample.key.starts_with('/') && !sample.key.split('/').any(|part| part == ".."));
                assert!(!sample.captions.is_empty() || sample.question.is_some());
                assert!(sample.media.len() <= 64 * bytes.len() as u64 + (64 << 20));
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("some.tar") && !message.contains(char::is_control), "{message:?}");
        }
    }
});
