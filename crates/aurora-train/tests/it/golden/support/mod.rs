//! Fixtures and tolerances.

pub mod reference;

use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Named tensors of a fixture file.
pub type Fixture = BTreeMap<String, Tensor>;

/// Fixture folder: `AURORA_GOLDEN`, else the crate's own.
pub fn folder() -> PathBuf {
    match std::env::var_os("AURORA_GOLDEN") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// Reads a fixture file, floats as f32.
pub fn read(name: &str) -> Fixture {
    let path = folder().join(name);
    aurora_layers::checkpoint::read_tensors(&path, DType::F32, &Device::Cpu)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Entries whose names begin with `prefix`, without it.
pub fn part(fixture: &Fixture, prefix: &str) -> Fixture {
    let strip = |(name, tensor): (&String, &Tensor)| {
        Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
    };
    fixture.iter().filter_map(strip).collect()
}

pub fn scalar(tensor: &Tensor) -> f32 {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
}

pub fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.to_dtype(DType::I64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest absolute difference; panics if the shapes differ.
pub fn distance(name: &str, found: &Tensor, wanted: &Tensor) -> f32 {
    assert_eq!(found.dims(), wanted.dims(), "{name}: shapes differ");
    values(found)
        .iter()
        .zip(values(wanted))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}

/// Asserts that `found` is within `tolerance` of `wanted` everywhere.
pub fn assert_close(name: &str, found: &Tensor, wanted: &Tensor, tolerance: f32) {
    let worst = distance(name, found, wanted);
    assert!(worst <= tolerance, "{name}: off by {worst:e}, allowed {tolerance:e}");
}

/// Asserts a gradient within 1e-4 of the tensor's largest entry plus 1e-7.
pub fn assert_gradient(name: &str, found: &Tensor, wanted: &Tensor) {
    let largest = values(wanted).iter().fold(0f32, |worst, value| worst.max(value.abs()));
    assert_close(name, found, wanted, 1e-4 * largest + 1e-7);
}
