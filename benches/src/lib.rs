//! Shared code of the benches. A [`BenchCase`] is an operation on a shape named after a site of a model ([`site`]),
//! with its cost by formula ([`cost`]). A target runs its cases under Criterion ([`measure`]), beside the device's
//! roofline ([`roofline`]), and prints each case's share of the roofline ([`mod@table`]). On a GPU a case is the
//! launches of our kernels alone ([`gpu`]): timed by the device's events, its L2 flushed before each run.
//!
//! | variable | what it does |
//! |---|---|
//! | `AURORA_BENCH_DEVICE` | `cpu`, `gpu`, or `all`, which takes the GPU where there is one and says so where not |
//! | `AURORA_BENCH_IMAGES` | images in a batch of BLIP-base, 2 (on a GPU 16); the small model takes 64 times as many |
//! | `AURORA_BENCH_RECORD=1` | appends the measured cases to `benches/results/TARGET.csv`; otherwise a bench writes below `target/` alone |
//! | `AURORA_BENCH_NOTE` | goes into the last column of what is appended |
//! | `AURORA_BENCH_RESULTS` | another folder for the CSV files |

pub mod case;
pub mod cases;
pub mod cost;
pub mod gpu;
pub mod measure;
pub mod model_cost;
pub mod record;
pub mod roofline;
pub mod site;
pub mod table;
pub mod worker;

use aurora_kernels::random::Stream;
use candle_core::{DType, Result, Tensor};

pub use case::BenchCase;
pub use measure::{Setting, target};

/// Normal f32 tensor, different for each index.
///
/// # Errors
/// Those of candle when it cannot make a tensor of that shape.
pub fn normal(index: u64, shape: &[usize]) -> Result<Tensor> {
    Stream::new(0, "bench", 0, index).normal_tensor(shape, 1.0)
}

/// Elements in order as f64, for a reference.
///
/// # Errors
/// Those of candle when it cannot read the tensor.
pub fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// Compares the beginning of a result with its reference, as far as that goes.
///
/// # Errors
/// An element that is further off than 1e-5 of the largest, or what candle reports.
pub fn check(name: &str, got: &Tensor, want: &[f64]) -> Result<()> {
    check_within(name, &values(got)?, want, 1e-5)
}

/// Compares the beginning of a result with its reference, as far as that goes.
///
/// # Errors
/// An element that is further off than `tolerance` times the largest.
pub fn check_within(name: &str, got: &[f64], want: &[f64], tolerance: f64) -> Result<()> {
    if want.is_empty() || got.len() < want.len() {
        candle_core::bail!("{name}: {} elements, the reference has {}", got.len(), want.len());
    }
    let scale = want.iter().fold(0f64, |top, x| top.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        // Not the other way round: NaN must not pass.
        let right = (got - want).abs() <= tolerance * scale;
        if !right {
            candle_core::bail!("{name}: element {index} is {got}, the reference says {want}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_element_is_named() {
        let got = Tensor::new(&[1f32, 2.0, f32::NAN], &candle_core::Device::Cpu).unwrap();
        check("site/copy", &got, &[1.0, 2.0]).unwrap();
        for (want, word) in [(vec![1.0, 2.1], "element 1"), (vec![1.0, 2.0, 3.0], "element 2")] {
            let message = check("site/copy", &got, &want).unwrap_err().to_string();
            assert!(message.contains("site/copy") && message.contains(word), "{message}");
        }
        assert!(check("site/copy", &got, &[]).is_err());
    }
}
