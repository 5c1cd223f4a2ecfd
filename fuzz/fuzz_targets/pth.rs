//! Fuzz target of `.pth` files, zip or legacy, and of bare pickles. Expected: an error, or tensors that can all be
//! read.

#![no_main]

use std::path::Path;

use aurora_layers::checkpoint::{Pickle, Pth};
use candle_core::Device;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Pickle::parse(bytes);
    let Ok(pth) = Pth::from_bytes(bytes.to_vec(), Path::new("some.pth")) else { return };
    for (name, shape) in pth.shapes() {
        let tensor = pth.tensor(name, &Device::Cpu).expect("a tensor of an accepted file");
        assert_eq!(tensor.dims(), shape);
    }
});
