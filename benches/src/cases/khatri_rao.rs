//! Khatri-Rao products of an adapter's factors, transposed: by loops of their own, and by candle's general operations.

use aurora_kernels::{khatri_rao, transpose_contiguous};
use candle_core::{Device, Result, Tensor, Var};

use super::{backward, gradient};
use crate::cost::SlicesShape;
use crate::{BenchCase, check, normal, values};

/// Four slices of BLIP-base's fc1.
const SHAPE: SlicesShape = SlicesShape { slices: 4, width: 768, rank: 64 };

/// Khatri-Rao product of the scales and U, transposed: (rank, slices * width).
fn transposed_product(plain: bool, factor: &Tensor, scales: &Tensor) -> Result<Tensor> {
    if plain {
        let copies = factor.unsqueeze(0)?.broadcast_mul(&scales.unsqueeze(1)?)?;
        return copies.flatten_to(1)?.t()?.contiguous();
    }
    transpose_contiguous(&khatri_rao(factor, scales)?)
}

/// Factor and scales, both trained.
fn operands() -> Result<[Var; 2]> {
    let SlicesShape { slices, width, rank } = SHAPE;
    let made =
        |index, rows: u64| Var::from_tensor(&normal(index, &[rows as usize, rank as usize])?);
    Ok([made(0, width)?, made(1, slices)?])
}

/// Forward and backward, each with both implementations.
pub(super) fn cases() -> Vec<BenchCase> {
    let SlicesShape { slices, width, rank } = SHAPE;
    let text = format!("N={slices} {width} R={rank}");
    let ways = [
        ("khatri_rao", "khatri_rao_backward", false),
        ("khatri_rao_candle", "khatri_rao_candle_backward", true),
    ];
    let both = |(name, name_backward, plain): (&str, &str, bool)| {
        let case = BenchCase::new("blip_base.fc1", name, &text, |e| SHAPE.khatri_rao(e));
        let forward = case.on_cpu(move || {
            let [factor, scales] = operands()?.map(|var| var.as_detached_tensor());
            check_output(&transposed_product(plain, &factor, &scales)?, &factor, &scales)?;
            Ok(move || transposed_product(plain, &factor, &scales).map(drop))
        });
        let case =
            BenchCase::new("blip_base.fc1", name_backward, &text, |e| SHAPE.khatri_rao_backward(e));
        let back = case.on_cpu(move || {
            let [factor, scales] = operands()?;
            let y = transposed_product(plain, &factor, &scales)?;
            check_gradient(&y, &factor, &scales)?;
            Ok(backward(y))
        });
        [forward, back]
    };
    ways.into_iter().flat_map(both).collect()
}

/// Checks the first row against the formula: component 0 of every slice.
fn check_output(y: &Tensor, factor: &Tensor, scales: &Tensor) -> Result<()> {
    let component = |x: &Tensor| values(&x.narrow(1, 0, 1)?);
    let (factor, scales) = (component(factor)?, component(scales)?);
    let want: Vec<f64> = scales.iter().flat_map(|s| factor.iter().map(move |u| u * s)).collect();
    check("khatri_rao", y, &want)
}

/// Checks the gradient of the factor: from ones, that of each of its rows is the sum of the scales.
fn check_gradient(y: &Tensor, factor: &Tensor, scales: &Tensor) -> Result<()> {
    let sums = values(&scales.to_device(&Device::Cpu)?.sum(0)?)?;
    check("khatri_rao_backward", gradient(&y.backward()?, factor, "the factor")?, &sums)
}
