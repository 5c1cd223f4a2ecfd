//! Position embeddings resized for another image size.

use candle_core::{DType, Tensor};

use crate::Result;

/// Bicubic weight of a neighbor at this distance: Keys' kernel with a = -0.75, as in PyTorch.
fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.75;
    let x = distance.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Four neighbors of each of `to` positions on an axis of `from`, with their weights. As PyTorch without aligned
/// corners; beyond the edge the edge is repeated.
fn neighbors(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|place| {
            let at = (place as f64 + 0.5) * scale - 0.5;
            let floor = at.floor();
            [-1.0, 0.0, 1.0, 2.0].map(|step| {
                let neighbor = (floor + step).clamp(0.0, from as f64 - 1.0);
                (neighbor as usize, cubic(at - floor - step))
            })
        })
        .collect()
}

/// Resizes embeddings (1, 1 + from x from, width) to (1, 1 + to x to, width): `[CLS]` unchanged, the grid bicubic.
///
/// # Errors
/// Errors of candle.
pub fn resize(embeddings: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    if from == to {
        return Ok(embeddings.clone());
    }
    let width = embeddings.dim(2)?;
    let values: Vec<f32> = embeddings.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let (first, square) = values.split_at(width);
    let places = neighbors(from, to);
    let mut out = first.to_vec();
    out.reserve(to * to * width);
    for rows in &places {
        for columns in &places {
            let mut sum = vec![0f64; width];
            for &(row, y) in rows {
                for &(column, x) in columns {
                    let start = (row * from + column) * width;
                    for (sum, value) in sum.iter_mut().zip(&square[start..start + width]) {
                        *sum += y * x * f64::from(*value);
                    }
                }
            }
            out.extend(sum.into_iter().map(|value| value as f32));
        }
    }
    let resized = Tensor::from_vec(out, (1, 1 + to * to, width), embeddings.device())?;
    Ok(resized.to_dtype(embeddings.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn weights_are_pytorchs_and_add_up() {
        // By hand, from the kernel at a quarter between two positions.
        let quarter = [-0.105_468_75, 0.878_906_25, 0.261_718_75, -0.035_156_25];
        let four = neighbors(8, 16)[5]; // at 2.25
        assert_eq!(four.map(|(place, _)| place), [1, 2, 3, 4]);
        assert_eq!(four.map(|(_, weight)| weight), quarter);
        for (from, to) in [(4, 7), (7, 4), (24, 14), (3, 3)] {
            for four in neighbors(from, to) {
                assert!((four.iter().map(|(_, w)| w).sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn rows_and_columns_keep_their_places_and_cls_its_value() {
        let square: Vec<f32> = (0..64).map(|i| ((i / 8) * (i % 8)) as f32).collect();
        let values = std::iter::once(9.0).chain(square.iter().copied()).collect();
        let values = Tensor::from_vec(values, (1, 65, 1), &Device::Cpu).unwrap();
        let out: Vec<f32> =
            resize(&values, 8, 16).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!((out[0], out.len()), (9.0, 257));
        let places = neighbors(8, 16);
        let along = |place: usize| places[place].iter().map(|&(p, w)| p as f64 * w).sum::<f64>();
        for (row, column) in [(0, 0), (5, 6), (15, 2), (9, 15)] {
            let expected = (along(row) * along(column)) as f32; // a product of the two axes stays one
            assert!((out[1 + 16 * row + column] - expected).abs() < 1e-4, "{row}, {column}");
        }
    }
}
