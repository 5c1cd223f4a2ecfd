//! Fuzz target of a safetensors file, and of an index with two shards. Expected: an error, or tensors that can be
//! read.
//!
//! The input is cut in three by lines of `====`: the index, `1.safetensors`, `2.safetensors`.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use aurora_layers::checkpoint::Checkpoint;
use candle_core::Device;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

const CUT: &[u8] = b"\n====\n";

fn read(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        let (shape, dtype) = checkpoint.tensor_info(name).expect("a name of the checkpoint");
        let tensor = checkpoint.tensor(name, &Device::Cpu);
        assert_eq!(tensor.is_ok(), dtype.is_some(), "{name}");
        assert!(tensor.is_err() || tensor.is_ok_and(|tensor| tensor.dims() == shape));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(bytes.to_vec(), Path::new("some.safetensors")) {
        read(&checkpoint);
    }
    let mut parts = vec![bytes];
    while let Some(last) = parts.last()
        && parts.len() < 3
        && let Some(at) = last.windows(CUT.len()).position(|window| window == CUT)
    {
        let (before, after) = (&last[..at], &last[at + CUT.len()..]);
        parts.pop();
        parts.extend([before, after]);
    }
    let &[index, first, second] = parts.as_slice() else { return };
    let folder = FOLDER.path();
    for (name, bytes) in
        [("model.safetensors.index.json", index), ("1.safetensors", first), ("2.safetensors", second)]
    {
        std::fs::write(folder.join(name), bytes).expect("a file in a temporary folder");
    }
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        read(&checkpoint);
    }
});
