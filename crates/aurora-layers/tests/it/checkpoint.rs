//! Property tests of the checkpoint readers: whatever is in a file, a clear error or the right numbers, never a panic.

use crate::common::{Writer, legacy};
use aurora_layers::checkpoint::{Checkpoint, Pickle, Pth};
use proptest::prelude::*;
use std::path::Path;

/// (2, 3) tensor in column-major order.
fn one_tensor() -> Vec<u8> {
    let storage = ("FloatStorage", "0", 6);
    Writer::new().op(b"}").text("w").tensor(storage, &[2, 3], &[1, 2]).op(b"s.").0
}

fn open(folder: &Path, bytes: &[u8]) -> Result<Pth, String> {
    let path = folder.join("some.pth");
    std::fs::write(&path, bytes).unwrap();
    Pth::open(&path).map_err(|error| error.to_string())
}

#[test]
fn strides_are_honored() {
    let folder = tempfile::tempdir().unwrap();
    let pth = open(folder.path(), &legacy(&one_tensor(), &[0., 1., 2., 3., 4., 5.])).unwrap();
    let tensor = pth.tensor("w", &candle_core::Device::Cpu).unwrap();
    assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[0., 2., 4.], [1., 3., 5.]]);
}

#[test]
fn every_cut_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let whole = legacy(&one_tensor(), &[0., 1., 2., 3., 4., 5.]);
    for length in 0..whole.len() {
        let message = open(folder.path(), &whole[..length]).unwrap_err();
        assert!(message.contains("some.pth"), "{length}: {message}");
    }
}

#[test]
fn nothing_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let evil =
        Writer::new().op(b"}").text("w").global("os\nsystem").op(b"(").text("true").op(b"tRs.").0;
    let message = open(folder.path(), &legacy(&evil, &[])).unwrap_err();
    assert!(message.contains("os.system") && message.contains("nothing is executed"), "{message}");
}

#[test]
fn a_tensor_beyond_its_storage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let message = open(folder.path(), &legacy(&one_tensor(), &[0., 1., 2.])).unwrap_err();
    assert!(message.contains("w: [2, 3]") && message.contains("3 numbers"), "{message}");
}

#[test]
fn no_tensors_and_no_pickle_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let message = open(folder.path(), &legacy(&Writer::new().op(b"}.").0, &[])).unwrap_err();
    assert!(message.contains("no tensor"), "{message}");
    for (bytes, wanted) in
        [(&b"PK\x03\x04rest"[..], "zip"), (b"\x80\x02N.", "torch.save"), (b"", "cut")]
    {
        let message = open(folder.path(), bytes).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
    let path = folder.path().join("weights.bin");
    std::fs::write(&path, b"weights").unwrap();
    let message = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(message.contains("weights.bin"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Pickle::parse(&bytes);
    }

    #[test]
    fn a_flipped_byte_is_survived(place in 0usize..1000, value in any::<u8>()) {
        let mut bytes = legacy(&one_tensor(), &[0., 1., 2., 3., 4., 5.]);
        let place = place % bytes.len();
        bytes[place] = value;
        let folder = tempfile::tempdir().unwrap();
        if let Ok(pth) = open(folder.path(), &bytes) {
            let names: Vec<String> = pth.shapes().map(|(name, _)| name.to_owned()).collect();
            for name in names {
                prop_assert!(pth.tensor(&name, &candle_core::Device::Cpu).is_ok());
            }
        }
    }
}
